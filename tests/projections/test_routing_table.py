"""The routing table as laws: events in, who may call and who answers out."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.api_key import ApiKeyRenamed, ApiKeyRevoked, ApiKeyRotated, ApiKeyScopeChanged, key_hash
from domain.catalogue import model_id_of
from domain.deployment import DeploymentRefused, DeploymentStopped
from domain.ids import PLATFORM, OfferingId, OrganizationId
from domain.instance_events import (
    InstanceActivated,
    InstanceArchived,
    InstanceDeactivated,
    InstanceReady,
    InstanceTerminated,
    ModelLoaded,
    TerminationRequested,
    VolumeDeleted,
    VolumeResized,
    WorkerLost,
    WorkerRegistered,
)
from domain.key_scope import KeyScope
from domain.limits import UNLIMITED, OrganizationLimits
from domain.offering import OfferingRevised, OfferingWithdrawn, Terms, offering_id_of
from domain.organization import (
    MemberAdded,
    MemberRemoved,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationLimitsChanged,
    OrganizationPlanChanged,
    OrganizationRenamed,
)
from domain.setting import SettingSet, SettingUnset, settings_id_of
from domain.share import SharePaused, ShareRevoked
from domain.upstream import UpstreamActivated, UpstreamKeyReplaced
from domain.user import UserForgotten
from domain.values import Digest
from projections.routing_rows import KeyRow
from projections.routing_snapshot import decode_snapshot, encode_snapshot
from projections.routing_table import RoutingSnapshot, RoutingTable, table_from
from tests.examples import ACME, ALICE, BOB, EVENT_EXAMPLES, GLOBEX, example
from tests.gateway.routing import (
    CLEAR_KEY,
    MODEL,
    STRANGERS_KEY,
    Said,
    connected,
    deployed,
    draining,
    entries,
    founded,
    key,
    offered,
    ready,
    registered,
    routing,
    scoped,
    shared,
)
from tests.given import NOON


def statuses(table: RoutingTable, organization: str = ACME) -> dict[str, str]:
    return {worker.instance_id: worker.status for worker in table.candidates(organization, MODEL)}


def test_an_issued_key_is_found_by_its_hash() -> None:
    found = known(routing(key()))
    assert (found.id, found.organization_id, found.state.revoked) == ("k1", ACME, False)


def test_a_renamed_key_stays_the_same_key() -> None:
    table = routing(key(), [(ACME, "k1", ApiKeyRenamed(name="other"))])
    assert table.find_key(key_hash(CLEAR_KEY)) is not None


def test_a_revoked_key_is_known_as_revoked() -> None:
    assert known(routing(key(), [(ACME, "k1", ApiKeyRevoked())])).state.revoked


def test_a_rotated_key_is_found_by_both_its_secrets_until_the_next_rotation() -> None:
    once: list[Said] = [(ACME, "k1", rotated(STRANGERS_KEY))]
    table = routing(key(), once)
    assert known(table, CLEAR_KEY) is known(table, STRANGERS_KEY)
    assert known(table).state.previous_valid_until == NOON + timedelta(hours=1)
    twice = routing(key(), once, [(ACME, "k1", rotated("third"))])
    assert twice.find_key(key_hash(CLEAR_KEY)) is None
    assert known(twice, STRANGERS_KEY) is known(twice, "third")


def test_a_key_carries_its_scope_ready_to_be_asked() -> None:
    table = routing(scoped(models=("a",)))
    found = table.find_key(key_hash(CLEAR_KEY))
    assert found is not None
    assert found.scope.models == {"a"}
    for entry in entries([(ACME, "k1", ApiKeyScopeChanged(scope=KeyScope(models=("b",))))], after=table.position):
        table.apply(entry)
    found = table.find_key(key_hash(CLEAR_KEY))
    assert found is not None
    assert found.scope.models == {"b"}


LEFT: Said = (ACME, ACME, MemberRemoved(user_id=ALICE))
FORGOTTEN: Said = ("_", ALICE, UserForgotten())
DELETED: Said = (ACME, ACME, OrganizationDeleted())


@pytest.mark.parametrize(
    ("owner", "then", "orphaned"),
    [
        (ALICE, [], False),
        (ALICE, [(ACME, ACME, MemberRemoved(user_id=BOB))], False),
        (ALICE, [LEFT], True),
        (ALICE, [FORGOTTEN], True),
        (ALICE, [DELETED], True),
        (ALICE, [LEFT, (ACME, ACME, MemberAdded(user_id=ALICE, role="user"))], False),
        (ALICE, [DELETED, (ACME, ACME, MemberAdded(user_id=ALICE, role="user"))], True),
        (None, [], False),
        (None, [LEFT], False),
        (None, [FORGOTTEN], False),
        (None, [DELETED], True),
    ],
)
def test_a_key_lives_as_long_as_somebody_stands_behind_it(owner: Any, then: list[Said], orphaned: bool) -> None:
    table = routing(key(owner=owner), then)
    assert table.is_orphaned(known(table)) is orphaned


def test_a_key_of_an_organisation_that_nobody_founded_is_nobodys() -> None:
    table = routing(key()[-1:])
    assert table.is_orphaned(known(table))


def test_an_offering_is_found_by_the_slug_of_the_moment() -> None:
    renamed: list[Said] = [(ACME, ACME, OrganizationRenamed(name="New", slug="new"))]
    table = routing(founded(), offered())
    assert offering_id(table, "acme", "chat") == offering_id_of(OrganizationId(ACME), "chat")
    assert (offering_id(table, "acme", "other"), offering_id(table, "globex", "chat")) == ("", "")
    table = routing(founded(), offered(), renamed)
    assert (offering_id(table, "acme", "chat") == "", offering_id(table, "new", "chat") == "") == (True, False)


def test_a_slug_that_changed_hands_names_the_new_ones_offerings() -> None:
    moved: list[Said] = [(ACME, ACME, OrganizationRenamed(name="New", slug="new"))]
    table = routing(founded(), offered(), moved, founded(GLOBEX, "acme"), offered(organization=GLOBEX))
    assert offering_id(table, "acme", "chat") == offering_id_of(OrganizationId(GLOBEX), "chat")
    assert offering_id(table, "new", "chat") == offering_id_of(OrganizationId(ACME), "chat")


def test_the_offerings_of_a_deleted_organisation_are_gone() -> None:
    table = routing(founded(), offered(), [DELETED])
    assert offering_id(table, "acme", "chat") == ""
    assert list(table.list_offerings()) == []


def test_a_withdrawn_offering_is_gone_until_it_is_published_again() -> None:
    row_id = offering_id_of(OrganizationId(ACME), "chat")
    withdrawn: list[Said] = [(ACME, row_id, OfferingWithdrawn()), (ACME, row_id, example(OfferingRevised))]
    assert offering_id(routing(founded(), offered(), withdrawn), "acme", "chat") == ""
    assert offering_id(routing(founded(), offered(), withdrawn, offered()), "acme", "chat") == row_id


def test_a_revised_offering_has_its_new_terms() -> None:
    terms = Terms(name="Chat", visibility="public", access_policy="trial", trial_days=7)
    row_id = offering_id_of(OrganizationId(ACME), "chat")
    found = routing(founded(), offered(), [(ACME, row_id, OfferingRevised(terms=terms))]).find_offering("acme", "chat")
    assert found is not None
    assert found.state.terms == terms


def test_a_share_is_found_by_offering_and_consumer() -> None:
    table = routing(founded(), offered(), shared(GLOBEX))
    row_id = offering_id_of(OrganizationId(ACME), "chat")
    found = table.find_share(row_id, OrganizationId(GLOBEX))
    assert found is not None
    assert found.state.status == "active"
    assert table.find_share(row_id, OrganizationId(ACME)) is None
    for event, status in ((SharePaused(), "paused"), (ShareRevoked(), "revoked")):
        later = routing(founded(), offered(), shared(GLOBEX), [(ACME, found.id, event)])
        after = later.find_share(row_id, OrganizationId(GLOBEX))
        assert after is not None
        assert after.state.status == status


def test_an_organisations_limits_are_the_newest_and_others_have_none() -> None:
    limits = OrganizationLimits(requests_per_minute=60)
    limited: list[Said] = [(ACME, ACME, OrganizationLimitsChanged(limits=limits))]
    table = routing(founded(ACME), founded(GLOBEX), limited)
    assert (table.limits_of(ACME), table.limits_of(GLOBEX)) == (limits, UNLIMITED)
    assert table.limits_of(OrganizationId("nobody")) is UNLIMITED


def test_it_knows_whether_anybody_has_a_limit_of_spending() -> None:
    def of_all(eur_micros: int | None) -> list[Said]:
        limits = OrganizationLimits(spend_limit_eur_micros_per_month=eur_micros)
        return [(GLOBEX, GLOBEX, OrganizationLimitsChanged(limits=limits))]

    none: list[Said] = [(ACME, "k1", ApiKeyScopeChanged(scope=KeyScope()))]
    spender = scoped(spend_limit_eur_micros=5)
    assert not routing(founded(GLOBEX), key()).limits_spending
    assert routing(founded(GLOBEX), spender).limits_spending
    assert routing(founded(GLOBEX), key(), of_all(7)).limits_spending
    assert routing(founded(GLOBEX), spender, of_all(7), of_all(8), none).limits_spending
    assert not routing(founded(GLOBEX), spender, of_all(7), of_all(None), none).limits_spending


def test_the_plan_is_the_organisations_own() -> None:
    subscribed: list[Said] = [(ACME, ACME, OrganizationPlanChanged(plan="subscriber"))]
    table = routing(founded(), founded(GLOBEX), subscribed)
    assert [table.plan_of(OrganizationId(one)) for one in (ACME, GLOBEX, "nobody")] == ["subscriber", "free", "free"]


def test_an_instance_without_both_flags_takes_no_requests_and_says_which_is_missing() -> None:
    table = routing(ready("i1"), [(ACME, "i1", InstanceDeactivated(flag="economic"))])
    assert [worker.takes_requests for worker in table.candidates(ACME, MODEL)] == [False]
    assert (table.missing_flags(ACME, MODEL), table.live_since(ACME, MODEL)) == (("economic",), None)
    again = routing(ready("i1"), [(ACME, "i1", InstanceDeactivated(flag="economic"))], ACTIVATED)
    assert [worker.takes_requests for worker in again.candidates(ACME, MODEL)] == [True]
    assert again.missing_flags(ACME, MODEL) == ()


ACTIVATED: list[Said] = [(ACME, "i1", InstanceActivated(flag="economic"))]


def stored(snapshot: RoutingSnapshot) -> bytes:
    return b"".join(encode_snapshot(snapshot))


def known(table: RoutingTable, clear: str = CLEAR_KEY) -> KeyRow:
    found = table.find_key(key_hash(clear))
    assert found is not None
    return found.row


def rotated(clear: str) -> ApiKeyRotated:
    return msgspec.structs.replace(example(ApiKeyRotated), key_sha256=key_hash(clear))


def offering_id(table: RoutingTable, slug: str, code: str) -> str:
    found = table.find_offering(slug, code)
    return found.id if found else ""


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


def test_those_that_take_requests_are_the_same_tuple_until_one_of_them_changes() -> None:
    told = entries([*ready("i1"), *ready("i2"), *ready("i3", model="other/model"), *draining("i1")])
    table = RoutingTable()
    for entry in told[:6]:
        table.apply(entry)
    before = table.ready(ACME, MODEL)
    assert [worker.instance_id for worker in before] == ["i1", "i2"]
    for entry in told[6:9]:
        table.apply(entry)
    assert table.ready(ACME, MODEL) is before, "another model's workers are no reason"
    table.apply(told[9])
    assert [worker.instance_id for worker in table.ready(ACME, MODEL)] == ["i2"]


def test_names_that_somebody_makes_up_leave_nothing_behind() -> None:
    table = routing(ready("i1"))
    for number in range(100):
        assert table.ready(ACME, f"made up {number}") == ()
        assert not table.knows(ACME, f"made up {number}")
    assert len(table._ready) == 0


def test_the_neighbours_workers_and_models_are_invisible() -> None:
    table = routing(ready("i1", organization=GLOBEX), deployed(organization=GLOBEX))
    assert statuses(table) == {}
    assert not table.knows(ACME, MODEL)
    assert (list(table.models_of(ACME)), table.live_since(ACME, MODEL)) == ([], None)


def test_a_model_is_known_while_a_deployment_wants_it() -> None:
    assert routing(deployed()).knows(ACME, MODEL)
    assert not routing(deployed(), [(ACME, "d1", example(DeploymentRefused))]).knows(ACME, MODEL)
    assert not routing(deployed(), [(ACME, "d1", DeploymentStopped())]).knows(ACME, MODEL)


def test_a_model_stays_known_while_one_of_two_deployments_stands() -> None:
    table = routing(deployed(), deployed(deployment_id="d2"), [(ACME, "d1", DeploymentStopped())])
    assert table.knows(ACME, MODEL)


def test_only_models_with_a_ready_worker_are_live() -> None:
    table = routing(ready("i1"), ready("i2"), registered("i3", model="other/model"), deployed("third/model"))
    assert set(table.models_of(ACME)) == {MODEL, "other/model"}
    assert table.live_since(ACME, MODEL) == NOON + timedelta(seconds=1)
    assert table.live_since(ACME, "other/model") is None


def test_weight_is_the_number_of_gpus_and_at_least_one() -> None:
    table = routing(ready("i1", gpus=8), ready("i2", gpus=0))
    assert {worker.instance_id: worker.weight for worker in table.candidates(ACME, MODEL)} == {"i1": 8, "i2": 1}


def test_a_worker_offers_what_its_engine_said_and_nothing_is_known_before() -> None:
    told = ready("i1")
    (silent,) = routing(told).candidates(ACME, MODEL)
    assert (silent.endpoints, silent.context_tokens) == (None, 0)
    loaded = ModelLoaded(endpoints=("chat", "responses"), context_tokens=4096)
    (worker,) = routing(told, [(ACME, "i1", loaded)]).candidates(ACME, MODEL)
    assert (worker.endpoints, worker.context_tokens) == (frozenset({"chat", "responses"}), 4096)


def test_an_event_seen_twice_changes_nothing() -> None:
    told = entries([*ready("i1"), *key()])
    table = RoutingTable()
    for entry in [*told, *told]:
        table.apply(entry)
    assert table.snapshot(NOON) == routing(ready("i1"), key()).snapshot(NOON)


IN_ANY_ORDER = [
    event
    for event in EVENT_EXAMPLES
    if not isinstance(event, VolumeResized | VolumeDeleted | OrganizationCreated | OrganizationRenamed)
]
"""A volume's later events need its discovery; no history can hold them without. Slugs: see same_organization."""
SLUGGED = [OrganizationCreated(name="x", slug=slug) for slug in ("one", "two")] + [
    OrganizationRenamed(name="x", slug=slug) for slug in ("one", "two")
]
ANYTHING = st.lists(
    st.tuples(st.sampled_from([ACME, GLOBEX]), st.sampled_from(["a", "b"]), st.sampled_from([*IN_ANY_ORDER, *SLUGGED])),
    max_size=40,
)


