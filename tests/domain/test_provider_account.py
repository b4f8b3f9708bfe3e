"""The laws of a provider account: who asked is answered, deletions are locked, and nothing is said twice."""

from datetime import timedelta
from typing import Any

from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.ids import InstanceId, OrganizationId
from domain.provider_account import (
    BREAKER_FLOOR,
    BREAKER_SHARE,
    BREAKER_WINDOW_S,
    MAX_OFFERS,
    PROVIDER_ACCOUNT,
    SAID_AGAIN_S,
    ProviderAccount,
    provider_account_id_of,
)
from domain.provider_account_commands import (
    ProviderAccountCommand,
    RecordCatalogueSyncFailed,
    RecordOffers,
    RecordReconciled,
    RecordReconciliationFailed,
    RequestCatalogueSync,
    RequestReconciliation,
    Signed,
)
from domain.provider_account_events import (
    CatalogueSynced,
    CatalogueSyncFailed,
    CatalogueSyncRequested,
    DeletionHalted,
    MissedServerSettled,
    OfferKey,
    ProviderAccountEvent,
    ReconciliationCompleted,
    ReconciliationFailed,
    ReconciliationRequested,
    Resource,
    ServerMissed,
    StrayCleared,
    StrayDeleteIntended,
    StraySeen,
    UnrecordedServerSeen,
)
from tests.examples import ACME, INSTANCE_1, L4
from tests.given import NOON, Given, given

AT = "scaleway"
GRACE_S = 60.0
ASKED = ReconciliationRequested(provider=AT)
OF: dict[str, Any] = {"organization_id": ACME, "instance_id": INSTANCE_1, "attempt": 1}


def stray(name: str = "srv-9", resource: Resource = "server") -> Signed:
    return Signed(resource=resource, provider_resource_id=name, **OF)


def seen(name: str = "srv-9", resource: Resource = "server") -> StraySeen:
    return StraySeen(provider=AT, resource=resource, provider_resource_id=name, **OF)


def intended(name: str = "srv-9", resource: Resource = "server") -> StrayDeleteIntended:
    return StrayDeleteIntended(provider=AT, resource=resource, provider_resource_id=name)


def look(*strays: Signed, others: int = 0, volumes: frozenset[str] | None = None, **fields: Any) -> RecordReconciled:
    """A complete look that found these strays, and so many servers that are wanted."""
    servers = {one.provider_resource_id for one in strays if one.resource == "server"}
    wanted: dict[str, Any] = {
        "asked_at": None,
        "servers": frozenset(servers | {f"wanted-{n}" for n in range(others)}),
        "unrecorded": (),
        "missed": {},
        "grace_s": GRACE_S,
    }
    return RecordReconciled(provider=AT, strays=strays, volumes=volumes, **{**wanted, **fields})


def done(**fields: Any) -> ReconciliationCompleted:
    wanted: dict[str, Any] = {"servers": 0, "volumes": None, "strays": 0, "unrecorded": 0, "missed": 0}
    return ReconciliationCompleted(provider=AT, **{**wanted, "answered": False, **fields})


def failed(**fields: Any) -> ReconciliationFailed:
    wanted: dict[str, Any] = {"call": "list_servers", "kind": "auth", "message": "denied", "answered": False}
    return ReconciliationFailed(provider=AT, **{**wanted, **fields})


def failure(**fields: Any) -> RecordReconciliationFailed:
    wanted: dict[str, Any] = {"asked_at": None, "call": "list_servers", "kind": "auth", "message": "denied"}
    return RecordReconciliationFailed(provider=AT, **{**wanted, **fields})


def test_an_account_has_one_id_for_each_provider_of_an_organisation() -> None:
    ids = {provider_account_id_of(OrganizationId(o), p) for o in ("acme", "globex") for p in ("scaleway", "aws")}
    assert len(ids) == 4


def test_asking_twice_is_one_request() -> None:
    given().when(RequestReconciliation(provider=AT)).then(ASKED)
    given(ASKED).when(RequestReconciliation(provider=AT)).then_nothing()


def test_who_asked_is_answered_though_nothing_changed() -> None:
    given(done(), ASKED).when(look(asked_at=NOON)).then(done(answered=True))
    given(done(), ASKED, done(answered=True)).when(RequestReconciliation(provider=AT)).then(ASKED)


def test_a_request_that_came_during_a_look_is_not_answered_by_it() -> None:
    given(done(), ASKED).when(look(asked_at=None)).then_nothing()
    given(done(), ASKED).when(look(asked_at=NOON - timedelta(seconds=1))).then_nothing()


def test_a_failure_answers_too() -> None:
    given(failed(), ASKED).when(failure(asked_at=NOON)).then(failed(answered=True))


def test_the_same_result_is_said_once_an_hour() -> None:
    given(done(servers=1)).later(SAID_AGAIN_S - 1).when(look(others=1)).then_nothing()
    given(done(servers=1)).later(SAID_AGAIN_S).when(look(others=1)).then(done(servers=1))


def test_another_result_is_said_at_once() -> None:
    given(done(servers=1)).when(look(others=2)).then(done(servers=2))


