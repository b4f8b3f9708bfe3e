"""What a gateway does without: packages that its libraries take along wherever they happen to be installed.

    nats-py ──> aiohttp: NATS over WebSockets        structlog ──> rich: coloured tracebacks

Both libraries run as well without them, and other commands need them, so installed they are; together they are 15 MB of
a gateway that shall take 60. The surprising rule: None in sys.modules is Python's own word for "not installed" (the
language reference, 5.3.1), and it counts only for who imports later, so this comes before the first word of a log.
"""

import sys

LEFT_OUT = ("aiohttp", "rich")


def leave_out(packages: tuple[str, ...] = LEFT_OUT) -> None:
    """From now on they cannot be imported in this process; what is imported already stays."""
    for package in packages:
        sys.modules.setdefault(package, None)  # type: ignore[arg-type] # None is not in its type, and does just this
