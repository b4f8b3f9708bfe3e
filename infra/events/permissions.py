"""Who may do what on NATS: one table, identity by identity. Servers of our own and real clusters are given the same.

    WEB, GATEWAY, HANDLERS, PROJECTIONS   what a role's own code does, subject by subject
    TOOLS                                 reading, for `inventiv events ...` beside a running platform
    MIGRATION                             creates and updates streams, and cannot read or write one message
    OPERATOR                              everything: restores, deletions; its key lies in a safe

Everything that is not allowed is refused. The surprising rule: STREAM.UPDATE, DELETE, PURGE and RESTORE destroy events
whatever deny_delete and deny_purge say, so no role may say them of what is kept for ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from domain.message import RESERVATION_SUBJECTS
from gateway.statements import COUNTS_SUBJECT
from handlers.subscriptions import REACTIONS
from infra.events.streams import EVENTS, PARKED, SEALS, SNAPSHOTS, STREAMS, TELEMETRY, TIMERS, USAGE

WEB = "web"
GATEWAY = "gateway"
HANDLERS = "handlers"
PROJECTIONS = "projections"
TOOLS = "tools"
MIGRATION = "migration"
OPERATOR = "operator"

_API = "$JS.API"


@dataclass(frozen=True)
class Permissions:
    """Subjects, with wildcards.

    Attributes:
        publish: allowed.
        subscribe: allowed.
        publish_denied: exceptions from `publish`.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    publish_denied: tuple[str, ...] = ()


def inbox_of(identity: str) -> str:
    """Prefix of the inboxes that its connections listen on: nobody hears another's replies."""
    return f"_INBOX_{identity}"


def permissions_of(identity: str) -> Permissions:
    """What the identity may do.

    Raises:
        KeyError: there is none of that name.
    """
    return PERMISSIONS[identity]


def configuration(permissions: Permissions) -> str:
    """As the nats-server's configuration spells it."""
    denied = f", deny: {_list(permissions.publish_denied)}" if permissions.publish_denied else ""
    return (
        f"{{\n  publish: {{ allow: {_list(permissions.publish)}{denied} }}\n"
        f"  subscribe: {{ allow: {_list(permissions.subscribe)} }}\n}}"
    )


def durables() -> Mapping[str, Sequence[str]]:
    """Stream -> names of the consumers that keep the handlers' positions (infra/reacting.py)."""
    return {
        EVENTS: [reaction.name for reaction in REACTIONS],
        TIMERS: ["reaction_timers"],
        PARKED: ["reaction_retries"],
    }


def _list(subjects: Iterable[str]) -> str:
    return "[\n" + "".join(f'    "{subject}"\n' for subject in subjects) + "  ]"


def _look(*streams: str) -> list[str]:
    """Settings and head, which every service checks when it starts."""
    return [f"{_API}.STREAM.INFO.{stream}" for stream in streams]


def _read(stream: str) -> list[str]:
    """Through the leader, and from any copy."""
    return [
        f"{_API}.STREAM.MSG.GET.{stream}",
        f"{_API}.DIRECT.GET.{stream}",
        f"{_API}.DIRECT.GET.{stream}.>",
    ]


def _follow(stream: str) -> list[str]:
    """By an ephemeral consumer, whose name is the server's choice; see also _hands_off."""
    return [
        f"{_API}.CONSUMER.CREATE.{stream}",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.*",
        f"{_API}.CONSUMER.DELETE.{stream}.*",
    ]


def _hands_off() -> tuple[str, ...]:
    """Taking messages from the handlers' consumers, or deleting them, would lose work."""
    return tuple(
        f"{_API}.CONSUMER.{verb}.{stream}.{name}"
        for stream, names in durables().items()
        for name in names
        for verb in ("MSG.NEXT", "DELETE")
    )


def _work(stream: str, durable: str) -> list[str]:
    """Create the consumer, pull, acknowledge (in both forms that servers give acknowledgements)."""
    return [
        f"{_API}.CONSUMER.DURABLE.CREATE.{stream}.{durable}",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.{durable}",
        f"$JS.ACK.{stream}.{durable}.>",
        f"$JS.ACK.*.*.{stream}.{durable}.>",
    ]


def _identity(
    name: str, *publish: Iterable[str], hears: Sequence[str] = (), denied: tuple[str, ...] = ()
) -> Permissions:
    subjects = tuple(subject for group in publish for subject in group)
    return Permissions(subjects, (f"{inbox_of(name)}.>", *hears), denied)


_DISPATCH = ["evt.>", RESERVATION_SUBJECTS, *_read(EVENTS), "snap.>", *_read(SNAPSHOTS)]

PERMISSIONS: Mapping[str, Permissions] = {
    WEB: _identity(
        WEB,
        _look(*STREAMS),
        _DISPATCH,
        _follow(EVENTS),
        ["tel.>", "park.>"],
        _read(PARKED),
        _read(SEALS),
        denied=_hands_off(),
    ),
    GATEWAY: _identity(
        GATEWAY,
        _look(*STREAMS),
        ["use.>", COUNTS_SUBJECT],
        _follow(EVENTS),
        _follow(USAGE),
        hears=["tel.>", COUNTS_SUBJECT],
        denied=_hands_off(),
    ),
    HANDLERS: _identity(
        HANDLERS,
        _look(*STREAMS),
        _DISPATCH,
        ["timer.>", f"{_API}.STREAM.PURGE.{TIMERS}"],
        ["park.>", *_read(PARKED), f"{_API}.STREAM.PURGE.{PARKED}"],
        ["seal.>", *_read(SEALS)],
        _read(TELEMETRY),
        [subject for stream, names in durables().items() for name in names for subject in _work(stream, name)],
        hears=["tel.>"],
    ),
    PROJECTIONS: _identity(
        PROJECTIONS,
        _look(*STREAMS),
        *([*_read(stream), *_follow(stream)] for stream in (EVENTS, USAGE, SEALS)),  # SEALS: to look at its copies
        denied=_hands_off(),
    ),
    TOOLS: _identity(
        TOOLS,
        _look(*STREAMS),
        [f"{_API}.STREAM.NAMES"],
        *(
            [*_read(stream), *_follow(stream)]
            for stream in (EVENTS, USAGE, SEALS, PARKED, SNAPSHOTS, TELEMETRY, TIMERS)
        ),
        denied=_hands_off(),
    ),
    MIGRATION: _identity(
        MIGRATION,
        _look("*"),
        [f"{_API}.STREAM.NAMES", f"{_API}.STREAM.CREATE.*", f"{_API}.STREAM.UPDATE.*"],
    ),
    OPERATOR: Permissions((">",), (">",)),
}
