"""A law for any order of events: who was forgotten is never read again, whatever is sealed, rotated or asked before or
after; who was not, always is."""

import asyncio
import os
from pathlib import Path
from typing import Literal
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.values import Sealed
from infra.master_key import MasterKey
from infra.rotation import begin, remove_unused, rewrap
from infra.vault import PersonForgottenError, Vault
from infra.vault_tables import create_vault, vault_pool
from infra.wrapping import KeyRing

EXAMPLES = 40
PEOPLE = ("alice", "bob", "carol")
Step = tuple[Literal["seal", "forget"], str] | tuple[Literal["rotate", "restart"], None]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("seal"), st.sampled_from(PEOPLE)),
        st.tuples(st.just("forget"), st.sampled_from(PEOPLE)),
        st.tuples(st.sampled_from(["rotate", "restart"]), st.none()),
    ),
    max_size=14,
)


class Life:
    """One example: a vault as several processes use it, and what it owes us."""

    def __init__(self, master_key: MasterKey, folder: Path) -> None:
        self.master_key = master_key
        self.folder = folder
        self.names = {person: f"{person}-{uuid4()}" for person in PEOPLE}
        self.sealed: list[tuple[str, Sealed]] = []
        self.forgotten: set[str] = set()

    async def lead(self, postgres_url: str, steps: list[Step]) -> None:
        async with vault_pool(postgres_url) as pool:
            await create_vault(pool, self.master_key)
            keys = KeyRing(self.master_key, self.folder)
            vault = Vault(pool, self.master_key, keys)
            for what, person in steps:
                if what == "seal":
                    await self._seal(vault, str(person))
                elif what == "forget":
                    await vault.forget(self.names[str(person)])
                    self.forgotten.add(str(person))
                elif what == "rotate":
                    await rewrap(pool, keys, await begin(pool, keys))
                    await remove_unused(pool, keys)
                else:
                    keys = KeyRing(self.master_key, self.folder)
                    vault = Vault(pool, self.master_key, keys)
                await self._holds(vault)

    async def _seal(self, vault: Vault, person: str) -> None:
        try:
            self.sealed.append((person, await vault.seal(self.names[person], "email", person)))
        except PersonForgottenError:
            assert person in self.forgotten
        else:
            assert person not in self.forgotten

    async def _holds(self, vault: Vault) -> None:
        opened = await vault.open_all([one for _, one in self.sealed])
        assert opened == [None if person in self.forgotten else person for person, _ in self.sealed]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_order_of_events_lets_a_forgotten_person_be_read(
    steps: list[Step], postgres_url: str, tmp_path: Path
) -> None:
    """The vault lives on from example to example; each has people of its own."""
    key_file = tmp_path / "master_key"
    if not key_file.exists():
        key_file.write_bytes(os.urandom(32))
    asyncio.run(Life(MasterKey(key_file.read_bytes()), tmp_path).lead(postgres_url, steps))
