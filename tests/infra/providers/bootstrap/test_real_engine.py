"""The phases that a real engine needs, with stand-ins for docker and nvidia-smi: what they are asked, in order."""

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.providers.bootstrap.script import PhaseEnd, bootstrap_script, phases_of
from tests.infra.providers.bootstrap.host import CHECKSUM, ControlPlane, PrefixHost, control_plane, until

IMAGE = "vllm/vllm-openai:v0.13.0"
DOCKER = """\
#!/bin/sh
printf '%s\\n' "$*" >>"$INVENTIV_ROOT/docker.log"
case $* in
"info --format"*) echo '{"nvidia":{"path":"nvidia-container-runtime"}}' ;;
"image inspect"*) [ -e "$INVENTIV_ROOT/pulled" ] ;;
"pull"*) touch "$INVENTIV_ROOT/pulled" ;;
*"find_spec"*) cat "$INVENTIV_ROOT/lacks" 2>/dev/null || echo '[]' ;;
*"--entrypoint nvidia-smi"*) echo 'GPU 0: H200' ;;
*"--env-file"*)
    while IFS= read -r line; do export "$line"; done <"$INVENTIV_ROOT/opt/inventiv-worker/agent.env"
    exec "$INVENTIV_PYTHON" "$INVENTIV_ROOT/opt/inventiv-worker/agent.pyz"
    ;;
esac
"""
NVIDIA_SMI = """\
#!/bin/sh
echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'
echo 'GPU 1: NVIDIA H200 (UUID: GPU-2)'
"""


class GpuHost(PrefixHost):
    """With stand-ins before everything else on its path."""

    @property
    def variables(self) -> dict[str, str]:
        variables = super().variables
        return {**variables, "PATH": f"{self.root}/bin:{variables['PATH']}"}

    @property
    def docker_calls(self) -> list[str]:
        return (self.root / "docker.log").read_text().splitlines()

    def has(self, name: str, program: str) -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(program)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as plane:
        yield plane


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GpuHost]:
    host = GpuHost(tmp_path / "host")
    host.prepare()
    host.has("docker", DOCKER)
    host.has("nvidia-smi", NVIDIA_SMI)
    yield host
    host.end()


def script_for(plane: ControlPlane, **changes: str) -> str:
    environment = {
        "CONTROL_PLANE_URL": plane.url,
        "INSTANCE_ID": "i-1",
        "MODEL_ID": "Qwen/Qwen2.5-0.5B-Instruct",
        "WORKER_AUTH_TOKEN": "wb_secret",
        "WORKER_ENGINE": "vllm",
        **changes,
    }
    return bootstrap_script(environment, agent_url=f"{plane.url}/agent.pyz", agent_sha256=CHECKSUM, vllm_image=IMAGE)


def test_the_agent_runs_in_the_engine_s_container(plane: ControlPlane, host: GpuHost) -> None:
    run = host.run(script_for(plane))
    assert run.returncode == 0, run.stdout + run.stderr
    until(host.starts, "an agent")
    base = host.base
    assert host.docker_calls[-1] == (
        "run --rm --init --name inventiv-worker --gpus all --network host --ipc host "
        f"--env-file {base}/agent.env -v {base}:{base} --entrypoint python3 {IMAGE} {base}/agent.pyz"
    )
    assert host.docker_calls[-2] == "rm -f inventiv-worker", "what a kill left behind holds the GPUs"
    assert f"pull -q {IMAGE}" in host.docker_calls


def test_the_engine_spans_all_gpus_and_keeps_its_models(plane: ControlPlane, host: GpuHost) -> None:
    host.run(script_for(plane))
    until((host.base / "state/environment").exists, "the agent's own account")
    environment = host.agent_environment()
    assert environment["WORKER_ENGINE_ARGS"] == '{"args":["--tensor-parallel-size","2"]}'
    assert environment["HF_HOME"] == f"{host.base}/hf"


def test_what_the_control_plane_says_of_the_engine_counts(plane: ControlPlane, host: GpuHost) -> None:
    host.run(script_for(plane, WORKER_ENGINE_ARGS='{"model":"x"}', WORKER_VLLM_IMAGE="registry.example/vllm:1"))
    until((host.base / "state/environment").exists, "the agent's own account")
    assert host.agent_environment()["WORKER_ENGINE_ARGS"] == '{"model":"x"}'
    assert "pull -q registry.example/vllm:1" in host.docker_calls


