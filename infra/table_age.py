"""How old the gateway's table is: seconds since the log last proved that nothing was missing from it.

    ask the log where it ends ──> "at 42" ──> table at 42 or beyond ──> proven as of the moment of the question

A connection that looks alive proves nothing: it may be half open, and a consumer may beat on and deliver nothing. Only
an answer to a question does. The surprising rule: an answer counts from when the question was asked, so that whatever
happened before that moment is in the table for certain.
"""

from collections.abc import Callable


class TableAge:
    """One table's.

    Args:
        now_s: monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._current_s = now_s()
        self._question: tuple[int, float] | None = None

    @property
    def age_s(self) -> float:
        return max(0.0, self._now_s() - self._current_s)

    def began_at(self, age_s: float) -> None:
        """The table was replaced by a copy of this age."""
        self._current_s = self._now_s() - age_s
        self._question = None

    def answered(self, head: int, *, asked_s: float) -> None:
        """The log's end was `head` when it was asked; counts once the table has `reached` it.

        While the table has not reached an earlier answer, that one stays: a table that lags behind for ever is proven
        now and then all the same, as old as it is. Unless the log has become shorter: then it would stay for ever.
        """
        if self._question is None or head <= self._question[0]:
            self._question = (head, asked_s)

    def reached(self, position: int) -> None:
        """The table knows every event up to `position`."""
        if self._question is not None and position >= self._question[0]:
            self._current_s = max(self._current_s, self._question[1])
            self._question = None
