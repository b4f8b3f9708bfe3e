"""A disk whose power can be cut: an ext4 image on a loop device, shut down with everything that was not synced.

    image file ──mkfs, mount──> folder ──cut()──> all later writes fail, the page cache is thrown away
                                   ^                   │ the server is killed
                                   └──restore_power()──┘ unmount, mount again: the journal is replayed

EXT4_IOC_SHUTDOWN with NOLOGFLUSH is what a file system sees of a power cut: what fsync returned for stays, the rest
does not. It is no torn sector, and no disk that lies. Needs root and a free loop device.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

IMAGE_BYTES = 256_000_000
"""Sparse: what is written is what it takes."""
COMMAND_TIMEOUT_S = 30.0
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = 2
"""Do not even write the journal: linux/ext4.h, EXT4_GOING_FLAGS_NOLOGFLUSH."""
_TOOLS = ("mkfs.ext4", "mount", "umount")


class Disk:
    """One image, mounted at a folder until the end of the block.

    Args:
        image: file to be made; goes when the block ends.
        folder: where it is mounted; made when missing.
    """

    def __init__(self, image: Path, folder: Path) -> None:
        self.image = image
        self.folder = folder

    def sync(self) -> None:
        """Writes to the image what is there now."""
        _run("sync", "--file-system", str(self.folder))

    def cut(self) -> None:
        """At once, for good until restore_power."""
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def restore_power(self) -> None:
        """Whoever had files open there must be gone."""
        _run("umount", str(self.folder))
        self._mount()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.image.touch()
        os.truncate(self.image, IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("umount", str(self.folder))
        if os.path.ismount(self.folder):  # somebody still has a file open there: let go when they do
            _run("umount", "--lazy", str(self.folder))
        self.image.unlink(missing_ok=True)

    def _mount(self) -> None:
        _run("mount", "-t", "ext4", "-o", "loop", str(self.image), str(self.folder))


def why_not(folder: Path) -> str:
    """Why no power can be cut here; "" when it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "only root may mount"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} not installed"
    try:
        with Disk(folder / "probe.img", folder / "probe") as disk:
            disk.cut()
    except (OSError, subprocess.SubprocessError) as error:
        return f"no loop device, or no ext4 that can be shut down: {error}"
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)