def same_organization(said: list[Said]) -> list[Said]:
    """An aggregate's organisation never changes, so the id decides it here; and no two have the same slug."""
    return [(ACME if row_id == "a" else GLOBEX, row_id, _slug_of_its_own(row_id, event)) for _, row_id, event in said]


def _slug_of_its_own(row_id: str, event: Any) -> Any:
    if isinstance(event, OrganizationCreated | OrganizationRenamed):
        return msgspec.structs.replace(event, slug=f"{row_id}-{event.slug}")
    return event


def answers(table: RoutingTable) -> dict[str, Any]:
    """Everything that a gateway asks a table."""
    secrets = [event.key_sha256 for event in EVENT_EXAMPLES if hasattr(event, "key_sha256")]
    keys = {secret: found for secret in secrets if (found := table.find_key(secret)) is not None}
    return {
        "keys": {secret: (found.row, found.scope, table.is_orphaned(found.row)) for secret, found in keys.items()},
        "offerings": sorted(((slug, row.id) for slug, row in table.list_offerings())),
        "by name": [offering_id(table, f"{row}-{slug}", "chat") for row in "ab" for slug in ("one", "two")],
        "plans": [table.plan_of(OrganizationId(one)) for one in "ab"],
        "shares": [table.find_share(OfferingId(one), OrganizationId(GLOBEX)) for one in "ab"],
        "workers": [set(table.candidates(one, MODEL)) for one in (ACME, GLOBEX)],
        "ready": [set(table.ready(one, MODEL)) for one in (ACME, GLOBEX)],
        "known": [table.knows(one, MODEL) for one in (ACME, GLOBEX)],
        "ids": [table.model_ids.find(one, model_id_of(MODEL)) for one in (ACME, GLOBEX)],
        "missing": [table.missing_flags(one, MODEL) for one in (ACME, GLOBEX)],
        "live": [(set(table.models_of(one)), table.live_since(one, MODEL)) for one in (ACME, GLOBEX)],
    }


