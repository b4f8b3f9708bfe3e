"""One finding of `inventiv doctor`."""

from typing import Literal

import msgspec


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, what was found, and what to do when it is not ok.

    Attributes:
        result: "warning" for what is optional or heals by itself; "failed" needs the cure.
    """

    name: str
    result: Literal["ok", "warning", "failed"]
    found: str
    cure: str = ""


def verdict(name: str, *, fine: bool, found: str, cure: str, optional: bool = False) -> Check:
    bad: Literal["warning", "failed"] = "warning" if optional else "failed"
    return Check(name=name, result="ok" if fine else bad, found=found, cure="" if fine else cure)
