"""The gateway's keys of foreign upstreams, in memory: exactly those that its routing table names.

    routing table ──wanted ids──> UpstreamKeys <──opened── vault.upstream_keys (Postgres)
                                     │      └──> <data folder>/gateway/upstream_keys.json, sealed as they came
                                     └──find(id)──> the clear key, for one request's head

They come from the copy on disk while Postgres is away, so a gateway starts alone. The surprising rule: nothing is
forgotten before the table is current. A table that is still being read names too few, and what it does not name yet
would be lost. What opens keys and what fetches them is imported with the first key: most gateways have none.
"""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from domain.ids import OrganizationId
from infra.cancellation import heed_cancellation
from infra.secret_files import SecretFileError
from infra.whole_files import replace_file

TICK_S = 0.25
"""How long after its event a new upstream may answer "key unavailable"."""
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
"""Where the doubling of pauses ends: a key that cannot be had is asked for at this pace for ever."""
MAX_FETCHED = 1000
"""Keys asked for at once; the rest follows with the next tick."""

Fetch = Callable[[Collection[str]], Awaitable[Mapping[str, bytes]]]
"""Credential ids -> what is sealed under them, as far as it is there; raises OSError."""

_log = structlog.get_logger(__name__)


class Opener(Protocol):
    """upstream_sealing.UpstreamSealer as seen from here."""

    def open(self, organization_id: str, credential_id: str, sealed: bytes) -> str | None: ...


class _Kept(msgspec.Struct, frozen=True):
    """One sealed key in the copy; `sealed` in base64."""

    organization_id: OrganizationId
    sealed: str


_copy = msgspec.json.Decoder(dict[str, _Kept])


class UpstreamKeys:
    """Shows no key but by `find`; none is in any log line, message or repr.

    Args:
        secrets_dir: holds the key that opens them.
        copy_path: this gateway's own copy, sealed; mode 0600.
        fetch: see `from_postgres`.
        now_s: monotonic clock.
    """

    def __init__(self, secrets_dir: Path, copy_path: Path, fetch: Fetch, now_s: Callable[[], float]) -> None:
        self._secrets_dir = secrets_dir
        self._path = copy_path
        self._fetch = fetch
        self._now_s = now_s
        self._clear: dict[str, str] = {}
        self._kept: dict[str, _Kept] = {}
        self._asked: frozenset[str] = frozenset()
        self._pause_s = 0.0
        self._again_s = 0.0

    def find(self, credential_id: str) -> str | None:
        """The clear key; None while it cannot be had or opened."""
        return self._clear.get(credential_id)

    def load(self) -> None:
        """Takes what the copy on disk holds; a damaged or foreign one counts as none."""
        try:
            kept = _copy.decode(self._path.read_bytes())
            if not kept:
                return
            opener = _opener_of(self._secrets_dir)
            for credential_id, one in kept.items():
                self._take(opener, credential_id, one.organization_id, b64decode(one.sealed))
        except FileNotFoundError:
            return
        except (OSError, ValueError, SecretFileError) as error:
            _log.warning("upstream_keys_not_loaded", reason=str(error))
            return
        _log.info("upstream_keys_loaded", keys=len(self._clear))

    async def keep_current(
        self, wanted: Callable[[], Mapping[str, OrganizationId]], is_current: Callable[[], bool]
    ) -> None:
        """Follows what is wanted, until cancelled.

        Args:
            wanted: the routing table's credentials.
            is_current: whether the table knows every deployment, so that what it does not name is over.
        """
        while True:
            heed_cancellation()
            await self.look(wanted(), forget=is_current())
            await asyncio.sleep(TICK_S)

    async def look(self, wanted: Mapping[str, OrganizationId], *, forget: bool) -> None:
        """Once: what is missing is fetched, unless that was tried just now; what is over is forgotten."""
        over = [credential_id for credential_id in self._kept if credential_id not in wanted] if forget else []
        for credential_id in over:
            del self._kept[credential_id]
            self._clear.pop(credential_id, None)
        missing = [credential_id for credential_id in wanted if credential_id not in self._clear][:MAX_FETCHED]
        is_changed = bool(over)
        if missing and (set(missing) - self._asked or self._now_s() >= self._again_s):
            is_changed |= await self._fetched(missing, wanted)
        if is_changed:
            await self._save()

    async def _fetched(self, missing: Collection[str], wanted: Mapping[str, OrganizationId]) -> bool:
        """Whether a key came; while the same ones stay missing, each try waits twice as long as the one before."""
        try:
            opener = await asyncio.to_thread(_opener_of, self._secrets_dir)  # importing takes a tenth of a second
            found = await self._fetch(missing)
        except (OSError, SecretFileError) as error:
            _log.warning("upstream_keys_unavailable", missing=len(missing), reason=str(error))
            found, opener = {}, None
        if opener is not None:
            for credential_id, sealed in found.items():
                self._take(opener, credential_id, wanted[credential_id], sealed)
        is_news = bool(set(missing) - self._asked)
        self._asked = frozenset(missing)
        self._pause_s = FIRST_PAUSE_S if is_news else min(MAX_PAUSE_S, self._pause_s * 2)
        self._again_s = self._now_s() + self._pause_s
        return bool(found)

    def _take(self, opener: Opener, credential_id: str, organization_id: OrganizationId, sealed: bytes) -> None:
        clear = opener.open(organization_id, credential_id, sealed)
        if clear is None:
            _log.error("upstream_key_does_not_open", credential_id=credential_id, organization_id=organization_id)
            return
        self._clear[credential_id] = clear
        self._kept[credential_id] = _Kept(organization_id, b64encode(sealed).decode())

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(replace_file, self._path, [msgspec.json.encode(self._kept)])
        except OSError as error:
            _log.warning("upstream_keys_not_saved", reason=str(error))


def from_postgres(postgres_url: str) -> Fetch:
    """Reads the vault's one table that a gateway may read; a connection for each time, since that is seldom."""

    async def fetch(credential_ids: Collection[str]) -> Mapping[str, bytes]:
        if not postgres_url:
            raise OSError("this gateway has no INVENTIV_POSTGRES_URL")
        read = await asyncio.to_thread(_reader)
        return await read(postgres_url, credential_ids)

    return fetch


def _opener_of(secrets_dir: Path) -> Opener:
    from infra.upstream_sealing import read_upstream_key  # noqa: PLC0415 - 7 MB of cryptography: see the head

    return read_upstream_key(secrets_dir)


def _reader() -> Callable[[str, Collection[str]], Awaitable[Mapping[str, bytes]]]:
    from infra.upstream_key_fetch import read_sealed  # noqa: PLC0415 - 12 MB of psycopg: see the head

    return read_sealed
