"""How an adapter calls a provider's blocking SDK: in a thread of its account, bounded, errors translated at one door.

    adapter ──> Caller(operation, call) ──> thread ──> SDK        any exception ──> translate ──┬─ CloudRefusedError
                     └─ TOTAL_S, waiting included                                               └─ CloudUnavailableError

What the translation of a provider does not know is no answer that one could trust: unavailable, never refused. The
surprising rule: a provider that answered "not yet" is healthy. StillBusyError says so, and no circuit opens for it.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError

T = TypeVar("T")

CONNECT_S = 5.0
"""For a connection to a provider, TLS included (SPEC 4.2)."""
TOTAL_S = 20.0
"""For one call and its whole answer, the wait for a free thread included (SPEC 4.2)."""
THREADS = 8
"""Calls of one account at a time; a provider that hangs holds up its own accounts alone."""
MOST_WAITING = 512
"""Calls of one account that wait for a thread: as many as come to their turn in TOTAL_S when each takes 0.3 s."""
BUSY_RETRY_S = 5.0
"""When to look again at what a provider is still doing; a Scaleway server takes about ten seconds to stop."""
MOST_WORDS = 500
"""Characters of a provider's own words that go into events."""
SHORTEST_SECRET = 4
"""Shorter values of a credential (a region, a user's name) would black out common words."""

Translate = Callable[[str, Exception], CloudRefusedError | CloudUnavailableError | None]
"""(operation, foreign error) -> what it means; None: not known."""


class StillBusyError(CloudUnavailableError):
    """The provider answered, and is not there yet: a server still stops, a volume is still attached. Ask again."""

    def __init__(self, message: str, retry_after_s: float = BUSY_RETRY_S) -> None:
        super().__init__(message, "transient", retry_after_s)


class Caller:
    """Runs the blocking calls of one account.

    Args:
        name: of the provider, for messages and the threads' names.
        translate: what an exception of its SDK means.
        secrets: values that must not stand in any message, whatever an SDK writes into its errors.
        total_s: see TOTAL_S.
    """

    def __init__(self, name: str, translate: Translate, secrets: Sequence[str] = (), total_s: float = TOTAL_S) -> None:
        self._name = name
        self._translate = translate
        self._secrets = secrets
        self._total_s = total_s
        self._open = 0
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"cloud-{name}")

    async def __call__(self, operation: str, call: Callable[[], T]) -> T:
        """Runs `call` in a thread.

        A call that is given up while it waits for a thread never runs; one that runs goes on, and may have its effect.
        That too many wait is our own doing: StillBusyError.

        Raises:
            CloudRefusedError, CloudUnavailableError: nothing else.
        """
        if self._open >= THREADS + MOST_WAITING:
            raise StillBusyError(f"{self._name}: {operation}: {self._open} calls of this account are open")
        self._open += 1
        began = threading.Event()

        def begin() -> T:
            began.set()
            return call()

        try:
            async with asyncio.timeout(self._total_s):
                return await asyncio.get_running_loop().run_in_executor(self._pool, begin)
        except (CloudRefusedError, CloudUnavailableError) as known:
            raise self._cleaned(known) from None
        except TimeoutError:
            if not began.is_set():  # the provider was not even asked, so this says nothing about it
                raise StillBusyError(f"{self._name}: {operation}: no thread was free in {self._total_s:g} s") from None
            raise CloudUnavailableError(f"{self._name}: {operation}: no answer in {self._total_s:g} s") from None
        except Exception as error:  # noqa: BLE001 - the one door: whatever a foreign library raises is translated here
            unknown = CloudUnavailableError(f"{self._name}: {operation}: {type(error).__name__}: {error}")
            raise self._cleaned(self._translate(operation, error) or unknown) from None
        finally:
            self._open -= 1

    def _cleaned(self, error: CloudRefusedError | CloudUnavailableError) -> CloudRefusedError | CloudUnavailableError:
        match error:
            case CloudRefusedError():
                return CloudRefusedError(error.code, words_of(error.message, self._secrets), error.kind)
            case StillBusyError():
                return StillBusyError(words_of(str(error), self._secrets), error.retry_after_s)
            case _:
                return CloudUnavailableError(words_of(str(error), self._secrets), error.kind, error.retry_after_s)


def words_of(text: str, secrets: Sequence[str] = ()) -> str:
    """A provider's words as they may be recorded: one line, without credentials, at most MOST_WORDS characters."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    line = " ".join(text.split())
    return line if len(line) <= MOST_WORDS else line[: MOST_WORDS - 1] + "…"
