"""What an exchange tells of itself, passed on to who counts (metrics.py) and to who writes it down (access_log.py)."""

from dataclasses import dataclass

from gateway.access_log import AccessLog
from gateway.account import Account
from gateway.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Watching:
    """services.Watch. Attributes: access_log: None when nobody wants one."""

    metrics: Metrics
    access_log: AccessLog | None = None

    @property
    def dropped_lines(self) -> int:
        return self.access_log.dropped_lines if self.access_log is not None else 0

    def finished(self, account: Account) -> None:
        self.metrics.finished(account.model_code, account.asked.route.path, account.counts, account.ending)
        if self.access_log is not None:
            self.access_log.finished(account.record(), account.asked.trace.trace_id)

    def refused(
        self, code: str, status: int, *, request_id: str = "", trace_id: str = "", booked: bool = False
    ) -> None:
        """`booked`: the request is told as finished too, and so has its line in the log."""
        self.metrics.refused(code, status)
        if self.access_log is not None and not booked:
            self.access_log.refused(code, status, request_id=request_id, trace_id=trace_id)

    def retried(self) -> None:
        self.metrics.retried()

    async def run(self) -> None:
        """Writes the access log until cancelled; without one there is nothing to do."""
        if self.access_log is not None:
            await self.access_log.run()

    async def flush(self) -> None:
        """What is left of the access log; a stopping gateway's last word."""
        if self.access_log is not None:
            await self.access_log.flush()
