"""`just agent-version get | bump [VERSION] | check`: an agent that changed has a new version, or CI fails.

    agent/version.py   what the agent says of itself              agent/CHECKSUM   what each version's archive was
    check: today's sources make the archive of the newest line, and version.py names that line's version

It stands outside the agent's room, so that it does not travel in the archive whose checksum it keeps. While a version
is in the making, take its line out of agent/CHECKSUM and bump to the same number again.
"""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path

from agent.build import archive_of
from infra.agent_release import CHECKSUMS, Version, read_versions

USAGE = "usage: python -m infra.agent_version get | bump [VERSION] | check"
_NUMBERS = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
_ASSIGNED = re.compile(r'^(AGENT_VERSION|AGENT_BUILD_DATE) = "([^"\n]*)"$', re.MULTILINE)


class VersionError(Exception):
    """A sentence for whoever changed the agent."""


def stated(room: Path) -> tuple[str, str]:
    """(version, build date) as version.py has them."""
    found = dict(_ASSIGNED.findall((room / "version.py").read_text(encoding="utf-8")))
    return found["AGENT_VERSION"], found["AGENT_BUILD_DATE"]


def checksum(room: Path) -> str:
    return sha256(archive_of(room)).hexdigest()


def check(room: Path) -> Version:
    """The version that the sources are.

    Raises:
        VersionError: they are not those of the newest version.
    """
    newest = read_versions(room / CHECKSUMS.name)[-1]
    version, build_date = stated(room)
    if (newest.version, newest.build_date) != (version, build_date):
        raise VersionError(f"agent/version.py says {version} of {build_date}, agent/CHECKSUM {newest.version}")
    if newest.sha256 != checksum(room):
        raise VersionError(f"the agent changed since {version}; run `just agent-version bump`")
    return newest


def bump(room: Path, wanted: str, *, today: date) -> Version:
    """Gives the sources a new version, `wanted` or else the next smallest, and writes its line.

    Raises:
        VersionError: it is not higher than the newest one.
    """
    known = read_versions(room / CHECKSUMS.name)
    newest = _numbers(known[-1].version)
    version = wanted or f"{newest[0]}.{newest[1]}.{newest[2] + 1}"
    if _numbers(version) <= newest:
        raise VersionError(f"{version} is not higher than {known[-1].version}")
    values = {"AGENT_VERSION": version, "AGENT_BUILD_DATE": today.isoformat()}
    text = (room / "version.py").read_text(encoding="utf-8")
    text = _ASSIGNED.sub(lambda found: f'{found[1]} = "{values[found[1]]}"', text)
    (room / "version.py").write_text(text, encoding="utf-8")
    made = Version(version, today.isoformat(), checksum(room))
    lines = "".join(f"{' '.join(line)}\n" for line in (*known, made))
    (room / CHECKSUMS.name).write_text(lines, encoding="utf-8")
    return made


def _numbers(version: str) -> tuple[int, int, int]:
    found = _NUMBERS.fullmatch(version)
    if found is None:
        raise VersionError(f"{version!r} is not three numbers with points between")
    return int(found[1]), int(found[2]), int(found[3])


def main(arguments: Sequence[str], room: Path = CHECKSUMS.parent) -> int:
    """Returns the exit status: 0, 1 when the version is not right, 2 for other words."""
    try:
        match list(arguments):
            case ["get"]:
                print(" ".join(stated(room)), checksum(room))
            case ["check"]:
                print(f"agent {check(room).version}")
            case ["bump", *rest] if len(rest) <= 1:
                print(" ".join(bump(room, "".join(rest), today=datetime.now(UTC).date())))
            case _:
                print(USAGE, file=sys.stderr)
                return 2
    except VersionError as error:
        print(f"agent-version: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
