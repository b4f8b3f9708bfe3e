"""The tree of causes and effects: each event once, beneath its cause, whatever an envelope claims."""

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from domain.ids import EventId, OrganizationId
from domain.message import Envelope, Recorded
from infra.replay import causes
from infra.replay.causes import Effect, rows_of, story_of
from infra.replay.history import Placed
from tests.given import NOON


def event(position: int, cause: str | None = None, *, at_s: float = 0.0, event_id: str = "") -> Placed:
    envelope = Envelope(
        event_id=EventId(event_id or f"e{position}"),
        aggregate="instance",
        id=f"i-{position % 2}",
        version=1,
        type="Happened",
        schema=1,
        organization=OrganizationId("acme"),
        actor="system:handlers",
        cause=EventId(cause) if cause else None,
        correlation="intent",
        at=NOON + timedelta(seconds=at_s),
        previous="",
        data=Raw(b"{}"),
    )
    return Recorded(position, "evt.acme.instance.i", b"", envelope)


def drawn(events: Sequence[Placed]) -> list[str]:
    return [before + node.event_id for before, node in rows_of(story_of(events, set()).roots)]


def test_effects_stand_beneath_their_causes() -> None:
    events = [event(1), event(2, "e1"), event(3, "e2"), event(4, "e1"), event(5)]
    assert drawn(events) == ["e1", "├─ e2", "│  └─ e3", "└─ e4", "e5"]


def test_what_was_asked_is_marked_and_times_count_from_the_beginning() -> None:
    story = story_of([event(1), event(2, "e1", at_s=0.3)], {"e2"})
    (root,) = story.roots
    (effect,) = root.effects
    assert (root.asked, effect.asked, effect.after_s, story.took_s) == (False, True, 0.3, 0.3)
    assert [(one.aggregate, one.id, one.events) for one in story.aggregates] == [
        ("instance", "i-1", 1),
        ("instance", "i-0", 1),
    ]


def test_a_cause_in_another_story_makes_a_root_that_names_it() -> None:
    (root,) = story_of([event(7, "elsewhere")], set()).roots
    assert root.cause == "elsewhere"


@given(
    st.lists(st.integers(0, 30), max_size=30).map(
        lambda causes: [event(n, f"e{cause}" if cause else None) for n, cause in enumerate(causes, start=1)]
    )
)
def test_every_event_stands_in_the_tree_once_and_after_its_cause(events: list[Placed]) -> None:
    """Also when envelopes name later events, or themselves, as their causes."""
    if not events:
        return
    rows = [node for _, node in rows_of(story_of(events, set()).roots)]
    assert sorted(node.position for node in rows) == [one.position for one in events]
    for node in rows:
        assert all(effect.position > node.position for effect in node.effects)


def test_an_event_that_is_stored_twice_makes_no_loop() -> None:
    events = [event(1, event_id="a"), event(2, "a", event_id="b"), event(3, "b", event_id="a")]
    assert len(drawn(events)) == 3


def test_a_long_chain_stays_shallow() -> None:
    chain = [event(1), *(event(n, f"e{n - 1}") for n in range(2, 1000))]
    (root,) = story_of(chain, set()).roots
    assert _depth(root) == causes.MAX_DEPTH + 1
    assert len(drawn(chain)) == len(chain)


def _depth(root: Effect) -> int:
    depth, level = 0, [root]
    while level:
        depth, level = depth + 1, [effect for node in level for effect in node.effects]
    return depth
