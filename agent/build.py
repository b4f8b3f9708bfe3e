"""Packs the agent into one file, `python -m agent.build PATH`, and knows the checksum of the agent that runs.

    agent/*.py ──sorted, fixed times, stored──> archive bytes ──> agent.pyz      python agent.pyz
                                                     └─SHA-256──> checksum, in /info and in each heartbeat

The same sources give the same bytes everywhere; so the archive is stored, not deflated: zlib's output differs from one
build of it to the next. An agent run from its sources reports the checksum of the archive that they would make.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

_ENTRY = """\
import sys

from agent.__main__ import main

sys.exit(main())
"""
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o644


def build_zipapp(target: Path) -> str:
    """Writes the agent as a zip application to `target`; returns its SHA-256 in hex."""
    content = archive_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def own_checksum() -> str:
    """SHA-256 (hex) of the archive that runs, or that the running sources would make."""
    return hashlib.sha256(archive_bytes()).hexdigest()


def own_location() -> Path:
    """The archive, or the folder of the package `agent`, that this process was loaded from: what stands on sys.path."""
    return Path(__file__).absolute().parent.parent


def archive_bytes() -> bytes:
    """The archive that runs, or that the running sources would make."""
    location = own_location()
    return location.read_bytes() if location.is_file() else archive_of(Path(__file__).parent)


def archive_of(room: Path) -> bytes:
    """The archive that the sources in the folder `room` make."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _ENTRY.encode())
        for source in sorted(room.glob("*.py")):
            _add(archive, f"agent/{source.name}", source.read_bytes())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _FIXED_TIME)
    entry.create_system = 3  # Unix, wherever it is built
    entry.external_attr = _FILE_MODE << 16
    archive.writestr(entry, content)


if __name__ == "__main__":
    print(build_zipapp(Path(sys.argv[1])))
