"""A forgotten person cannot be read in any store, by anybody, with any key; everybody else is as before."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from domain.api_key import API_KEY
from domain.ids import PLATFORM
from domain.organization import ORGANIZATION
from domain.session import SESSION
from domain.user import USER, ForgetUser
from handlers.erase_person_on_user_forgotten import erase_person_on_user_forgotten
from handlers.outcome import Done
from handlers.person_ports import Eraser
from infra import erasure
from infra.audit.checking import check_audit_log
from infra.audit.seals import SealStore
from infra.dispatch import fingerprint_of
from infra.embedded.nats import EmbeddedNats
from infra.events.snapshots import SnapshotStore
from infra.inbox import Inbox, inbox_folder
from infra.replay.rebuild import compare
from infra.replay.verify import verify
from infra.vault import PersonForgottenError
from infra.vault_tables import VaultUnavailableError
from projections.registry import PROJECTIONS
from tests.infra.forgetting import (
    ACME,
    ALICE,
    BOB,
    GLOBEX,
    PERSONAL,
    House,
    data_key_in_files,
    found,
    lives,
    open_house,
    wrapped_key,
)
from tests.infra.replay.stores import watch

EVERYTHING_OF = {person: set(fields) for person, fields in PERSONAL.items()}


@pytest.fixture
async def house(nats_server: EmbeddedNats, postgres_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(nats_server, postgres_url, tmp_path / "data") as house:
        await lives(house)
        yield house


async def forget(house: House) -> None:
    await house.dispatch(USER, PLATFORM, BOB, ForgetUser())
    assert isinstance(await house.tell(erase_person_on_user_forgotten, USER, PLATFORM, BOB), Done)


async def test_nothing_of_a_forgotten_person_can_be_read_anywhere(house: House) -> None:
    assert await found(house, BOB) == EVERYTHING_OF[BOB], "the search finds all of it before"
    snapshot = await SnapshotStore(house.nc).load(USER.aggregate, BOB, schema_fingerprint=fingerprint_of(USER))
    assert snapshot is not None, "there is one to search"
    await house.seal_audit_log()
    wrapped = await wrapped_key(house.pool, BOB)
    await forget(house)
    assert await found(house, BOB) == set()
    assert await found(house, ALICE) == EVERYTHING_OF[ALICE]
    assert not await data_key_in_files(house.environment.postgres_url, wrapped)
    assert await house.vault.erased_at(BOB) is not None
    await the_log_is_whole(house)
    await read_models_are_what_the_log_says(house)


async def the_log_is_whole(house: House) -> None:
    await house.seal_audit_log()
    report = await verify(house.nc, house.environment.postgres_url, full=True, watch=watch())
    assert not report.damaged, report.findings
    seals = SealStore(house.nc)
    keys = {key.key_id: bytes.fromhex(key.public_key) for key in await seals.keys()}
    stored = await seals.page()
    assert len(stored) == 2

    async def oldest_first() -> AsyncIterator[object]:
        for seal in stored:
            yield seal

    async with house.read("audit_log", "audit_tree") as connection:
        checked = await check_audit_log(connection, oldest_first(), keys)  # type: ignore[arg-type] # they are seals
    assert checked is not None


async def read_models_are_what_the_log_says(house: House) -> None:
    """All folds work without the key, and give what the living read models have."""
    for projection in PROJECTIONS:
        if projection.stream == "EVENTS":
            rebuilt = await compare(projection, house.source, house.environment.postgres_url)
            assert not rebuilt.differences, projection.name


async def test_what_the_person_had_has_ended_and_others_keep_theirs(house: House) -> None:
    await forget(house)
    load = house.doors.load
    assert (await load(SESSION, PLATFORM, f"session-of-{BOB}")).state.revoked
    assert not (await load(SESSION, PLATFORM, f"session-of-{ALICE}")).state.revoked
    assert (await load(API_KEY, ACME, f"key-of-{BOB}")).state.revoked
    assert not (await load(API_KEY, ACME, f"key-of-{ALICE}")).state.revoked
    assert (await load(ORGANIZATION, ACME, ACME)).state.members.keys() == {"owner", ALICE}
    waiting = (await load(ORGANIZATION, GLOBEX, GLOBEX)).state.invitations.values()
    assert [one.email_digest for one in waiting] == [house.vault.digest("email", PERSONAL[ALICE]["email"])]
    assert not await house.passwords.verify(BOB, f"the password of {PERSONAL[BOB]['username']}")
    assert await house.passwords.verify(ALICE, f"the password of {PERSONAL[ALICE]['username']}")
    inbox = Inbox(inbox_folder(house.environment.data_dir))
    assert {mail.to for mail in inbox.mails()} == {PERSONAL[ALICE]["email"]}
    for table in ("sign_in_tallies", "session_uses"):
        async with house.pool.connection() as connection:
            rows = await (await connection.execute(f"SELECT user_id FROM vault.{table}")).fetchall()
        assert rows == [(ALICE,)], table


async def test_nothing_can_be_sealed_for_the_person_again(house: House) -> None:
    await forget(house)
    with pytest.raises(PersonForgottenError):
        await house.vault.seal(BOB, "email", "again")


async def test_forgetting_twice_is_forgetting_once(house: House) -> None:
    await forget(house)
    erased_at = await house.vault.erased_at(BOB)
    head = await house.source.head()
    assert isinstance(await house.tell(erase_person_on_user_forgotten, USER, PLATFORM, BOB), Done)
    assert await house.source.head() == head, "no further event"
    assert await house.vault.erased_at(BOB) == erased_at


class Leaving:
    """An eraser that leaves out one step."""

    def __init__(self, eraser: Eraser, step: str) -> None:
        self._eraser = eraser
        self._step = step

    def __getattr__(self, name: str) -> object:
        return _nothing if name == self._step else getattr(self._eraser, name)


async def _nothing(*_arguments: object) -> None:
    return


LEFT = {
    "destroy_keys": EVERYTHING_OF[BOB],
    "forget_replies": {"email", "first_name"},
    "delete_mails": {"email"},
}


@pytest.mark.parametrize("step", LEFT)
async def test_control_without_one_of_its_steps_the_search_finds_the_person(house: House, step: str) -> None:
    house.doors = replace(house.doors, eraser=Leaving(house.doors.eraser, step))  # type: ignore[arg-type] # by __getattr__
    await forget(house)
    assert await found(house, BOB) == LEFT[step]


async def test_control_without_rewriting_the_tables_the_key_is_still_in_their_files(house: House) -> None:
    wrapped = await wrapped_key(house.pool, BOB)
    house.doors = replace(house.doors, eraser=Leaving(house.doors.eraser, "scrub"))  # type: ignore[arg-type] # as above
    await forget(house)
    assert await data_key_in_files(house.environment.postgres_url, wrapped)


async def test_an_old_reader_holds_up_the_end_of_an_erasure_and_not_its_effect(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could still see the deleted rows keeps them in the file; so it is not called erased before."""
    monkeypatch.setattr(erasure, "READERS_WAIT_S", 0.3)
    wrapped = await wrapped_key(house.pool, BOB)
    async with await psycopg.AsyncConnection.connect(house.environment.postgres_url) as reader:
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT count(*) FROM vault.passwords")
        await house.dispatch(USER, PLATFORM, BOB, ForgetUser())
        with pytest.raises(VaultUnavailableError, match="could still read"):
            await house.tell(erase_person_on_user_forgotten, USER, PLATFORM, BOB)
        assert await house.vault.erased_at(BOB) is None
        assert await found(house, BOB) == set()
    assert isinstance(await house.tell(erase_person_on_user_forgotten, USER, PLATFORM, BOB), Done)
    assert await house.vault.erased_at(BOB) is not None
    assert not await data_key_in_files(house.environment.postgres_url, wrapped)
