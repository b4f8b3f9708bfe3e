"""The routing table as laws: events in, who may call and who answers out."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.api_key import ApiKeyRenamed, ApiKeyRevoked, key_hash
from domain.deployment import DeploymentRefused, DeploymentStopped
from domain.instance_events import (
    InstanceArchived,
    InstanceReady,
    InstanceTerminated,
    TerminationRequested,
    VolumeDeleted,
    VolumeResized,
    WorkerLost,
    WorkerRegistered,
)
from projections.routing_table import RoutingTable, encode_snapshot, table_from_snapshot
from tests.examples import ACME, EVENT_EXAMPLES, example
from tests.gateway.routing import (
    CLEAR_KEY,
    GLOBEX,
    MODEL,
    Said,
    deployed,
    draining,
    entries,
    key,
    ready,
    registered,
    routing,
)


def statuses(table: RoutingTable, organization: str = ACME) -> dict[str, str]:
    return {worker.instance_id: worker.status for worker in table.candidates(organization, MODEL)}


def test_an_issued_key_is_found_by_its_hash() -> None:
    found = routing(key()).find_key(key_hash(CLEAR_KEY))
    assert found is not None
    assert (found.id, found.organization_id, found.revoked) == ("k1", ACME, False)


def test_a_renamed_key_stays_the_same_key() -> None:
    table = routing(key(), [(ACME, "k1", ApiKeyRenamed(name="other"))])
    assert table.find_key(key_hash(CLEAR_KEY)) is not None


def test_a_revoked_key_is_known_as_revoked() -> None:
    found = routing(key(), [(ACME, "k1", ApiKeyRevoked())]).find_key(key_hash(CLEAR_KEY))
    assert found is not None
    assert found.revoked


def test_a_worker_is_a_candidate_once_it_registered() -> None:
    assert statuses(routing(registered("i1")[:1])) == {}
    assert list(statuses(routing(registered("i1")))) == ["i1"]


def test_a_worker_follows_its_instances_status() -> None:
    assert statuses(routing(ready("i1"))) == {"i1": "ready"}
    assert statuses(routing(ready("i1"), draining("i1"))) == {"i1": "draining"}
    assert statuses(routing(ready("i1"), [(ACME, "i1", example(WorkerLost))])) == {"i1": "unavailable"}


def test_a_terminated_instance_leaves_nothing_behind() -> None:
    ended: list[Said] = [
        (ACME, "i1", example(TerminationRequested)),
        (ACME, "i1", example(InstanceTerminated)),
        (ACME, "i1", InstanceArchived()),
    ]
    table = routing(ready("i1"), ended)
    assert (statuses(table), list(table.rows()), table.knows(ACME, MODEL)) == ({}, [], False)


def test_a_worker_that_registers_again_is_reached_at_its_new_address() -> None:
    moved = msgspec.structs.replace(example(WorkerRegistered), engine_url="http://127.9.9.9:8000")
    table = routing(ready("i1"), [(ACME, "i1", moved)])
    assert [worker.engine_url for worker in table.candidates(ACME, MODEL)] == ["http://127.9.9.9:8000"]


def test_the_neighbours_workers_and_models_are_invisible() -> None:
    table = routing(ready("i1", organization=GLOBEX), deployed(organization=GLOBEX))
    assert statuses(table) == {}
    assert not table.knows(ACME, MODEL)
    assert list(table.live_models(ACME)) == []


def test_a_model_is_known_while_a_deployment_wants_it() -> None:
    assert routing(deployed()).knows(ACME, MODEL)
    assert not routing(deployed(), [(ACME, "d1", example(DeploymentRefused))]).knows(ACME, MODEL)
    assert not routing(deployed(), [(ACME, "d1", DeploymentStopped())]).knows(ACME, MODEL)


def test_a_model_stays_known_while_one_of_two_deployments_stands() -> None:
    table = routing(deployed(), deployed(deployment_id="d2"), [(ACME, "d1", DeploymentStopped())])
    assert table.knows(ACME, MODEL)


def test_only_models_with_a_ready_worker_are_live() -> None:
    table = routing(ready("i1"), ready("i2"), registered("i3", model="other/model"), deployed("third/model"))
    assert [model.code for model in table.live_models(ACME)] == [MODEL]


def test_weight_is_the_number_of_gpus_and_at_least_one() -> None:
    table = routing(ready("i1", gpus=8), ready("i2", gpus=0))
    assert {worker.instance_id: worker.weight for worker in table.candidates(ACME, MODEL)} == {"i1": 8, "i2": 1}


def test_an_event_seen_twice_changes_nothing() -> None:
    told = entries([*ready("i1"), *key()])
    table = RoutingTable()
    for entry in [*told, *told]:
        table.apply(entry)
    assert table.snapshot() == routing(ready("i1"), key()).snapshot()


IN_ANY_ORDER = [event for event in EVENT_EXAMPLES if not isinstance(event, VolumeResized | VolumeDeleted)]
"""A volume's later events need its discovery; no history can hold them without."""
ANYTHING = st.lists(
    st.tuples(st.sampled_from([ACME, GLOBEX]), st.sampled_from(["a", "b"]), st.sampled_from(IN_ANY_ORDER)),
    max_size=30,
)


def same_organization(said: list[Said]) -> list[Said]:
    """An aggregate's organisation never changes, so the id decides it here."""
    return [(ACME if row_id == "a" else GLOBEX, row_id, event) for _, row_id, event in said]


@given(said=ANYTHING, cut=st.integers(min_value=0, max_value=30))
def test_a_table_from_a_snapshot_goes_on_as_if_it_had_never_stopped(said: list[Said], cut: int) -> None:
    told = entries(same_organization(said))
    whole = RoutingTable()
    for entry in told:
        whole.apply(entry)
    first = RoutingTable()
    for entry in told[:cut]:
        first.apply(entry)
    resumed = table_from_snapshot(encode_snapshot(first.snapshot()))
    for entry in told:
        resumed.apply(entry)
    assert sorted(resumed.rows(), key=repr) == sorted(whole.rows(), key=repr)
    for organization in (ACME, GLOBEX):
        assert set(resumed.candidates(organization, MODEL)) == set(whole.candidates(organization, MODEL))
        assert resumed.knows(organization, MODEL) == whole.knows(organization, MODEL)


@given(said=ANYTHING)
def test_the_indices_say_what_the_rows_say(said: list[Said]) -> None:
    table = RoutingTable()
    for entry in entries(same_organization(said)):
        table.apply(entry)
    fresh = RoutingTable(table.rows(), position=table.position)
    for organization in (ACME, GLOBEX):
        assert set(table.candidates(organization, MODEL)) == set(fresh.candidates(organization, MODEL))
        assert table.knows(organization, MODEL) == fresh.knows(organization, MODEL)
        assert table.live_models(organization) == fresh.live_models(organization)


def test_a_snapshot_with_other_fields_is_refused() -> None:
    snapshot = msgspec.structs.replace(routing(ready("i1")).snapshot(), schema="0123")
    with pytest.raises(ValueError, match="other fields"):
        table_from_snapshot(msgspec.json.encode(snapshot))


def test_a_damaged_snapshot_is_refused() -> None:
    with pytest.raises(ValueError, match="truncated"):
        table_from_snapshot(encode_snapshot(routing(ready("i1")).snapshot())[:-20])


def test_an_instance_that_becomes_ready_again_takes_requests_again() -> None:
    table = routing(ready("i1"), [(ACME, "i1", example(WorkerLost)), (ACME, "i1", InstanceReady())])
    assert statuses(table) == {"i1": "ready"}
