"""The one script that makes a host a worker, with what one host is to be told written into it.

    worker.sh + settings (typed, shell-quoted) + environment (KEY=VALUE lines) ──> text for `sh`, by SSH or cloud-init

Nothing is spliced into commands: settings are quoted assignments at the script's head, and the environment is a quoted
text that the script writes to a file and never evaluates. So no value, whoever chose it, can become a command.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from shlex import quote

import msgspec

from handlers.cloud_ports import CloudRefusedError

DEFAULT_IMAGE = "vllm/vllm-openai:v0.13.0"
"""SPEC 3.6; WORKER_VLLM_IMAGE in the environment has the last word."""
MAX_VALUE_LENGTH = 16_384
PHASES = (
    "start",
    "mount_data_volume",
    "docker_install",
    "docker_start",
    "nvidia_toolkit",
    "agent_download",
    "docker_pull",
    "vllm_start",
    "agent_start",
    "done",
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"https?://[\x21-\x7e]+")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
_SETTINGS = re.compile(r"^#@settings.*?^#@end$", re.DOTALL | re.MULTILINE)
_PHASE_LINE = re.compile(r"^inventiv-phase ([a-z_]+) (ok|failed)$", re.MULTILINE)


class UnfitError(CloudRefusedError):
    """What a machine would have to be told cannot be written down: for whoever asked a provider, a refusal."""

    def __init__(self, message: str) -> None:
        super().__init__("", message)


class PhaseEnd(msgspec.Struct, frozen=True):
    """How one phase of the script ended."""

    phase: str
    ok: bool


def bootstrap_script(
    environment: Mapping[str, str],
    *,
    agent_url: str,
    agent_sha256: str,
    vllm_image: str = DEFAULT_IMAGE,
    data_volume_tries: int = 0,
    powers_off: bool = False,
) -> str:
    """The script for one host; it may be run again at any time.

    Args:
        environment: SPEC 3.1; empty where cloud-init has written the environment file already.
        agent_url: where the agent's archive is fetched.
        agent_sha256: hex; an archive with another one is refused.
        vllm_image: holds the engine and what the agent needs.
        data_volume_tries: looks for an empty disk to be formatted and used, 3 s apart; 0 touches no disk.
        powers_off: an agent cut off from its control plane may switch the machine off.

    Raises:
        UnfitError: a value cannot be what it should be; the message names it.
    """
    _require(_URL.fullmatch(agent_url), "agent_url")
    _require(_SHA256.fullmatch(agent_sha256), "agent_sha256")
    _require(_IMAGE.fullmatch(vllm_image), "vllm_image")
    settings = {
        "environment": "\n".join(environment_lines(environment)),
        "agent_url": agent_url,
        "agent_sha256": agent_sha256,
        "vllm_image": vllm_image,
        "data_volume_tries": str(data_volume_tries),
        "powers_off": "true" if powers_off else "false",
    }
    head = "\n".join(f"{name}={quote(value)}" for name, value in settings.items())
    template = files(__package__).joinpath("worker.sh").read_text()
    script, count = _SETTINGS.subn(lambda _: head, template)
    assert count == 1, "worker.sh has one place for its settings"  # noqa: S101 - the impossible
    return script


def removal_script() -> str:
    """Stops the worker and removes its files; the owner's host.env and downloaded models stay. May be run again."""
    return files(__package__).joinpath("remove.sh").read_text()


def environment_lines(environment: Mapping[str, str]) -> list[str]:
    """KEY=VALUE, one a line; raises UnfitError for what cannot be written so."""
    for name, value in environment.items():
        _require(_NAME.fullmatch(name), "a variable's name")
        _require(len(value) <= MAX_VALUE_LENGTH and value.isascii() and (not value or value.isprintable()), name)
    return [f"{name}={value}" for name, value in environment.items()]


def phases_of(output: str) -> list[PhaseEnd]:
    """What the script said of its phases, in order; the last is the one that it came to."""
    return [PhaseEnd(phase, how == "ok") for phase, how in _PHASE_LINE.findall(output) if phase in PHASES]


def _require(fits: object, name: str) -> None:
    if not fits:
        raise UnfitError(f"{name} is not in its expected form")
