"""Which build this is: the installed distribution's version, and when it was built."""

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution

DISTRIBUTION = "inventiv-agents"


def build() -> tuple[str, str]:
    """(version, build time as ISO 8601 UTC); the time is that of the built metadata, "" when run without a build."""
    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return "0.0.0", ""
    files = [file for file in found.files or () if file.name == "METADATA"]
    if not files:
        return found.version, ""
    built = found.locate_file(files[0]).stat().st_mtime  # type: ignore[attr-defined]  # a real path, typed as a mere one
    return found.version, datetime.fromtimestamp(built, UTC).isoformat(timespec="seconds")
