"""What may sign sign-in tokens."""

import secrets
from base64 import b64encode
from pathlib import Path

import pytest
from msgspec.structs import replace

from infra.environment import Environment
from infra.jwt_secret import token_key
from infra.master_key import MasterKey
from infra.secret_files import SecretFileError
from infra.web_services import web_settings

KEY = MasterKey(bytes(range(32)))


def environment(folder: Path, content: bytes | None = None) -> Environment:
    bare = Environment(data_dir=folder, secrets_dir=folder)
    if content is None:
        return bare
    (folder / "jwt").write_bytes(content)
    return replace(bare, jwt_secret_file=folder / "jwt")


def test_without_a_file_the_key_is_derived(tmp_path: Path) -> None:
    assert token_key(environment(tmp_path), KEY) == KEY.key_for("sign_in")


@pytest.mark.parametrize("made", [secrets.token_bytes, lambda n: b64encode(secrets.token_bytes(n)), secrets.token_hex])
def test_chance_of_any_spelling_will_do(tmp_path: Path, made: object) -> None:
    for _ in range(50):
        content = made(48)  # type: ignore[operator]  # one of three functions int -> str | bytes
        secret = content.encode() if isinstance(content, str) else content
        assert token_key(environment(tmp_path, secret + b"\n"), KEY) == secret.strip()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "shorter"),
        (b"feeble", "shorter"),
        (b"x" * 31, "shorter"),
        (b"x" * 64, "guessed"),
        (b"0123456" * 10, "guessed"),
        (b"abcdefghijklmnop" * 4, "guessed"),
        (b"dev_insecure_change_me_dev_insecure_change_me_1", "guessed"),
        (b"my-super-secret-jwt-token-with-at-least-32-characters", "guessed"),
        (b"CHANGEME-9f8e7d6c5b4a39281706f5e4d3c2b1a0", "guessed"),
    ],
)
def test_a_secret_that_can_be_guessed_stops_the_start(tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(SecretFileError, match=complaint) as refused:
        token_key(environment(tmp_path, content), KEY)
    assert "openssl rand" in str(refused.value)
    assert content.decode() not in str(refused.value) or not content


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="INVENTIV_JWT_SECRET_FILE"):
        token_key(replace(environment(tmp_path), jwt_secret_file=tmp_path / "nowhere"), KEY)


def test_the_api_signs_with_it_or_does_not_start(tmp_path: Path) -> None:
    secret = b64encode(secrets.token_bytes(48))
    assert web_settings(environment(tmp_path, secret), KEY).token_key == secret
    with pytest.raises(SecretFileError):
        web_settings(environment(tmp_path, b"x" * 64), KEY)
