"""What a check of the stores found: each finding names the check, the place, the fact and the cure.

Damage means that what was acknowledged is lost or altered; a warning, that somebody should look. The surprising rule:
findings are kept up to a bound and counted beyond it, because one lost message can be felt by every one after it.
"""

from typing import Literal

import msgspec

MAX_FINDINGS = 1000

Severity = Literal["damage", "warning"]

CURES = {
    "position": "Restore the stream from a replica or a backup; `inventiv events restore` rebuilds EVENTS.",
    "envelope": "Restore the stream; no service writes anything but envelopes.",
    "subject": "Somebody wrote past the services: look who may publish, then restore the stream.",
    "message_id": "Somebody wrote past the services: look who may publish.",
    "version": "Events are missing or doubled: restore the stream from a replica or a backup.",
    "previous": "An event was altered after it was written: restore the stream; see `inventiv audit verify`.",
    "event_type": "Use the release that wrote it; this one cannot fold its aggregate.",
    "event_data": "The stored fields do not fit their type: restore the stream, or add the missing upcast.",
    "audit_log": "`inventiv events rebuild audit_log` folds it again; if the log is what is wrong, restore that first.",
    "audit_heads": "`inventiv events rebuild audit_log` folds it again.",
    "checkpoint": "The log is shorter than what was read from it: `inventiv events restore`.",
    "lag": "Start the projections role, or look into its log.",
    "snapshot": "Purge the stream SNAPSHOTS; it is a cache, and filled again.",
    "stream": "Restore the stream from a replica or a backup; stop writing to it until then.",
    "server": "Correct the server's configuration; see infra/deploy.",
    "replica": "Stop that node, delete its copy of the stream, and start it: it copies from the others.",
}
"""Check -> what to do."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    Attributes:
        check: key of CURES.
        position: in the stream, where there is one.
        subject: stream, subject or read model.
        found: the fact, in words.
    """

    severity: Severity
    check: str
    position: int | None = None
    subject: str = ""
    found: str
    cure: str


class Findings:
    """Collects findings, at most MAX_FINDINGS of them."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.left_out = 0
        self.damaged = False

    def damage(self, check: str, found: str, *, position: int | None = None, subject: str = "", cure: str = "") -> None:
        """Something that was acknowledged is lost or altered; `cure` stands for the usual one of the check."""
        self.damaged = True
        self._add("damage", check, found, position, subject, cure)

    def warn(self, check: str, found: str, *, position: int | None = None, subject: str = "", cure: str = "") -> None:
        self._add("warning", check, found, position, subject, cure)

    def _add(self, severity: Severity, check: str, found: str, position: int | None, subject: str, cure: str) -> None:
        if len(self.kept) >= MAX_FINDINGS:
            self.left_out += 1
            return
        cure = cure or CURES[check]
        finding = Finding(severity=severity, check=check, position=position, subject=subject, found=found, cure=cure)
        self.kept.append(finding)