def test_an_image_that_is_there_is_not_pulled(plane: ControlPlane, host: GpuHost) -> None:
    (host.root / "pulled").touch()
    assert host.run(script_for(plane)).returncode == 0
    assert not [call for call in host.docker_calls if call.startswith("pull")]


def test_an_image_without_what_the_agent_needs_is_named(plane: ControlPlane, host: GpuHost) -> None:
    (host.root / "lacks").write_text("['msgspec']\n")
    run = host.run(script_for(plane))
    assert phases_of(run.stdout)[-1] == PhaseEnd("vllm_start", ok=False)
    assert f"the image {IMAGE} lacks what the agent needs" in plane.reports[-1].output
    assert host.starts() == []


def test_a_host_without_gpus_is_named(plane: ControlPlane, host: GpuHost) -> None:
    host.has("nvidia-smi", "#!/bin/sh\nexit 9\n")
    run = host.run(script_for(plane))
    assert phases_of(run.stdout)[-1] == PhaseEnd("nvidia_toolkit", ok=False)
    assert "no NVIDIA GPU" in plane.reports[-1].output


def test_a_pull_is_tried_a_few_times_and_no_more(plane: ControlPlane, host: GpuHost) -> None:
    host.has("docker", DOCKER.replace('touch "$INVENTIV_ROOT/pulled"', "exit 1"))
    host.has("sleep", "#!/bin/sh\n")
    run = host.run(script_for(plane))
    assert phases_of(run.stdout)[-1] == PhaseEnd("docker_pull", ok=False)
    assert len([call for call in host.docker_calls if call.startswith("pull")]) == 3


LSBLK = """\
#!/bin/sh
case $* in
-bdnpo*) printf '/dev/full disk 900000000000 0\\n/dev/small disk 10 0\\n/dev/used disk 900000000000 0\\n' ;;
*) if [ "$3" = /dev/full ]; then printf 'full\\nfull1\\n'; else echo one; fi ;;
esac
"""


@pytest.mark.skipif(shutil.which("mountpoint") is None, reason="there is no mountpoint here")
def test_no_disk_with_anything_on_it_is_ever_formatted(plane: ControlPlane, host: GpuHost) -> None:
    """One is partitioned, one is too small, one bears a signature: everything stays where it is."""
    host.has("lsblk", LSBLK)
    host.has("blkid", "#!/bin/sh\nexit 2\n")
    host.has("wipefs", "#!/bin/sh\necho '0x0 linux_raid_member'\n")
    host.has("mkfs.ext4", '#!/bin/sh\ntouch "$INVENTIV_ROOT/formatted"\n')
    run = host.run(script_for(plane).replace("data_volume_tries=0", "data_volume_tries=1"))
    assert run.returncode == 0, run.stdout
    assert not (host.root / "formatted").exists()
    assert "no data volume after 1 looks" in plane.reports[1].output


def test_an_owner_s_disks_stay_the_owner_s(plane: ControlPlane, host: GpuHost) -> None:
    host.has("lsblk", LSBLK)
    host.has("wipefs", "#!/bin/sh\n")
    host.has("mkfs.ext4", '#!/bin/sh\ntouch "$INVENTIV_ROOT/formatted"\n')
    held = host.root / "var/lib/inventiv-host/held"
    held.parent.mkdir(parents=True)
    held.touch()
    script = script_for(plane).replace("data_volume_tries=0", "data_volume_tries=1")
    assert host.run(script).returncode == 0
    assert not (host.root / "formatted").exists()


def test_an_empty_disk_becomes_the_data_volume(plane: ControlPlane, host: GpuHost) -> None:
    """The control of the test above. It ends before the mount, which is no business of a test's."""
    host.has("lsblk", LSBLK)
    host.has("blkid", "#!/bin/sh\nexit 2\n")
    host.has("wipefs", "#!/bin/sh\n")
    host.has("mkfs.ext4", '#!/bin/sh\necho "$*" >"$INVENTIV_ROOT/formatted"\n')
    host.has("mountpoint", "#!/bin/sh\nexit 1\n")
    host.has("mount", "#!/bin/sh\necho not here\nexit 1\n")
    run = host.run(script_for(plane).replace("data_volume_tries=0", "data_volume_tries=1"))
    assert phases_of(run.stdout)[-1] == PhaseEnd("mount_data_volume", ok=False)
    assert (host.root / "formatted").read_text() == "-q -L inventiv-data /dev/used\n"