@given(said=ANYTHING, cut=st.integers(min_value=0, max_value=40))
def test_a_table_from_a_snapshot_goes_on_as_if_it_had_never_stopped(said: list[Said], cut: int) -> None:
    told = entries(same_organization(said))
    whole = RoutingTable()
    for entry in told:
        whole.apply(entry)
    first = RoutingTable()
    for entry in told[:cut]:
        first.apply(entry)
    resumed = table_from(decode_snapshot(stored(first.snapshot(NOON))))
    for entry in told:
        resumed.apply(entry)
    assert sorted(resumed.rows(), key=repr) == sorted(whole.rows(), key=repr)
    assert answers(resumed) == answers(whole)


@given(said=ANYTHING)
def test_the_indices_say_what_the_rows_say(said: list[Said]) -> None:
    table = RoutingTable()
    for entry in entries(same_organization(said)):
        table.apply(entry)
        assert set(table.ready(ACME, MODEL)) <= set(table.candidates(ACME, MODEL)), "asked meanwhile, for it remembers"
    assert answers(table) == answers(RoutingTable(table.rows(), position=table.position))


def test_nothing_is_remembered_that_no_request_asks_for() -> None:
    table = routing(key(name="Alice's laptop"), [(ACME, ACME, event) for event in EVENT_EXAMPLES if _invites(event)])
    assert b"laptop" not in stored(table.snapshot(NOON))
    assert b"sealed" not in stored(table.snapshot(NOON))


