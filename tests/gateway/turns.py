"""Turns of a loop, for specifications of what is written within one."""

from collections.abc import Callable


def at_once(flush: Callable[[], None]) -> None:
    """Gathers nothing: what outbox.at_turns_end does where there is no loop."""
    flush()
