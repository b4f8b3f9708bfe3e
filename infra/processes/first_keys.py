"""The two API keys of a fresh platform: one for the person (shown once, on the first card), one for `inventiv chat`.

Both are asked for through the REST API with a fixed Idempotency-Key of this data folder, so an `up` that is killed
before it showed its card shows the same key next time, and never leaves a third one behind.
"""

from dataclasses import dataclass
from pathlib import Path

from infra.client import Api
from infra.environment import Environment
from infra.processes.data_folder import Marker
from infra.processes.running import write_private

FIRST_KEY_NAME = "first key"
CLI_KEY_NAME = "inventiv command line"
CLI_KEY_FILE = "cli_api_key"
PASSWORD_FILE = "admin_password"  # noqa: S105 - a file's name
_SHOWN = "card-shown"


@dataclass(frozen=True)
class FirstKeys:
    """What the card shows; the secrets are None once they have been shown.

    Attributes:
        key_file: the command line's own key.
        note: exists once the secrets have been shown.
    """

    key_file: Path
    note: Path
    admin_password: str | None = None
    api_key: str | None = None

    def shown(self) -> None:
        self.note.touch()


def first_keys(environment: Environment, marker: Marker) -> FirstKeys:
    """Makes what is missing; on later starts only looks, without a login.

    Raises:
        ApiError, UnreachableError, NoCredentialsError: see infra/client.py.
    """
    keys = FirstKeys(environment.secrets_dir / CLI_KEY_FILE, environment.data_dir / "run" / _SHOWN)
    if keys.note.exists() and keys.key_file.exists():
        return keys
    with Api(environment) as api:
        if not keys.key_file.exists():
            secret = _key(api, CLI_KEY_NAME, f"{marker.id}-cli-key")
            write_private(keys.key_file, f"{secret}\n".encode())
        if keys.note.exists():
            return keys
        path = password_file(environment)
        return FirstKeys(
            keys.key_file,
            keys.note,
            admin_password=None if path == environment.admin_password_file else path.read_text().strip(),
            api_key=_key(api, FIRST_KEY_NAME, f"{marker.id}-first-key"),
        )


def password_file(environment: Environment) -> Path:
    """Where the admin's password stands (or stood: it may have been changed since): the file that was given for the
    very first start, else the one that was made by chance.
    """
    own, given = environment.secrets_dir / PASSWORD_FILE, environment.admin_password_file
    return given if given is not None and not own.exists() else own


def _key(api: Api, name: str, idempotency_key: str) -> str:
    """Both flags are said explicitly, as everywhere; without an end, for nobody would know why `up` stopped working."""
    wish = {"name": name, "activate": ["technical", "economic"], "expires_in_days": None}
    return str(api.post("/api_keys", wish, idempotency_key=idempotency_key)["api_key"])
