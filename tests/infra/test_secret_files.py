"""Secret files: made once, agreed on by all, readable by their owner alone."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_bytes

import pytest

from infra.secret_files import SecretFileError, secret_file


def test_a_secret_is_made_once_and_then_read(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "master_key"
    first = secret_file(path, lambda: token_bytes(32))
    assert len(first) == 32
    assert secret_file(path, lambda: b"another") == first


def test_only_its_owner_may_read_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "master_key"
    secret_file(path, lambda: b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    path = tmp_path / "master_key"
    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(lambda _: secret_file(path, lambda: token_bytes(32)), range(32)))
    assert len(seen) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["master_key"]


def test_a_secret_that_must_not_be_made_is_missed(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="INVENTIV_MAKE_SECRETS=1"):
        secret_file(tmp_path / "master_key", None)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master_key"
    path.touch(mode=0o600)
    with pytest.raises(SecretFileError, match="empty"):
        secret_file(path, lambda: b"x")


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master_key"
    path.write_bytes(b"x")
    path.chmod(0o644)
    with pytest.raises(SecretFileError, match="chmod 600"):
        secret_file(path, lambda: b"x")
