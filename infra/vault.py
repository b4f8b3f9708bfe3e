"""The vault: the only place that can read personal data. It is not derived from the log, and never rebuilt.

    seal(person, field, text) ──> "v1.<person>.<field>.<noise>"    into events; opens only with that person's data key
    forget(person) deletes the data key: everything sealed for that person, wherever it was copied, is noise after that

A data key lies in Postgres, wrapped by a key that lies in a file (wrapping.py): neither alone reads anything. The
surprising rule: a forgotten person's row stays as a tombstone, so that a late command cannot begin to remember that
person again.
"""

import hmac
import os
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from cryptography.exceptions import InvalidTag

from domain.decider import Rejected
from domain.values import Digest, Sealed
from infra.master_key import KEY_BYTES, MasterKey, decrypt, encrypt
from infra.postgres import Pool
from infra.vault_tables import vault_connection
from infra.wrapping import KeyRing, WrappingKeyMissingError, newest_key
from projections.projection import Connection

BOOTSTRAP_PREFIX = "wb_"
SEAL_VERSION = "v1"
MAX_ATTEMPT_DIGITS = 9


class PersonForgottenError(Rejected):
    """This person was forgotten; nothing more is sealed for them. Whoever asked is told that there is no such user."""

    def __init__(self, finding: str) -> None:
        super().__init__("user_not_found", "There is no user with this id.")
        self.add_note(finding)


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
    """Seals, opens, forgets, and compares personal data; create_vault must have run once before.

    Every method but digest raises VaultUnavailableError when Postgres is away, and WrappingKeyMissingError when this
    process lacks a key file.

    Args:
        pool: see vault_pool.
        master_key: of digests.
        keys: what wraps data keys; the master key's own when none are given.
    """

    def __init__(self, pool: Pool, master_key: MasterKey, keys: KeyRing | None = None) -> None:
        self._pool = pool
        self._master_key = master_key
        self._keys = keys or KeyRing(master_key)

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
        """
        async with vault_connection(self._pool, "seal") as connection:
            key = (await self._data_keys(connection, [person_id])).get(person_id)
            key = key or await self._new_data_key(connection, person_id)
        noise = encrypt(key, text.encode(), bound_to=f"{person_id}/{field}")
        return Sealed(f"{SEAL_VERSION}.{person_id}.{field}.{urlsafe_b64encode(noise).decode()}")

    async def open(self, sealed: Sealed) -> str | None:
        """The clear text; None once its person is forgotten, or when it was tampered with."""
        return (await self.open_all([sealed]))[0]

    async def open_all(self, sealed: Sequence[Sealed]) -> list[str | None]:
        """Like open, for many at once with one look-up."""
        parts = [one.split(".") for one in sealed]
        persons = {part[1] for part in parts if len(part) == 4}
        async with vault_connection(self._pool, "open") as connection:
            keys = await self._data_keys(connection, persons)
        return [_opened(part, keys) for part in parts]

    async def forget(self, person_id: str) -> None:
        """Deletes the person's data key and password; asking twice is welcome."""
        async with vault_connection(self._pool, "forget") as connection:
            await connection.execute(
                "INSERT INTO vault.person_keys (person_id, wrapped, forgotten_at) VALUES (%s, NULL, now()) "
                "ON CONFLICT (person_id) DO UPDATE SET wrapped = NULL, "
                "forgotten_at = coalesce(vault.person_keys.forgotten_at, now())",
                [person_id],
            )
            await connection.execute("DELETE FROM vault.passwords WHERE user_id = %s", [person_id])

    async def erased_at(self, person_id: str) -> datetime | None:
        """When the last trace of the person outside the log was gone too (erasure.py); None until then."""
        async with vault_connection(self._pool, "look for an erasure") as connection:
            query = "SELECT erased_at FROM vault.person_keys WHERE person_id = %s"
            row = await (await connection.execute(query, [person_id])).fetchone()
        return row[0] if row else None

    async def _data_keys(self, connection: Connection, person_ids: Collection[str]) -> Mapping[str, bytes]:
        """Those that are there. A rotation may remove a wrapping key between our look and our reading its file: then
        the row names another one by now.
        """
        try:
            return await self._look_up(connection, person_ids)
        except WrappingKeyMissingError:
            return await self._look_up(connection, person_ids)

    async def _look_up(self, connection: Connection, person_ids: Collection[str]) -> Mapping[str, bytes]:
        cursor = await connection.execute(
            "SELECT person_id, wrapped FROM vault.person_keys WHERE wrapped IS NOT NULL AND person_id = ANY(%s)",
            [sorted(person_ids)],
        )
        return {
            row[0]: self._keys.unwrap(bytes(row[1]), bound_to=purpose_of(row[0])) for row in await cursor.fetchall()
        }

    async def _new_data_key(self, connection: Connection, person_id: str) -> bytes:
        """Of two who make one at once, the first one's stands."""
        key_id = await newest_key(connection, self._keys)
        fresh = self._keys.wrap(key_id, os.urandom(KEY_BYTES), bound_to=purpose_of(person_id))
        await connection.execute(
            "INSERT INTO vault.person_keys (person_id, wrapped) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [person_id, fresh],
        )
        key = (await self._data_keys(connection, [person_id])).get(person_id)
        if key is None:
            raise PersonForgottenError(f"person {person_id} was forgotten")
        return key


def purpose_of(person_id: str) -> str:
    """What a person's wrapped data key is bound to."""
    return f"{person_id}/personal data"


def _opened(parts: list[str], keys: Mapping[str, bytes]) -> str | None:
    if len(parts) != 4 or parts[0] != SEAL_VERSION or parts[1] not in keys:
        return None
    _, person_id, field, noise = parts
    try:
        return decrypt(keys[person_id], urlsafe_b64decode(noise), bound_to=f"{person_id}/{field}").decode()
    except (InvalidTag, ValueError):
        return None
