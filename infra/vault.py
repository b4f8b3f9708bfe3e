"""The vault: the only place that can read personal data. It is not derived from the log, and never rebuilt.

    seal(person, field, text) ──> "v1.<person>.<field>.<noise>"    into events; opens only with that person's data key
    forget(person) deletes the data key: everything sealed for that person, wherever it was copied, is noise after that

A data key lies in Postgres wrapped by the master key, which lies in a file: neither alone reads anything. The
surprising rule: a forgotten person's row stays as a tombstone, so that a late command cannot begin to remember that
person again.
"""

import hmac
import os
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag

from domain.values import Digest, Sealed
from infra.master_key import KEY_BYTES, MasterKey, decrypt, encrypt
from infra.postgres import Pool
from infra.vault_tables import vault_connection
from projections.projection import Connection

BOOTSTRAP_PREFIX = "wb_"
SEAL_VERSION = "v1"
MAX_ATTEMPT_DIGITS = 9


class PersonForgottenError(Exception):
    """This person was forgotten; nothing more is sealed for them."""


class WorkerTokens:
    """One-time tokens with which agents register: `wb_<attempt>_<64 hex>`. Derived, so there is nothing to store.

    The attempt stands in the token, so that a forged one is refused before a look-up could tell which instances exist.
    """

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key

    def bootstrap_token(self, instance_id: str, attempt: int) -> str:
        proof = self._master_key.mac("bootstrap", instance_id, str(attempt)).hex()
        return f"{BOOTSTRAP_PREFIX}{attempt}_{proof}"

    def bootstrap_attempt(self, instance_id: str, token: str) -> int | None:
        """The attempt that `token` was derived for; None when it is not this instance's token."""
        attempt, _, _ = token.removeprefix(BOOTSTRAP_PREFIX).partition("_")
        if not (attempt.isascii() and attempt.isdigit() and len(attempt) <= MAX_ATTEMPT_DIGITS):
            return None
        genuine = self.bootstrap_token(instance_id, int(attempt))
        return int(attempt) if hmac.compare_digest(genuine.encode(), token.encode()) else None


class OneTimeTokens:
    """Tokens of mails: derived, so that nothing of them is stored but their hash in the event they belong to."""

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key

    def token(self, kind: str, subject: str) -> str:
        """See web/services.py: 160 bits in 32 letters and digits."""
        return b32encode(self._master_key.mac("one_time", kind, subject)[:20]).decode().lower()


class Vault:
    """Seals, opens, forgets, and compares personal data; create_vault must have run once before."""

    def __init__(self, pool: Pool, master_key: MasterKey) -> None:
        self._pool = pool
        self._master_key = master_key

    def digest(self, kind: str, value: str) -> Digest:
        """Keyed hash of a unique personal value; case and surrounding blanks do not count.

        Args:
            kind: "username" or "email"; the same value under another kind gives another digest.
            value: as typed.
        """
        return Digest(self._master_key.mac("digest", kind, value.strip().casefold()).hex())

    async def seal(self, person_id: str, field: str, text: str) -> Sealed:
        """`text` as ciphertext of that person.

        Raises:
            PersonForgottenError: the person's key was deleted.
            VaultUnavailableError: Postgres is away.
        """
        async with vault_connection(self._pool, "seal") as connection:
            key = await self._data_key(connection, person_id)
        noise = encrypt(key, text.encode(), bound_to=f"{person_id}/{field}")
        return Sealed(f"{SEAL_VERSION}.{person_id}.{field}.{urlsafe_b64encode(noise).decode()}")

    async def open(self, sealed: Sealed) -> str | None:
        """The clear text; None once its person is forgotten, or when it was tampered with.

        Raises:
            VaultUnavailableError: Postgres is away.
        """
        return (await self.open_all([sealed]))[0]

    async def open_all(self, sealed: Sequence[Sealed]) -> list[str | None]:
        """Like open, for many at once with one look-up."""
        parts = [one.split(".") for one in sealed]
        persons = {part[1] for part in parts if len(part) == 4}
        async with vault_connection(self._pool, "open") as connection:
            cursor = await connection.execute(
                "SELECT person_id, wrapped FROM vault.person_keys WHERE wrapped IS NOT NULL AND person_id = ANY(%s)",
                [sorted(persons)],
            )
            keys = {row[0]: self._unwrap(row[0], bytes(row[1])) for row in await cursor.fetchall()}
        return [_opened(part, keys) for part in parts]

    async def forget(self, person_id: str) -> None:
        """Deletes the person's data key and password; asking twice is welcome.

        Raises:
            VaultUnavailableError: Postgres is away; nothing was deleted.
        """
        async with vault_connection(self._pool, "forget") as connection:
            await connection.execute(
                "INSERT INTO vault.person_keys (person_id, wrapped, forgotten_at) VALUES (%s, NULL, now()) "
                "ON CONFLICT (person_id) DO UPDATE SET wrapped = NULL, "
                "forgotten_at = coalesce(vault.person_keys.forgotten_at, now())",
                [person_id],
            )
            await connection.execute("DELETE FROM vault.passwords WHERE user_id = %s", [person_id])

    async def _data_key(self, connection: Connection, person_id: str) -> bytes:
        """The person's key, made now when there is none; of two who make one at once, the first one's stands."""
        fresh = encrypt(self._master_key.key_for("wrapping"), os.urandom(KEY_BYTES), bound_to=_purpose(person_id))
        await connection.execute(
            "INSERT INTO vault.person_keys (person_id, wrapped) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [person_id, fresh],
        )
        cursor = await connection.execute("SELECT wrapped FROM vault.person_keys WHERE person_id = %s", [person_id])
        row = await cursor.fetchone()
        if row is None or row[0] is None:
            raise PersonForgottenError(f"person {person_id} was forgotten")
        return self._unwrap(person_id, bytes(row[0]))

    def _unwrap(self, person_id: str, wrapped: bytes) -> bytes:
        return decrypt(self._master_key.key_for("wrapping"), wrapped, bound_to=_purpose(person_id))


def _purpose(person_id: str) -> str:
    return f"{person_id}/personal data"


def _opened(parts: list[str], keys: dict[str, bytes]) -> str | None:
    if len(parts) != 4 or parts[0] != SEAL_VERSION or parts[1] not in keys:
        return None
    _, person_id, field, noise = parts
    try:
        return decrypt(keys[person_id], urlsafe_b64decode(noise), bound_to=f"{person_id}/{field}").decode()
    except (InvalidTag, ValueError):
        return None
