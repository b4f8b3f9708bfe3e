"""A command line pointed at a stub of the REST API, run in this process as `inventiv` would."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.cli import main as cli
from tests.infra.cli.stub_api import PASSWORD, StubApi, running_stub

Inventiv = Callable[..., int]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubApi]:
    """Running; its address and a data folder with its admin password are in the environment."""
    with running_stub() as stub:
        for folder in ("run", "secrets"):
            (tmp_path / folder).mkdir()
        (tmp_path / "secrets" / "admin_password").write_text(f"{PASSWORD}\n")
        monkeypatch.setenv("INVENTIV_DATA_DIR", str(tmp_path))
        monkeypatch.setenv("INVENTIV_API_URL", stub.url)
        monkeypatch.setenv("INVENTIV_GATEWAY_URL", stub.url)
        yield stub


@pytest.fixture
def inventiv(monkeypatch: pytest.MonkeyPatch) -> Inventiv:
    """`inventiv("model", "ls")` -> exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["inventiv", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run
