"""Which agent this is. A change in this room moves AGENT_VERSION; the checksum tells builds of one version apart."""

AGENT_VERSION = "1.1.0"
AGENT_BUILD_DATE = "2026-11-21"
