"""How many requests gateways that were taken over have still to finish: each says so in a note in its own folder.

<data>/gateway/<n>/finishing      one number; absent when there is nothing to finish
"""

from pathlib import Path

FINISHING = "finishing"


def note_finishing(folder: Path, open_requests: int) -> None:
    """A gateway that was taken over says how many requests it has still to finish; nothing at 0."""
    note = folder / FINISHING
    if open_requests:
        note.write_text(f"{open_requests}\n")
    else:
        note.unlink(missing_ok=True)


def finishing_requests(data_dir: Path) -> int:
    """What all gateways that were taken over have still to finish."""
    return sum(_number_in(note) for note in data_dir.glob(f"gateway/*/{FINISHING}"))


def _number_in(note: Path) -> int:
    """0 while it is being written, and once it is gone."""
    try:
        return int(note.read_text())
    except (OSError, ValueError):
        return 0
