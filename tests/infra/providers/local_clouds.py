"""Local clouds for tests, with an agent that is quick: it does nothing until it is ended."""

from pathlib import Path

from infra.providers.local import LocalCloud

IDLE_AGENT = """\
import os, pathlib, signal, sys, time

if os.environ.get("IGNORES_SIGTERM"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
state = pathlib.Path(os.environ["WORKER_STATE_DIR"])
with (state / "starts").open("a") as starts:
    starts.write(f"{os.getpid()}\\n")
(state / "draft").write_text("\\n".join(f"{k}={v}" for k, v in sorted(os.environ.items())))
(state / "draft").rename(state / "environment")
if os.environ.get("DIES_AT_ONCE"):
    sys.exit(1)
while True:
    time.sleep(60)
"""


async def new_local_cloud(folder: Path) -> LocalCloud:
    archive = folder / "agent.pyz"
    archive.write_text(IDLE_AGENT)
    return LocalCloud(folder / "servers", agent_archive=archive)