def test_the_same_trouble_is_said_once_an_hour_whatever_its_words() -> None:
    given(failed()).later(SAID_AGAIN_S - 1).when(failure(message="denied, request 2")).then_nothing()
    given(failed()).when(failure(kind="transient")).then(failed(kind="transient"))
    given(failed()).when(failure(call="list_volumes")).then(failed(call="list_volumes"))
    given(failed()).later(SAID_AGAIN_S).when(failure()).then(failed())


def test_what_works_again_is_said_though_the_result_is_the_same() -> None:
    given(done(), failed()).when(look()).then(done())
    given(done(), failed(), done()).when(failure()).then(failed())


def test_servers_say_nothing_about_volumes_that_were_not_listed() -> None:
    given(done(), failed(call="list_volumes")).when(look()).then_nothing()
    given(done(), failed(call="list_volumes")).when(look(volumes=frozenset())).then(done(volumes=0))


def test_a_stray_is_seen_once() -> None:
    given().when(look(stray())).then(seen(), done(servers=1, strays=1))
    given(seen(), done(servers=1, strays=1)).when(look(stray())).then_nothing()


def test_a_stray_is_not_deleted_by_the_look_that_finds_it() -> None:
    given().when(look(stray(), grace_s=0.0)).then(seen(), done(servers=1, strays=1))


def test_a_stray_is_not_deleted_before_its_grace_is_over() -> None:
    known = given(seen(), done(servers=1, strays=1))
    known.later(GRACE_S - 1).when(look(stray())).then_nothing()
    known.later(GRACE_S).when(look(stray())).then(intended())


def test_without_the_grace_it_would_be_deleted_at_once() -> None:
    """The control of the law before."""
    given(seen(), done(servers=1, strays=1)).when(look(stray(), grace_s=0.0)).then(intended())


def test_a_stray_that_is_not_found_again_is_not_deleted() -> None:
    gone = StrayCleared(provider=AT, resource="server", provider_resource_id="srv-9", reason="gone")
    given(seen(), done(servers=1, strays=1)).later(GRACE_S).when(look()).then(gone, done())


def test_a_stray_that_its_record_wants_after_all_begins_anew() -> None:
    wanted = StrayCleared(provider=AT, resource="server", provider_resource_id="srv-9", reason="wanted")
    now_wanted = look(servers=frozenset({"srv-9"}))
    given(seen(), done(servers=1, strays=1)).later(GRACE_S).when(now_wanted).then(wanted, done(servers=1))
    given(seen(), wanted, done(servers=1)).later(GRACE_S).when(look(stray())).then(seen(), done(servers=1, strays=1))


def test_a_deletion_is_intended_once() -> None:
    given(seen(), intended(), done(servers=1, strays=1)).later(GRACE_S).when(look(stray())).then_nothing()


def test_a_volume_stays_what_it_was_when_volumes_were_not_listed() -> None:
    leftover = seen("vol-1", "volume")
    cleared = StrayCleared(provider=AT, resource="volume", provider_resource_id="vol-1", reason="gone")
    given(leftover, done()).when(look()).then_nothing()
    given(leftover, done()).when(look(volumes=frozenset())).then(cleared, done(volumes=0))


def test_the_breaker_stops_mass_deletion() -> None:
    names = [f"srv-{n:02}" for n in range(80)]
    strays = [stray(name) for name in names]
    known = given(*(seen(name) for name in names), done(servers=80, strays=80)).later(GRACE_S)
    halted = DeletionHalted(provider=AT, due=72, deleted=8, limit=8)
    known.when(look(*strays)).then(*(intended(name) for name in names[:8]), halted)


FEW = [f"srv-{n}" for n in range(BREAKER_FLOOR + 1)]
"""One more than may be deleted of few."""
FEW_STRAYS = tuple(stray(name) for name in FEW)
HALTED = DeletionHalted(provider=AT, due=1, deleted=BREAKER_FLOOR, limit=BREAKER_FLOOR)


def few_seen(*more: object) -> Given:
    return given(*(seen(name) for name in FEW), *more, done(servers=len(FEW), strays=len(FEW)))


def test_a_handful_may_always_be_deleted() -> None:
    few_seen().later(GRACE_S).when(look(*FEW_STRAYS)).then(*(intended(name) for name in FEW[:-1]), HALTED)


def test_after_the_window_the_next_ones_are_deleted() -> None:
    known = few_seen(*(intended(name) for name in FEW[:-1]), HALTED)
    known.later(BREAKER_WINDOW_S - 1).when(look(*FEW_STRAYS)).then_nothing()
    known.later(BREAKER_WINDOW_S).when(look(*FEW_STRAYS)).then(intended(FEW[-1]))


def test_a_stray_server_and_its_volume_do_not_wait_for_one_another() -> None:
    both = (stray("a"), stray("v", "volume"))
    known = given(seen("a"), seen("v", "volume"), done(servers=1, volumes=0, strays=2)).later(GRACE_S)
    known.when(look(*both, volumes=frozenset())).then(intended("a"), intended("v", "volume"))


