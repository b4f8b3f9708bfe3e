"""User data that makes a new server install itself: cloud-init writes two files, then runs one of them.

    /etc/inventiv-worker/environment   KEY=VALUE lines in the clear, so that a simulated cloud can read them back
    /etc/inventiv-worker/bootstrap.sh  the script of script.py, packed: AWS takes 16 KiB of user data at most

See https://docs.cloud-init.io/en/latest/reference/modules.html (write_files, runcmd). The environment is a literal
block, in which only indentation and line breaks mean anything, and its values have neither.
"""

import base64
import gzip
from collections.abc import Mapping

from infra.providers.bootstrap.script import DEFAULT_IMAGE, UnfitError, bootstrap_script, environment_lines

MAX_USER_DATA_BYTES = 16_384
ENVIRONMENT_PATH = "/etc/inventiv-worker/environment"
SCRIPT_PATH = "/etc/inventiv-worker/bootstrap.sh"
_ENVIRONMENT_ENTRY = f"  - path: {ENVIRONMENT_PATH}\n    owner: root:root\n    permissions: '0600'\n    content: |\n"
_INDENT = " " * 6


def cloud_init(
    environment: Mapping[str, str],
    *,
    agent_url: str,
    agent_sha256: str,
    vllm_image: str = DEFAULT_IMAGE,
    data_volume_tries: int = 1,
    powers_off: bool = True,
) -> str:
    """User data for a new server; the arguments are bootstrap_script's. The same ones give the same text.

    Raises:
        UnfitError: a value cannot be what it should be, or all together are too much for a provider.
    """
    lines = environment_lines(environment)
    if not lines:
        raise UnfitError("a worker needs an environment")
    script = bootstrap_script(
        {},
        agent_url=agent_url,
        agent_sha256=agent_sha256,
        vllm_image=vllm_image,
        data_volume_tries=data_volume_tries,
        powers_off=powers_off,
    )
    packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
    block = "".join(f"{_INDENT}{line}\n" for line in lines)
    text = (
        "#cloud-config\n"
        "write_files:\n"
        "  # The worker's environment: KEY=VALUE, one a line, literally.\n"
        f"{_ENVIRONMENT_ENTRY}{block}"
        f"  - path: {SCRIPT_PATH}\n    owner: root:root\n    permissions: '0700'\n    encoding: gz+b64\n"
        f"    content: {packed}\n"
        f"runcmd:\n  - [sh, {SCRIPT_PATH}]\n"
    )
    if len(text) > MAX_USER_DATA_BYTES:
        raise UnfitError(f"the user data has {len(text)} bytes; providers take {MAX_USER_DATA_BYTES}")
    return text


def worker_environment_of(user_data: str) -> dict[str, str]:
    """The environment that `cloud_init` wrote into user data; empty when it did not."""
    _, found, rest = user_data.partition(_ENVIRONMENT_ENTRY)
    environment: dict[str, str] = {}
    for line in rest.splitlines() if found else ():
        if not line.startswith(_INDENT):
            break
        name, _, value = line.removeprefix(_INDENT).partition("=")
        environment[name] = value
    return environment
