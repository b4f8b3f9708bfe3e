"""Keys of foreign upstreams between vault and gateway: sealed for gateways alone, followed, kept on disk, unseen."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
import structlog

from domain.ids import DeploymentId, OrganizationId
from infra.master_key import MasterKey
from infra.postgres import Pool
from infra.secret_files import SecretFileError, make_secret_file
from infra.upstream_key_store import UpstreamKeyIntake, UpstreamKeyVault
from infra.upstream_keys import FIRST_PAUSE_S, MAX_PAUSE_S, UpstreamKeys, from_postgres
from infra.upstream_sealing import UPSTREAM_KEY_FILE, read_upstream_key, sealer_of, write_upstream_key
from infra.vault_tables import create_vault, vault_pool

MASTER = MasterKey(bytes(range(32)))
ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
CLEAR = "sk-canary-of-an-upstream"
DEPLOYED = DeploymentId("d1")


class Vault:
    """Sealed keys by id; counts how often it is asked."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.asked: list[tuple[str, ...]] = []
        self.away = False

    def keep(self, credential_id: str, clear: str = CLEAR, organization: str = ACME) -> None:
        self.rows[credential_id] = sealer_of(MASTER).seal(organization, credential_id, clear)

    async def fetch(self, credential_ids: Collection[str]) -> Mapping[str, bytes]:
        self.asked.append(tuple(credential_ids))
        if self.away:
            raise OSError("the vault did not answer")
        return {one: self.rows[one] for one in credential_ids if one in self.rows}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Gateway:
    """One gateway's keys, with its folders; `restarted` is another process on the same disk."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self.folder, self.vault, self.clock = folder, vault, Clock()
        write_upstream_key(folder / "secrets", MASTER)
        self.copy = folder / "gateway" / "upstream_keys.json"
        self.keys = UpstreamKeys(folder / "secrets", self.copy, vault.fetch, self.clock)

    def restarted(self) -> "Gateway":
        again = Gateway(self.folder, self.vault)
        again.keys.load()
        return again

    async def look(self, *wanted: str, forget: bool = True) -> None:
        await self.keys.look(dict.fromkeys(wanted, ACME), forget=forget)


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def gateway(tmp_path: Path, vault: Vault) -> Gateway:
    return Gateway(tmp_path, vault)


async def test_a_wanted_key_is_found_after_one_look(gateway: Gateway) -> None:
    gateway.vault.keep("c1")
    assert gateway.keys.find("c1") is None
    await gateway.look("c1")
    assert gateway.keys.find("c1") == CLEAR
    await gateway.look("c1")
    assert gateway.vault.asked == [("c1",)]


async def test_a_key_that_is_not_wanted_any_more_is_forgotten_on_disk_too(gateway: Gateway) -> None:
    gateway.vault.keep("c1")
    await gateway.look("c1")
    await gateway.look()
    assert gateway.keys.find("c1") is None
    assert gateway.copy.read_bytes() == b"{}"


async def test_nothing_is_forgotten_while_the_table_is_not_current(gateway: Gateway) -> None:
    gateway.vault.keep("c1")
    await gateway.look("c1")
    await gateway.look(forget=False)
    assert gateway.keys.find("c1") == CLEAR
    assert gateway.restarted().keys.find("c1") == CLEAR


async def test_a_gateway_starts_with_the_vault_away(gateway: Gateway) -> None:
    gateway.vault.keep("c1")
    await gateway.look("c1")
    gateway.vault.away = True
    assert gateway.restarted().keys.find("c1") == CLEAR


async def test_a_replaced_key_goes_when_the_table_names_the_new_one(gateway: Gateway) -> None:
    gateway.vault.keep("c1")
    gateway.vault.keep("c2", "sk-second")
    await gateway.look("c1")
    await gateway.look("c2")
    assert (gateway.keys.find("c1"), gateway.keys.find("c2")) == (None, "sk-second")


async def test_a_missing_key_is_asked_for_less_and_less_often(gateway: Gateway) -> None:
    for _ in range(1000):
        await gateway.look("c1")
        gateway.clock.now_s += 0.25
    few = len(gateway.vault.asked)
    assert 8 < few < 20  # pauses of 0.5, 1, 2, 4, 8, 16 and then 30 s in 250 s
    gateway.vault.keep("c1")
    gateway.clock.now_s += MAX_PAUSE_S
    await gateway.look("c1")
    assert gateway.keys.find("c1") == CLEAR


async def test_a_missing_key_does_not_hold_up_another_one(gateway: Gateway) -> None:
    for _ in range(50):
        await gateway.look("c1")
        gateway.clock.now_s += FIRST_PAUSE_S
    gateway.vault.keep("c2")
    await gateway.look("c1", "c2")
    assert gateway.keys.find("c2") == CLEAR


async def test_while_the_vault_is_away_the_known_keys_serve(gateway: Gateway) -> None:
    gateway.vault.keep("c1")
    await gateway.look("c1")
    gateway.vault.away = True
    await gateway.look("c1", "c2")
    assert (gateway.keys.find("c1"), gateway.keys.find("c2")) == (CLEAR, None)
    gateway.vault.away = False
    gateway.vault.keep("c2")
    gateway.clock.now_s += MAX_PAUSE_S
    await gateway.look("c1", "c2")
    assert gateway.keys.find("c2") == CLEAR


async def test_a_key_sealed_for_somebody_else_does_not_open(gateway: Gateway) -> None:
    gateway.vault.keep("c1", organization=GLOBEX)
    gateway.vault.keep("c3")
    gateway.vault.rows["c2"] = gateway.vault.rows["c3"]
    await gateway.look("c1", "c2", "c3")
    assert [gateway.keys.find(one) for one in ("c1", "c2", "c3")] == [None, None, CLEAR]


async def test_without_the_secret_file_no_key_is_found_and_with_it_again_all(gateway: Gateway) -> None:
    gateway.vault.keep("c1")
    secret = gateway.folder / "secrets" / UPSTREAM_KEY_FILE
    kept = secret.read_bytes()
    secret.unlink()
    await gateway.look("c1")
    assert gateway.keys.find("c1") is None
    make_secret_file(secret, kept)
    gateway.clock.now_s += MAX_PAUSE_S
    await gateway.look("c1")
    assert gateway.keys.find("c1") == CLEAR


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"c1": ["acme", "!"]}', b'{"c1": {"sealed": 1}}'])
async def test_a_damaged_copy_counts_as_none(gateway: Gateway, damage: bytes) -> None:
    gateway.vault.keep("c1")
    await gateway.look("c1")
    gateway.copy.write_bytes(damage)
    again = gateway.restarted()
    assert again.keys.find("c1") is None
    await again.look("c1")
    assert again.keys.find("c1") == CLEAR


async def test_a_disk_that_is_full_costs_the_copy_and_not_the_key(gateway: Gateway) -> None:
    (gateway.copy / "in the way").mkdir(parents=True)
    gateway.vault.keep("c1")
    await gateway.look("c1")
    assert gateway.keys.find("c1") == CLEAR
    assert gateway.copy.is_dir()


async def test_a_clear_key_is_on_no_disk_in_no_log_and_in_no_repr(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.vault.keep("c1")
    with structlog.testing.capture_logs() as logs, caplog.at_level(logging.DEBUG):
        await gateway.look("c1")
        gateway.restarted()
        gateway.vault.keep("c2", organization=GLOBEX)
        await gateway.look("c1", "c2")
        gateway.vault.away = True
        gateway.clock.now_s += MAX_PAUSE_S
        await gateway.look("c1", "c2")
    assert {line["event"] for line in logs} == {
        "upstream_keys_loaded",
        "upstream_key_does_not_open",
        "upstream_keys_unavailable",
    }
    assert CLEAR not in f"{logs}{caplog.text}{gateway.keys!r}{vars(gateway.keys)['_kept']}"
    written = b"".join(path.read_bytes() for path in gateway.folder.rglob("*") if path.is_file())
    assert CLEAR.encode() not in written
    assert gateway.copy.stat().st_mode & 0o077 == 0
    assert CLEAR in f"{vars(gateway.keys)}"  # the control: it is there to be found


async def _kept(pool: Pool) -> set[str]:
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT credential_id FROM vault.upstream_keys")).fetchall()
    return {row[0] for row in rows}


async def _age(pool: Pool, credential_id: str, seconds: int) -> None:
    statement = "UPDATE vault.upstream_keys SET kept_at = now() - make_interval(secs => %s) WHERE credential_id = %s"
    async with pool.connection() as connection:
        await connection.execute(statement, [seconds, credential_id])


async def test_a_key_goes_from_the_api_through_the_vault_to_a_gateway(postgres_url: str, tmp_path: Path) -> None:
    async with vault_pool(postgres_url) as pool:
        await create_vault(pool, MASTER)
        await UpstreamKeyIntake(pool, sealer_of(MASTER)).keep(ACME, DEPLOYED, "c1", CLEAR)
    write_upstream_key(tmp_path, MASTER)
    keys = UpstreamKeys(tmp_path, tmp_path / "copy.json", from_postgres(postgres_url), Clock())
    await keys.look({"c1": ACME, "c2": ACME}, forget=True)
    assert (keys.find("c1"), keys.find("c2")) == (CLEAR, None)


async def test_the_vault_destroys_what_came_before_and_spares_what_came_after(postgres_url: str) -> None:
    async with vault_pool(postgres_url) as pool:
        await create_vault(pool, MASTER)
        intake, store = UpstreamKeyIntake(pool, sealer_of(MASTER)), UpstreamKeyVault(pool)
        for credential_id, age_s in (("old", 30), ("current", 20), ("coming", 10)):
            await intake.keep(ACME, DEPLOYED, credential_id, CLEAR)
            await _age(pool, credential_id, age_s)
        await intake.keep(ACME, "another", "others", CLEAR)
        await intake.keep(GLOBEX, DEPLOYED, "neighbours", CLEAR)
        await store.destroy(ACME, DEPLOYED, but="current")
        assert await _kept(pool) == {"current", "coming", "others", "neighbours"}
        await store.destroy(ACME, DEPLOYED, but="")
        assert await _kept(pool) == {"others", "neighbours"}


async def test_the_vault_lists_what_is_old_and_spares_what_was_kept_again(postgres_url: str) -> None:
    async with vault_pool(postgres_url) as pool:
        await create_vault(pool, MASTER)
        intake, store = UpstreamKeyIntake(pool, sealer_of(MASTER)), UpstreamKeyVault(pool)
        for credential_id in ("a", "b", "c"):
            await intake.keep(ACME, DEPLOYED, credential_id, CLEAR)
        for credential_id in ("a", "b"):
            await _age(pool, credential_id, 100)
        listed = await store.list_older("", age_s=50)
        assert [(key.organization, key.deployment_id, key.credential_id) for key in listed] == [
            (ACME, DEPLOYED, "a"),
            (ACME, DEPLOYED, "b"),
        ]
        assert [key.credential_id for key in await store.list_older("a", age_s=50)] == ["b"]
        await intake.keep(ACME, DEPLOYED, "b", CLEAR)
        for credential_id in ("a", "b", "c"):
            await store.destroy_older(credential_id, age_s=50)
        assert await _kept(pool) == {"b", "c"}


async def test_a_postgres_that_is_away_is_the_worlds_fault() -> None:
    with pytest.raises(OSError, match="did not answer"):
        await from_postgres("postgresql://127.0.0.1:1/none?connect_timeout=2")({"c1"})
    with pytest.raises(OSError, match="INVENTIV_POSTGRES_URL"):
        await from_postgres("")({"c1"})


def test_the_gateways_secret_opens_no_other_secret_of_the_platform(tmp_path: Path) -> None:
    write_upstream_key(tmp_path, MASTER)
    secret = (tmp_path / UPSTREAM_KEY_FILE).read_bytes()
    assert secret == MASTER.key_for("upstream_keys")
    assert secret not in {MASTER.key_for(purpose) for purpose in ("wrapping", "digest", "sign_in", "kept_replies")}
    assert read_upstream_key(tmp_path).open(ACME, "c1", sealer_of(MASTER).seal(ACME, "c1", CLEAR)) == CLEAR


def test_a_secret_of_another_platform_stops_the_start(tmp_path: Path) -> None:
    write_upstream_key(tmp_path, MASTER)
    write_upstream_key(tmp_path, MASTER)
    with pytest.raises(SecretFileError, match="does not belong"):
        write_upstream_key(tmp_path, MasterKey(bytes(range(1, 33))))