def test_what_no_record_knows_is_told_once_and_never_deleted() -> None:
    strange = UnrecordedServerSeen(provider=AT, resource="server", provider_resource_id="srv-9", **OF)
    found = look(servers=frozenset({"srv-9"}), unrecorded=(stray(),), grace_s=0.0)
    given().when(found).then(strange, done(servers=1, unrecorded=1))
    given(strange, done(servers=1, unrecorded=1)).later(GRACE_S).when(found).then_nothing()


def test_a_missed_server_is_noted_until_it_is_settled() -> None:
    missed = ServerMissed(provider=AT, provider_instance_id="srv-1", instance_id=INSTANCE_1)
    settled = MissedServerSettled(provider=AT, provider_instance_id="srv-1")
    lacking = look(missed={"srv-1": INSTANCE_1})
    given().when(lacking).then(missed, done(missed=1))
    given(missed, done(missed=1)).when(lacking).then_nothing()
    given(missed, done(missed=1)).when(look()).then(settled, done())


def test_only_what_changed_in_the_catalogue_is_said() -> None:
    dearer, other = replace(L4, price_eur_micros_per_hour=800_000), replace(L4, zone="fr-par-1")
    first = CatalogueSynced(provider=AT, offers=(other, L4))
    given().when(RecordOffers(provider=AT, offers=(L4, other))).then(first)
    given(first).when(RecordOffers(provider=AT, offers=(other, L4))).then_nothing()
    changed = CatalogueSynced(provider=AT, offers=(dearer,), withdrawn=(OfferKey("fr-par-1", L4.instance_type),))
    given(first).when(RecordOffers(provider=AT, offers=(dearer,))).then(changed)


def test_an_unchanged_catalogue_is_said_when_it_was_asked_for_and_once_an_hour() -> None:
    synced, same = CatalogueSynced(provider=AT, offers=(L4,)), RecordOffers(provider=AT, offers=(L4,))
    given(synced, CatalogueSyncRequested(provider=AT)).when(same).then(CatalogueSynced(provider=AT))
    given(synced).later(SAID_AGAIN_S).when(same).then(CatalogueSynced(provider=AT))
    given(CatalogueSyncRequested(provider=AT)).when(RequestCatalogueSync(provider=AT)).then_nothing()


def test_trouble_with_the_catalogue_is_said_once_and_mended_by_the_next_sync() -> None:
    synced = CatalogueSynced(provider=AT, offers=(L4,))
    trouble = CatalogueSyncFailed(provider=AT, kind="auth", message="denied")
    again = RecordCatalogueSyncFailed(provider=AT, kind="auth", message="denied again")
    given(synced, trouble).when(again).then_nothing()
    given(synced, trouble, CatalogueSyncRequested(provider=AT)).when(again).then(
        replace(trouble, message="denied again")
    )
    given(synced, trouble).when(RecordOffers(provider=AT, offers=(L4,))).then(CatalogueSynced(provider=AT))


def test_a_catalogue_holds_at_most_so_many_offers() -> None:
    offers = tuple(replace(L4, instance_type=f"type-{n:05}") for n in range(MAX_OFFERS + 5))
    (synced,) = given().when(RecordOffers(provider=AT, offers=offers)).events
    assert len(synced.offers) == MAX_OFFERS


def _random_looks() -> st.SearchStrategy[list[tuple[set[int], int]]]:
    """What each look finds, and how many seconds after the one before."""
    return st.lists(st.tuples(st.sets(st.integers(0, 19), max_size=20), st.integers(0, 400)), max_size=25)


@for_all(_random_looks(), st.integers(0, 25))
def test_no_sequence_of_looks_deletes_what_is_young_or_too_much(looks: list[tuple[set[int], int]], others: int) -> None:
    """Whatever is found when: a deletion is of something seen before, past its grace, and one of few."""
    state, at = ProviderAccount(), NOON
    first_seen: dict[str, Any] = {}
    deletions: list[Any] = []
    for found, seconds in looks:
        at += timedelta(seconds=seconds)
        command: ProviderAccountCommand = look(*(stray(f"srv-{n}") for n in sorted(found)), others=others)
        first_seen = {f"srv-{n}": first_seen.get(f"srv-{n}") for n in found}
        for event in PROVIDER_ACCOUNT.decide(state, command, at):
            if isinstance(event, StrayDeleteIntended):
                seen_at = first_seen[event.provider_resource_id]
                assert seen_at is not None
                assert at - seen_at >= timedelta(seconds=GRACE_S)
                deletions.append(at)
            state = PROVIDER_ACCOUNT.evolve(state, event, at)
        recent = [one for one in deletions if at - one < timedelta(seconds=BREAKER_WINDOW_S)]
        assert len(recent) <= max(BREAKER_FLOOR, int((len(found) + others) * BREAKER_SHARE)) or recent[-1] != at
        first_seen = {name: moment or at for name, moment in first_seen.items()}


def test_each_instance_id_travels_with_its_finding() -> None:
    other = InstanceId("0192aaaa-0000-7000-8000-000000000002")
    found: ProviderAccountEvent = given().when(look(replace(stray(), instance_id=other))).events[0]
    assert found == replace(seen(), instance_id=other)
