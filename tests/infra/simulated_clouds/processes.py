"""Which processes a simulated cloud has running in its folder."""

from pathlib import Path

import psutil


def agents_below(folder: Path) -> list[psutil.Process]:
    """Everything that runs from an archive in this folder, engines included."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if any(word.startswith(str(folder)) for word in command) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
