"""What the prepared real engine consists of: one folder, its names, its pins.

    <folder>/venv                 Python with torch and vLLM built for a CPU
    <folder>/vllm-distribution    an empty distribution called `vllm`: the CPU build installs the module without one
    <folder>/tiny-llama           a model of two layers with random weights: its text is noise, its protocol is real
    <folder>/prepared.json        the stamp, written last: a folder without it, or with another one, is not prepared

The surprising rule: these packages never meet the project's own environment. They weigh gigabytes and pin half of the
ecosystem, and a GPU host brings its own vLLM.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

DEFAULT_FOLDER = Path(".engine")

TORCH_VERSION = "2.13.0"
VLLM_VERSION = "0.32.0"
DISTRIBUTION_VERSION = f"{VLLM_VERSION}+cpu"
"""vLLM infers the device from its own version: without `cpu` in it, it looks for a GPU and fails."""

BROKEN_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""Pulled in as CUDA builds, they break vLLM's import on a CPU; serving text needs none of them."""


class Stamp(msgspec.Struct, frozen=True):
    """What was prepared; a change of any field prepares again."""

    torch: str = TORCH_VERSION
    vllm: str = DISTRIBUTION_VERSION
    model: int = 1
    """Raised whenever tiny_model.py makes another model."""


@dataclass(frozen=True)
class Layout:
    """The paths inside an engine folder."""

    folder: Path

    @property
    def venv(self) -> Path:
        return self.folder / "venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def vllm_command(self) -> Path:
        return self.venv / "bin" / "vllm"

    @property
    def distribution(self) -> Path:
        return self.folder / "vllm-distribution"

    @property
    def model(self) -> Path:
        return self.folder / "tiny-llama"

    @property
    def stamp(self) -> Path:
        return self.folder / "prepared.json"


def is_prepared(layout: Layout) -> bool:
    """True when the stamp is of this recipe and what it promises is still there."""
    try:
        stamp = msgspec.json.decode(layout.stamp.read_bytes(), type=Stamp)
    except (OSError, msgspec.MsgspecError):
        return False
    return stamp == Stamp() and layout.vllm_command.exists() and (layout.model / "config.json").exists()
