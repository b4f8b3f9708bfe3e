"""The gateway with one of its virtues taken out, as a process: the controls of the proofs.

    python -m tests.chaos.gateway.variants no_journal | first_come | no_pause

Production code has no switch for any of this, so the change is made here, in a child process, before it starts.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import uvloop

from gateway import exchange
from gateway.meter import Meter, Publish, Spool
from gateway.queueing import Waiting
from infra.environment import read_environment
from infra.processes import gateway


def no_journal() -> None:
    """What runs is noted down nowhere; ended requests go to the disk at once."""
    made = Meter.__init__

    def without(meter: Meter, spool: Spool, publish: Publish, _journal: object) -> None:
        made(meter, spool, publish)

    patch.object(Meter, "__init__", without).start()


def first_come() -> None:
    """Whoever came first is served first, whosever it is."""

    def waiting(**facts: Any) -> Waiting:
        return Waiting(**{**facts, "tenant": "everybody"})

    patch.object(exchange, "Waiting", waiting).start()


def no_pause() -> None:
    """An engine is read as fast as it sends, however slow the client."""

    def client_slow(_exchange: exchange.Exchange) -> None:
        pass

    patch.object(exchange.Exchange, "client_slow", client_slow).start()


VARIANTS: Mapping[str, Callable[[], None]] = {
    "no_journal": no_journal,
    "first_come": first_come,
    "no_pause": no_pause,
}


def command(name: str) -> Sequence[str]:
    """For Stage.start_gateway."""
    return (sys.executable, "-m", "tests.chaos.gateway.variants", name)


def main() -> int:
    VARIANTS[sys.argv[1]]()
    uvloop.run(gateway.run(read_environment()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
