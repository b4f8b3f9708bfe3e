"""An instance's life as commands, so that specifications can say how far it has come."""

from typing import Any

from msgspec.structs import replace

from domain import instance_commands as c
from tests.examples import example


def _example(kind: type[Any], **changes: Any) -> Any:
    return replace(example(kind), **changes)


def requested(**changes: Any) -> c.RequestInstance:
    """At 2.40 euro an hour, unless told otherwise."""
    command = _example(c.RequestInstance, **{"price_eur_micros_per_hour": 2_400_000, **changes})
    assert isinstance(command, c.RequestInstance)
    return command


CREATED: tuple[object, ...] = (example(c.IntendServerCreate), example(c.RecordServerCreated))
BOOTED: tuple[object, ...] = (*CREATED, example(c.RecordServerStarted), example(c.RecordAddress))
READY: tuple[object, ...] = (*BOOTED, example(c.RegisterWorker), example(c.ObserveWorker))
GONE: tuple[object, ...] = (example(c.RequestTermination), example(c.RecordServerGone))
