"""Deeds on an enrolled host as text for its shell, and what the shell answers: see host.sh.

deed + settings (shell-quoted) ──> sh on the host ──> "inventiv-key ...", "inventiv-record ..." ──> Holding
"""

import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from importlib.resources import files
from shlex import quote
from typing import Literal

import msgspec

from infra.providers.bootstrap.script import removal_script

Deed = Literal["read", "claim", "start", "stop", "reinstall", "delete"]
KEY_LETTERS = 16
_SETTINGS = re.compile(r"^#@settings.*?^#@end$", re.DOTALL | re.MULTILINE)


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What stands on a host while it is held; the environment has its worker's one-time token."""

    name: str
    tags: dict[str, str]
    zone: str
    instance_type: str
    environment: dict[str, str]
    created_at: datetime


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a host; `is_on`: its worker is wanted to run."""

    key: str
    record: HostRecord
    is_on: bool


class NoAnswerError(Exception):
    """The host's shell said something else than what it should; the message holds its words."""


_records = msgspec.json.Decoder(HostRecord)


def key_of(name: str) -> str:
    """What a holding under this name is called on its host."""
    return sha256(name.encode()).hexdigest()[:KEY_LETTERS]


def deed_script(deed: Deed, key: str = "", *, record: HostRecord | None = None, bootstrap: str = "") -> str:
    """The text for `sh -s`; what does not concern the holding `key` is only told."""
    settings: Mapping[str, str] = {
        "deed": deed,
        "key": key,
        "record": msgspec.json.encode(record).decode() if record else "",
        "bootstrap": bootstrap,
        "removal": removal_script() if deed in {"delete", "reinstall"} else "",
    }
    head = "\n".join(f"{name}={quote(value)}" for name, value in settings.items())
    template = files("infra.providers").joinpath("host.sh").read_text()
    script, count = _SETTINGS.subn(lambda _: head, template)
    assert count == 1, "host.sh has one place for its settings"  # noqa: S101 - the impossible
    return script


def holding_of(output: str) -> Holding | None:
    """What the shell told at its end; None: the host is free.

    Raises:
        NoAnswerError: it did not come to its end, or the record on the host cannot be read.
    """
    lines = output.splitlines()
    if "inventiv-told" not in lines:
        raise NoAnswerError(f"its shell did not finish: {output[-500:]!r}")
    told = dict(line.split(" ", 1) for line in lines if line.startswith(("inventiv-key ", "inventiv-record ")))
    if not told:
        return None
    try:
        record = _records.decode(told["inventiv-record"])
    except (KeyError, msgspec.MsgspecError) as error:
        raise NoAnswerError(f"the record in /var/lib/inventiv-host/held cannot be read: {error}") from error
    return Holding(key=told.get("inventiv-key", ""), record=record, is_on="inventiv-on" in lines)
