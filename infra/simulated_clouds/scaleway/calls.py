"""One call to the API, taken apart, and its reply; and how Scaleway cuts lists into pages.

Pure. The surprising rule: the SDK believes `X-Total-Count` and then asks for pages until one is empty, so a page
beyond the last is an empty list and no error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from infra.simulated_clouds.scaleway.errors import invalid_argument
from infra.simulated_clouds.scaleway.resources import Account

if TYPE_CHECKING:
    from infra.simulated_clouds.scaleway.cloud import SimulatedCloud

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
TOTAL_COUNT = "X-Total-Count"

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """`ids` are the path's, by their names there; `raw` is the body of what is not JSON."""

    operation: str
    account: Account
    zone: str
    ids: dict[str, str]
    query: dict[str, str]
    body: dict[str, Any]
    raw: bytes = b""

    @property
    def resource_id(self) -> str:
        return next(iter(self.ids.values()), "")

    @property
    def names(self) -> tuple[str, ...]:
        """What faults may be set for; an action goes by its kind too."""
        action = self.body.get("action")
        return (self.operation, f"{self.operation}:{action}") if action else (self.operation,)

    def wanted_tags(self) -> set[str]:
        return {tag for tag in self.query.get("tags", "").split(",") if tag}


@dataclass
class Reply:
    """`body` None is an answer without one; bytes are text."""

    status: int
    body: dict[str, Any] | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[["SimulatedCloud", Call], Reply]


def paged(call: Call, key: str, items: Sequence[Any], *, count_in_body: bool = False) -> Reply:
    """One page; the Instance API counts in a header, the Block API in the body.

    Raises:
        ApiError: a page or a page size that is no positive number, or too large.
    """
    size = _number(call, "page_size" if count_in_body else "per_page", DEFAULT_PAGE_SIZE, most=MAX_PAGE_SIZE)
    page = _number(call, "page", 1, most=1_000_000)
    shown = list(items[(page - 1) * size : page * size])
    if count_in_body:
        return Reply(200, {key: shown, "total_count": len(items)})
    return Reply(200, {key: shown}, {TOTAL_COUNT: str(len(items))})


def paged_map(call: Call, key: str, items: Sequence[tuple[str, Any]]) -> Reply:
    reply = paged(call, key, items)
    assert isinstance(reply.body, dict)  # noqa: S101 - paged answers so
    reply.body[key] = dict(reply.body[key])
    return reply


def _number(call: Call, name: str, default: int, *, most: int) -> int:
    text = call.query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise invalid_argument(name, "constraint", f"must be a number from 1 to {most}")
    return int(text)


def word(call: Call, name: str) -> str:
    """A text of the body; empty when it is absent or null."""
    value = call.body.get(name)
    return value if isinstance(value, str) else ""


def tags_in(body: dict[str, Any]) -> list[str]:
    """The body's tags.

    Raises:
        ApiError: they are no list of texts.
    """
    tags = body.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise invalid_argument("tags", "format", "must be a list of texts")
    return list(tags)
