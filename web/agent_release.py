"""The agent that this control plane serves and expects, and the law of who else may report.

    today's version                      ──> exactly today's bytes, or AGENT_CHECKSUM_FAILED
    a version that is still allowed      ──> any build: a rented machine keeps the agent that it was set up with
    the build that began this instance   ──> goes on: an upgrade of the control plane ends no running worker
    anything else                        ──> AGENT_CHECKSUM_FAILED

The surprising rule: an agent's own word for its checksum proves nothing against a thief, who can say any. It finds the
honest mistakes: a download that was cut, a build from a changed source, a version that was forgotten to be raised.
"""

from dataclasses import dataclass, field

from agent.protocol import AgentInfo
from domain.instance_state import Instance


@dataclass(frozen=True)
class AgentRelease:
    """Of one control plane.

    Attributes:
        sha256: of `archive`, hex; empty: any agent may report.
        archive: what AGENT_PATH serves.
        versions_allowed: besides `version`.
    """

    version: str = ""
    sha256: str = ""
    archive: bytes = field(default=b"", repr=False)
    versions_allowed: frozenset[str] = frozenset()


ANY_AGENT = AgentRelease()


def demanded_build(release: AgentRelease, instance: Instance, info: AgentInfo) -> str:
    """The SHA-256 that the agent of `instance` must report; empty where what it reports will do."""
    if info.version != release.version and info.version in release.versions_allowed:
        return ""
    began_with_it = instance.token_confirmed and info.checksum == instance.agent_sha256
    return "" if began_with_it else release.sha256
