"""Endless loops that can be cancelled for certain.

Until Python 3.12, `asyncio.wait_for` swallows a cancellation that arrives together with its result, and both nats-py
and psycopg wait by it. A loop that goes on after that would never end; so it asks, once a round.
"""

import asyncio


def heed_cancellation() -> None:
    """Raises CancelledError when this task was cancelled and somebody below has swallowed that."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
