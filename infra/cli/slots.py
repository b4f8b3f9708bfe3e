"""Weekly windows as people write them ("mon-fri 20:00-06:00", in UTC), and as the API has them: one a day.

A window over midnight becomes two; one that begins and ends at the same minute is a slip, not a whole day.
"""

import re
from typing import TypedDict

from infra.cli.output import CommandError, ExitCode

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ALWAYS = "always"
DAY_MINUTES = 1_440
_SLOT = re.compile(r"(?P<from>[a-z]{3})(?:-(?P<to>[a-z]{3}))? (?P<start>\d{2}:\d{2})-(?P<end>\d{2}:\d{2})")


class Window(TypedDict):
    """The API's slot; `day` 0 is Monday."""

    day: int
    start_minute: int
    end_minute: int


def slots_said(said: list[str] | None) -> list[Window]:
    """The API's windows: one a day, and two for a window over midnight."""
    return [window for text in said or [] for window in _windows(text)]


def _windows(text: str) -> list[Window]:
    found = _SLOT.fullmatch(text.strip().lower())
    days = {found["from"], found["to"] or found["from"]} if found else set()
    start, end = (_minutes(found["start"]), _minutes(found["end"])) if found else (0, 0)
    if found is None or not days <= set(DAYS) or start is None or end is None or start in {end, DAY_MINUTES}:
        cure = 'For example: --slot "mon-fri 20:00-06:00" --slot "sat 00:00-24:00"'
        raise CommandError(ExitCode.USAGE, "invalid_slot", f"{text!r} is no slot.", cure)
    first = DAYS.index(found["from"])
    count = (DAYS.index(found["to"] or found["from"]) - first) % len(DAYS) + 1
    windows: list[Window] = []
    for day in ((first + i) % len(DAYS) for i in range(count)):
        if start < end:
            windows.append({"day": day, "start_minute": start, "end_minute": end})
            continue
        windows.append({"day": day, "start_minute": start, "end_minute": DAY_MINUTES})
        if end:
            windows.append({"day": (day + 1) % len(DAYS), "start_minute": 0, "end_minute": end})
    return windows


def _minutes(clock: str) -> int | None:
    hours, minutes = (int(part) for part in clock.split(":"))
    total = hours * 60 + minutes
    return total if minutes < 60 and total <= DAY_MINUTES else None


def spoken_slots(slots: list[Window]) -> str:
    clock = [f"{DAYS[s['day']]} {_clock(s['start_minute'])}-{_clock(s['end_minute'])}" for s in slots]
    return ", ".join(clock) or ALWAYS


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
