"""The agent as this control plane has it: its archive, its version, and the versions before (agent/CHECKSUM).

    agent/*.py ──agent.build──> archive, SHA-256      agent/CHECKSUM: one line a version, oldest first
                                                      1.0.0 2026-11-21 ccd8e1f2...

The surprising rule: which older agents may report follows from that list, not from the code: by default the one before.
"""

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import agent
from agent.build import archive_bytes
from agent.version import AGENT_VERSION
from web.agent_release import AgentRelease

CHECKSUMS = Path(agent.__file__).with_name("CHECKSUM")


class Version(NamedTuple):
    """One line of agent/CHECKSUM; `sha256` is of the archive that its sources made."""

    version: str
    build_date: str
    sha256: str


def read_versions(path: Path = CHECKSUMS) -> list[Version]:
    """Oldest first.

    Raises:
        ValueError: a line is not `<version> <date> <sha256>`.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    try:
        return [Version(*line.split()) for line in lines]
    except TypeError as error:
        raise ValueError(f"{path} has a line that is not <version> <date> <sha256>") from error


def agent_release(versions_allowed: str = "") -> AgentRelease:
    """What this control plane serves and expects.

    Args:
        versions_allowed: separated by commas; empty: the version before today's.
    """
    archive = archive_bytes()
    named = frozenset(one.strip() for one in versions_allowed.split(",") if one.strip())
    return AgentRelease(
        version=AGENT_VERSION,
        sha256=sha256(archive).hexdigest(),
        archive=archive,
        versions_allowed=named or _version_before(),
    )


def _version_before() -> frozenset[str]:
    earlier = [known.version for known in read_versions() if known.version != AGENT_VERSION]
    return frozenset(earlier[-1:])
