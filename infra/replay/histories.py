"""The port `Histories` of the REST API: an aggregate's stored events folded to what they made of it.

stored envelopes ──codec──> events of today ──fold (history.py)──> state, or the fields that each event changed
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from domain.message import Envelope, Recorded
from infra.events.codec import Codec, UnknownEventError
from infra.replay.history import (
    Change,
    MissingVersionError,
    UnknownAggregateError,
    Until,
    as_json,
    changes_of,
    decider_of,
    fold_until,
)
from web.services import FieldChange, FoldedState, UnreadableHistoryError

_UNREADABLE = (UnknownEventError, UnknownAggregateError, MissingVersionError, msgspec.ValidationError)


class Histories:
    """Implements web.services.Histories."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def event(self, envelope: Envelope) -> Any:
        """See the port."""
        try:
            return self._codec.decode_event(envelope)
        except _UNREADABLE as error:
            raise UnreadableHistoryError(str(error)) from error

    def state(self, aggregate: str, events: Iterable[Recorded], until: Until) -> FoldedState | None:
        """See the port."""
        try:
            moment = fold_until(decider_of(aggregate), self._codec.decode_event, events, until)
        except _UNREADABLE as error:
            raise UnreadableHistoryError(str(error)) from error
        if moment.last is None:
            return None
        return FoldedState(version=moment.version, position=moment.last.position, fields=as_json(moment.state))

    def changes(
        self, aggregate: str, events: Sequence[Recorded], wanted: Collection[int]
    ) -> Mapping[int, Sequence[FieldChange]]:
        """See the port."""
        try:
            found = changes_of(decider_of(aggregate), self._codec.decode_event, events, wanted)
            return {
                position: [_shown(change) for change in changes if change.before != change.after]  # absent is null here
                for position, changes in found
            }
        except _UNREADABLE as error:
            raise UnreadableHistoryError(str(error)) from error


def _shown(change: Change) -> FieldChange:
    return FieldChange(field=change.field, before=change.before, after=change.after)
