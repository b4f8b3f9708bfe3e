"""The one key that gateways share with the API: it seals the keys of foreign upstreams, and opens nothing else.

    <secrets_dir>/master_key ──HKDF──> upstream key ──written once by the role web──> <secrets_dir>/upstream_key
                                                                                        └── all that a gateway needs

So a gateway's machine holds no master key: whoever takes it finds the upstreams' keys, which pass through its memory
anyway, and can read no person, no other credential, and forge no sign-in. The surprising rule: the file is a copy. A
lost one is written again at the next start of the API; a gateway on another machine is given it by hand.
"""

import hmac
from pathlib import Path

from cryptography.exceptions import InvalidTag

from infra.master_key import MasterKey, decrypt, encrypt, require_strong
from infra.secret_files import SecretFileError, make_secret_file, read_secret_file

UPSTREAM_KEY_FILE = "upstream_key"


class UpstreamSealer:
    """Seals a key under its organisation and credential id; in the place of another it does not open."""

    def __init__(self, key: bytes) -> None:
        self._key = require_strong(key, UPSTREAM_KEY_FILE)

    def seal(self, organization_id: str, credential_id: str, clear: str) -> bytes:
        return encrypt(self._key, clear.encode(), bound_to=_bound_to(organization_id, credential_id))

    def open(self, organization_id: str, credential_id: str, sealed: bytes) -> str | None:
        """None for what was sealed with another key, for somebody else, or was changed."""
        try:
            return decrypt(self._key, sealed, bound_to=_bound_to(organization_id, credential_id)).decode()
        except (InvalidTag, ValueError):
            return None


def sealer_of(master_key: MasterKey) -> UpstreamSealer:
    return UpstreamSealer(master_key.key_for("upstream_keys"))


def write_upstream_key(secrets_dir: Path, master_key: MasterKey) -> None:
    """Puts the gateway's copy where a gateway on this machine finds it.

    Raises:
        SecretFileError: another key is there; the folder is not this platform's, or its master key was replaced.
    """
    path, key = secrets_dir / UPSTREAM_KEY_FILE, master_key.key_for("upstream_keys")
    if not path.exists():
        make_secret_file(path, key)
    if not hmac.compare_digest(read_secret_file(path), key):
        raise SecretFileError(f"{path} does not belong to the master key beside it; remove it, and start again")


def read_upstream_key(secrets_dir: Path) -> UpstreamSealer:
    """Raises SecretFileError: absent, unreadable, open to others, weak, or of the wrong size."""
    return UpstreamSealer(read_secret_file(secrets_dir / UPSTREAM_KEY_FILE))


def _bound_to(organization_id: str, credential_id: str) -> str:
    return f"{organization_id}/upstream_key/{credential_id}"