def _invites(event: object) -> bool:
    return type(event).__name__ == "MemberInvited"


def test_a_snapshot_with_other_fields_is_refused() -> None:
    data = stored(routing(ready("i1")).snapshot(NOON))
    assert decode_snapshot(data).position == 3
    head, _, rows = data.partition(b"\n")
    other = msgspec.json.encode({**msgspec.json.decode(head), "schema": "0123"})
    with pytest.raises(ValueError, match="other fields"):
        decode_snapshot(other + b"\n" + rows)


def test_a_damaged_snapshot_is_refused() -> None:
    data = stored(routing(ready("i1"), key()).snapshot(NOON))
    for length in (0, 20, len(data) - 20, data.rindex(b"\n", 0, -1) + 1):
        with pytest.raises(ValueError, match="truncated"):
            decode_snapshot(data[:length])


def test_an_instance_that_becomes_ready_again_takes_requests_again() -> None:
    table = routing(ready("i1"), [(ACME, "i1", example(WorkerLost)), (ACME, "i1", InstanceReady())])
    assert statuses(table) == {"i1": "ready"}


def test_the_platforms_settings_are_known_and_an_organisations_are_not() -> None:
    key = "OPENAI_WORKER_STALE_SECONDS"
    mine = [("_", settings_id_of(PLATFORM), SettingSet(key=key, value=60))]
    theirs = [(ACME, settings_id_of(ACME, "local"), example(SettingSet))]
    assert routing(mine, theirs).platform_settings == {key: 60}
    assert routing(theirs).platform_settings == {}
    assert routing([*mine, ("_", settings_id_of(PLATFORM), SettingUnset(key=key))]).platform_settings == {}


