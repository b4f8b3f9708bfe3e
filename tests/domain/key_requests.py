"""A small world in which what a scope allows can be counted out: every request that could be made, asked one by one.

Each list holds what the scopes of the strategies name, and something that no scope names.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from typing import NamedTuple

from hypothesis import strategies as st

from domain.key_scope import LIMITS, Endpoint, KeyScope, compiled, refusal_of
from domain.permissions import PERMISSIONS, Action, is_allowed
from domain.roles import RANKS
from tests.given import NOON

SOME_ENDPOINTS: tuple[Endpoint, ...] = ("models", "chat", "completions", "messages", "rest")
"""No endpoint is treated otherwise than another, so a few stand for all: every request of every one is counted out."""
MODELS = ("mock-echo-model", "acme/chat", "acme/code")
RANGES = ("10.0.0.0/9", "10.128.0.0/9", "10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "0.0.0.0/0")
ADDRESSES = (
    "10.1.0.5",
    "::ffff:10.1.0.5",
    "10.2.0.1",
    "10.200.0.1",
    "192.0.2.7",
    "192.0.2.8",
    "2001:db8::1",
    "2001:db9::",
)
ENDS = (NOON + timedelta(hours=1), NOON + timedelta(days=1))
MOMENTS = (NOON, NOON + timedelta(hours=2), NOON + timedelta(days=2))
LIMIT_VALUES = (1, 60)


class KeyRequest(NamedTuple):
    """A call of the gateway, or (with an action) of the REST API; `used` of each limit, itself included."""

    endpoint: Endpoint
    model: str | None
    address: str
    seconds_from_noon: float

    def is_allowed(self, scope: KeyScope) -> bool:
        now = NOON + timedelta(seconds=self.seconds_from_noon)
        refusal = refusal_of(compiled(scope), endpoint=self.endpoint, model=self.model, address=self.address, now=now)
        return refusal is None


def every_request() -> Iterator[KeyRequest]:
    moments = [(moment - NOON).total_seconds() for moment in MOMENTS]
    for request in product(SOME_ENDPOINTS, (None, *MODELS, "another-model"), ADDRESSES, moments):
        yield KeyRequest(*request)


REQUESTS = tuple(every_request())
USES = (1, 2, 60, 61)
"""Of a minute's requests or tokens, of requests at once, of micro-euros."""


def allowed(scope: KeyScope) -> frozenset[object]:
    """All that may be done with a key of this scope: requests, actions of its role, and amounts of each limit."""
    actions: list[Action] = [action for action in PERMISSIONS if is_allowed(scope.role, action)]
    amounts = [(name, n) for name in LIMITS for n in USES if (limit := getattr(scope, name)) is None or n <= limit]
    return frozenset([*(r for r in REQUESTS if r.is_allowed(scope)), *actions, *amounts])


def subsets(of: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(of), unique=True, max_size=3).map(tuple)


SCOPES: st.SearchStrategy[KeyScope] = st.builds(
    KeyScope,
    role=st.sampled_from(RANKS),
    models=subsets(MODELS),
    endpoints=subsets(SOME_ENDPOINTS),
    ip_ranges=subsets(RANGES),
    expires_at=st.sampled_from((None, *ENDS)),
    **{name: st.sampled_from((None, *LIMIT_VALUES)) for name in LIMITS},
)
FIELDS = KeyScope.__struct_fields__


@st.composite
def like(draw: st.DrawFn, scope: KeyScope) -> KeyScope:
    """A scope that differs from another in few fields, for two of pure chance are seldom within one another."""
    other = draw(SCOPES)
    changed = draw(st.sets(st.sampled_from(FIELDS), min_size=1, max_size=2))
    return KeyScope(**{name: getattr(other if name in changed else scope, name) for name in FIELDS})
