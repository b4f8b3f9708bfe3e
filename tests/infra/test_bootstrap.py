"""The first start: it may be repeated, doubled or interrupted anywhere, and the platform is the same."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.catalogue import SEED_MODELS, model_id_of
from domain.ids import PLATFORM
from domain.model import MODEL, DelistModel
from domain.organization import ORGANIZATION
from domain.ports import Dispatch, Receipt
from domain.user import USER
from infra.bootstrap import _CONTEXT, ADMIN, FIRST_ORGANIZATION, bootstrap
from infra.dispatch import Dispatcher
from infra.environment import Environment
from infra.events.codec import Codec
from infra.events.memory import MemoryLog
from infra.master_key import MasterKey
from infra.passwords import Passwords
from infra.postgres import Pool
from infra.secret_files import SecretFileError
from infra.vault import Vault
from infra.vault_tables import create_vault, vault_pool

MODELS = len(SEED_MODELS)
COMMANDS = MODELS + 3


@dataclass
class FirstStart:
    environment: Environment
    log: MemoryLog
    vault: Vault
    passwords: Passwords
    dies_at: int = 0

    async def run(self) -> None:
        """One process's start: a dispatcher of its own, dead after so many commands."""
        dispatcher, left = Dispatcher(self.log, Codec(AGGREGATES), _now, lambda: str(uuid7())), [self.dies_at]

        async def dispatch(*command: Any) -> Receipt[Any]:
            receipt = await dispatcher(*command)
            left[0] -= 1
            if left[0] == 0:
                raise ConnectionError("died")
            return receipt

        door = cast("Dispatch", dispatch)
        await bootstrap(
            self.environment, dispatch=door, load=dispatcher.load, vault=self.vault, passwords=self.passwords
        )

    async def outcome(self) -> tuple[Any, ...]:
        load = Dispatcher(self.log, Codec(AGGREGATES), _now, lambda: str(uuid7())).load
        user = (await load(USER, PLATFORM, ADMIN)).state
        organization = (await load(ORGANIZATION, FIRST_ORGANIZATION, FIRST_ORGANIZATION)).state
        models = [(await load(MODEL, PLATFORM, model_id_of(model.code))).version for model in SEED_MODELS]
        return user, organization, models


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def pool(postgres_url: str, master_key: MasterKey) -> AsyncIterator[Pool]:
    async with vault_pool(postgres_url) as opened:
        await create_vault(opened, master_key)
        yield opened


@pytest.fixture
def master_key() -> MasterKey:
    return MasterKey(os.urandom(32))


@pytest.fixture
def start(pool: Pool, master_key: MasterKey, tmp_path: Path) -> FirstStart:
    environment = Environment(data_dir=tmp_path, secrets_dir=tmp_path / "secrets")
    return FirstStart(environment, MemoryLog(), Vault(pool, master_key), Passwords(pool))


def own_password(start: FirstStart) -> str:
    return (start.environment.secrets_dir / "admin_password").read_text()


async def test_a_fresh_platform_has_models_an_admin_and_an_organisation(start: FirstStart) -> None:
    await start.run()
    user, organization, models = await start.outcome()
    assert (user.role, user.has_password) == ("admin", True)
    assert (organization.name, organization.members) == (start.environment.organization_name, {ADMIN: "owner"})
    assert models == [1] * MODELS
    assert await start.passwords.verify(ADMIN, own_password(start))


async def test_a_generated_password_is_for_its_owner_alone(start: FirstStart) -> None:
    await start.run()
    path = start.environment.secrets_dir / "admin_password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(own_password(start)) >= 24


async def test_running_twice_changes_nothing(start: FirstStart) -> None:
    await start.run()
    head, password = await start.log.head(), own_password(start)
    await start.run()
    assert (await start.log.head(), own_password(start)) == (head, password)


async def test_two_at_once_end_as_one(start: FirstStart) -> None:
    await asyncio.gather(start.run(), start.run())
    user, organization, models = await start.outcome()
    assert (user.has_password, organization.members, models) == (True, {ADMIN: "owner"}, [1] * MODELS)
    assert await start.passwords.verify(ADMIN, own_password(start))


async def test_a_start_that_died_anywhere_is_finished_by_the_next(start: FirstStart) -> None:
    await start.run()
    expected = await start.outcome()
    for dies_at in (1, MODELS, *range(MODELS + 1, COMMANDS + 1)):
        fresh = replace(start, log=MemoryLog(), dies_at=dies_at)
        with pytest.raises(ConnectionError):
            await fresh.run()
        await replace(fresh, dies_at=0).run()
        assert await fresh.outcome() == expected
        assert await fresh.passwords.verify(ADMIN, own_password(start))


async def test_a_given_password_is_taken_and_none_is_written(start: FirstStart, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("the operator's own\n")
    await replace(start, environment=msgspec.structs.replace(start.environment, admin_password_file=given)).run()
    assert await start.passwords.verify(ADMIN, "the operator's own")
    assert not (start.environment.secrets_dir / "admin_password").exists()


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "short",
        *("admin", "password", "changeme", "inventiv", "postgres", "secret", "letmein", "admin123"),
        *("administrator1234", "passwordpassword", "changeme-changeme", "inventiv-agents-2026", "123456789012345"),
        "admin@inventiv.local",
    ],
)
async def test_a_password_file_that_cannot_serve_is_refused(
    start: FirstStart, tmp_path: Path, content: str | None
) -> None:
    given = tmp_path / "given"
    if content is not None:
        given.write_text(content)
    with pytest.raises(SecretFileError, match="given"):
        await replace(start, environment=msgspec.structs.replace(start.environment, admin_password_file=given)).run()


async def test_what_people_changed_stays(start: FirstStart) -> None:
    await start.run()
    dispatcher = Dispatcher(start.log, Codec(AGGREGATES), _now, lambda: str(uuid7()))
    delisted = model_id_of(SEED_MODELS[0].code)
    await dispatcher(MODEL, PLATFORM, delisted, DelistModel(), _CONTEXT)
    await start.passwords.set_password(ADMIN, "changed meanwhile")
    await start.run()
    assert (await dispatcher.load(MODEL, PLATFORM, delisted)).state.listing is None
    assert await start.passwords.verify(ADMIN, "changed meanwhile")
