"""A provider's own words, as they may be written down: one line, not too long, naming nobody, telling no token.

Providers name the caller in their refusals ("User: arn:aws:iam::1234:user/alice is not authorized"). What names a
person does not belong into the log, which is kept for ever; what says why does.
"""

import re

import msgspec

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError

MAX_WORDS = 500
"""Characters that are kept."""
_MASKED = (
    (re.compile(r"\b(arn:[\w-]+:(?:iam|sts)::\d*:[\w-]+)/\S+"), r"\1/***"),
    (re.compile(r"\b(hf|wb|wk)_[\w-]{8,}"), r"\1_***"),  # what a script on a machine may print, too
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "***"),
)


class Trouble(msgspec.Struct, frozen=True):
    """Why a call brought nothing: one of the port's kinds ("auth", "transient" ...), and what was said."""

    kind: str
    message: str


def trouble_of(fault: CloudRefusedError | OSError) -> Trouble:
    match fault:
        case CloudRefusedError():
            return Trouble(fault.kind, said(fault.message))
        case CloudUnavailableError():
            return Trouble(fault.kind, said(str(fault)))
        case TimeoutError() if not str(fault):
            return Trouble("transient", "no answer in time")
        case _:
            return Trouble("transient", said(str(fault) or type(fault).__name__))


def said(text: str) -> str:
    line = " ".join(text.split())
    for pattern, instead in _MASKED:
        line = pattern.sub(instead, line)
    return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 3]}..."