def test_an_upstream_answers_at_once_and_for_as_long_as_it_stands() -> None:
    table = routing(connected())
    [worker] = table.candidates(ACME, MODEL)
    assert (worker.instance_id, worker.deployment_id, worker.weight) == ("u1", "u1", 1)
    assert (worker.foreign, worker.takes_requests, worker.endpoints) == (True, True, None)
    assert (worker.engine_url, worker.engine_model) == ("https://api.example.com/v1", "large")
    assert (table.knows(ACME, MODEL), list(table.models_of(ACME)), table.has_instance("u1")) == (True, [MODEL], True)
    assert table.live_since(ACME, MODEL) == NOON + timedelta(seconds=1)
    over = routing(connected(), [(ACME, "u1", DeploymentStopped())])
    assert (over.candidates(ACME, MODEL), over.knows(ACME, MODEL), over.has_instance("u1")) == ((), False, False)
    assert over.credentials == {}


def test_machines_and_an_upstream_may_answer_for_one_model() -> None:
    table = routing(deployed(), ready("i1"), connected())
    assert {worker.instance_id: worker.foreign for worker in table.candidates(ACME, MODEL)} == {"i1": False, "u1": True}


def test_an_upstream_without_a_flag_waits_for_it() -> None:
    table = routing(connected(activated=("technical",)))
    [worker] = table.candidates(ACME, MODEL)
    assert (worker.takes_requests, table.missing_flags(ACME, MODEL)) == (False, ("economic",))
    again = routing(connected(activated=("technical",)), [(ACME, "u1", UpstreamActivated(flag="economic"))])
    assert [worker.takes_requests for worker in again.candidates(ACME, MODEL)] == [True]
    assert again.missing_flags(ACME, MODEL) == ()


def test_a_replaced_key_is_another_credential() -> None:
    first, second = (
        routing(connected()),
        routing(connected(), [(ACME, "u1", UpstreamKeyReplaced(key_digest=Digest("k2")))]),
    )
    ids = [table.candidates(ACME, MODEL)[0].credential_id for table in (first, second)]
    assert len(set(ids)) == 2
    assert [dict(table.credentials) for table in (first, second)] == [{ids[0]: ACME}, {ids[1]: ACME}]


def test_an_upstream_that_needs_no_key_names_none() -> None:
    table = routing(connected(key_digest=Digest("")))
    assert (table.candidates(ACME, MODEL)[0].credential_id, table.credentials) == ("", {})


def test_a_neighbours_upstream_is_no_candidate() -> None:
    assert routing(connected(organization=GLOBEX)).candidates(ACME, MODEL) == ()
