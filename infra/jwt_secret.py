"""The operator's own secret for sign-in tokens (INVENTIV_JWT_SECRET_FILE); without one, a key from the master key.

With a file of its own it can be changed apart from the master key; a new secret ends every session. A weak one
would let a guesser work offline, so the service does not start with it.
"""

from pathlib import Path

from infra.environment import Environment
from infra.master_key import MasterKey
from infra.secret_files import SecretFileError

MIN_SECRET_BYTES = 32
MIN_DIFFERENT_BYTES = 8
"""64 random hexadecimal digits have fewer once in a billion; what a person types by holding keys has."""
_KNOWN = ("secret", "changeme", "change_me", "change-me", "default", "example", "insecure", "inventiv", "password")
"""Parts of the secrets that stand in manuals; six letters or more, so that chance does not make them."""


def token_key(environment: Environment, key: MasterKey) -> bytes:
    """What signs sign-in tokens.

    Raises:
        SecretFileError: the file cannot be read, or anybody could guess what is in it.
    """
    if environment.jwt_secret_file is None:
        return key.key_for("sign_in")
    return _secret_in(environment.jwt_secret_file)


def _secret_in(path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SecretFileError(f"{path} cannot be read ({error.strerror}); correct INVENTIV_JWT_SECRET_FILE") from error
    cure = "write 32 random bytes into it (`openssl rand -base64 48`), or unset INVENTIV_JWT_SECRET_FILE"
    if len(secret) < MIN_SECRET_BYTES:
        raise SecretFileError(f"the secret in {path} is shorter than {MIN_SECRET_BYTES} bytes; {cure}")
    if len(set(secret)) < MIN_DIFFERENT_BYTES or _is_known(secret):
        raise SecretFileError(f"the secret in {path} can be guessed; {cure}")
    return secret


def _is_known(secret: bytes) -> bool:
    text = secret.decode("utf-8", "replace").casefold()
    return any(known in text for known in _KNOWN) or text in (text + text)[1:-1]
