"""Each fault of the simulated Scaleway as the official SDK meets it, and the clock that "later" is counted by."""

import asyncio

import httpx
import pytest
import requests

from infra.simulated_clouds.scaleway.clock import Clock
from infra.simulated_clouds.scaleway.faults import Fault, Faults
from infra.simulated_clouds.scaleway.running import SimulatedScaleway
from tests.infra.simulated_clouds.sdk import ZONE, Sdk, refusal


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault(kind="status", operation="create_server", status=418, type="teapot"), 418, "teapot"),
        (Fault(kind="rate_limited", operation="create_*"), 429, "too_many_requests"),
        (Fault(kind="server_error"), 503, "internal"),
        (Fault(kind="denied"), 403, "permissions_denied"),
        (Fault(kind="out_of_stock", operation="create_server"), 412, "out_of_stock"),
        (Fault(kind="quota", operation="create_server"), 403, "quotas_exceeded"),
    ],
)
async def test_a_refusal_is_given_once_and_nothing_is_done(
    sdk: Sdk, scaleway: SimulatedScaleway, fault: Fault, status: int, kind: str
) -> None:
    scaleway.faults.add(fault)
    seen, body = await refusal(sdk.create)
    assert (seen, body["type"]) == (status, kind)
    assert scaleway.cloud.servers == {}
    assert (await sdk.create()).state == "stopped"
    assert scaleway.faults.hits == {fault.kind: 1}


async def test_a_rate_limit_says_when_to_come_back(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.faults.add(Fault(kind="rate_limited", retry_after_s=7))
    reply = await asyncio.to_thread(
        requests.get, f"{scaleway.url}/instance/v1/zones/{ZONE}/servers", headers={"X-Auth-Token": scaleway.secret_key}
    )
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "7")


async def test_done_and_then_no_answer(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.faults.add(Fault(kind="done_then_504", operation="create_server"))
    assert (await refusal(sdk.create))[0] == 504
    assert len(scaleway.cloud.servers) == 1
    scaleway.faults.add(Fault(kind="done_then_reset", operation="create_server"))
    with pytest.raises(requests.ConnectionError):
        await sdk.create()
    assert len(scaleway.cloud.servers) == 2


async def test_a_connection_cut_before_anything_was_done(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.faults.add(Fault(kind="reset", operation="create_server"))
    with pytest.raises(requests.ConnectionError):
        await sdk.create()
    assert scaleway.cloud.servers == {}


async def test_what_was_given_up_is_done_ten_minutes_later(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.faults.add(Fault(kind="late", operation="create_server"))
    assert (await refusal(sdk.create))[0] == 504
    scaleway.clock.advance(599)
    assert (await sdk.instance("list_servers")).servers == []
    scaleway.clock.advance(1)
    (server,) = (await sdk.instance("list_servers")).servers
    assert (server.name, server.state) == ("worker", "stopped")
    assert scaleway.clock.date(600) <= server.creation_date < scaleway.clock.date(600.001)


async def test_what_is_late_and_impossible_by_then_changes_nothing(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    scaleway.faults.add(Fault(kind="late", operation="server_action:poweron"))
    assert (await refusal(lambda: sdk.act(server.id, "poweron")))[0] == 504
    await sdk.instance("delete_server", server_id=server.id)
    scaleway.clock.advance(3600)
    assert scaleway.cloud.servers == {}


async def test_a_swallowed_deletion_says_yes_and_deletes_nothing(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    scaleway.faults.add(Fault(kind="swallowed", operation="*delete*", times=0))
    await sdk.instance("delete_server", server_id=server.id)
    assert (await sdk.server(server.id)).id == server.id
    scaleway.faults.clear()
    await sdk.instance("delete_server", server_id=server.id)
    assert (await refusal(lambda: sdk.server(server.id)))[0] == 404


async def test_a_swallowed_power_on_leaves_the_server_off(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    scaleway.faults.add(Fault(kind="swallowed", operation="server_action:poweron"))
    await sdk.act(server.id, "poweron")
    scaleway.clock.advance(3600)
    assert (await sdk.server(server.id)).state == "stopped"


async def test_a_page_in_the_place_of_an_answer_is_no_json(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.faults.add(Fault(kind="nonsense", operation="create_server"))
    with pytest.raises(requests.exceptions.JSONDecodeError):
        await sdk.create()
    assert scaleway.cloud.servers == {}


async def test_what_shows_its_own_result_cannot_be_swallowed(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.faults.add(Fault(kind="swallowed", operation="create_server"))
    assert (await sdk.create()).state == "stopped"
    assert scaleway.faults.hits == {}


async def test_a_partial_page_lacks_entries_that_the_total_tells_of(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    for number in range(3):
        await sdk.create(name=f"worker-{number}")
    scaleway.faults.add(Fault(kind="partial_page", operation="list_servers", cut=2))
    page = await sdk.instance("list_servers")
    assert (len(page.servers), int(page.total_count)) == (1, 3)
    assert len((await sdk.instance("list_servers")).servers) == 3


async def test_a_slow_answer_comes_and_a_hanging_one_is_cut(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.faults.add(Fault(kind="slow", operation="create_server", after_s=0.05))
    assert (await sdk.create()).state == "stopped"
    scaleway.faults.add(Fault(kind="hang", operation="create_server", after_s=0.05))
    with pytest.raises(requests.ConnectionError):
        await sdk.create()
    assert len(scaleway.cloud.servers) == 1


async def test_a_fault_may_wait_for_its_turn_its_zone_and_its_action(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.faults.add(Fault(kind="server_error", operation="create_server", nth=2, times=2))
    scaleway.faults.add(Fault(kind="server_error", operation="list_servers", zone="pl-waw-2", times=0))
    made = []
    for _ in range(4):
        try:
            made.append(bool(await sdk.create()))
        except Exception:  # noqa: BLE001 - which one it is, other tests say
            made.append(False)
    assert made == [True, False, False, True]
    assert len((await sdk.instance("list_servers")).servers) == 2
    assert (await refusal(lambda: sdk.instance("list_servers", zone="pl-waw-2")))[0] == 503


def test_a_share_of_calls_is_the_same_for_the_same_seed() -> None:
    def hit(seed: int) -> list[bool]:
        faults = Faults()
        faults.add(Fault(kind="server_error", share=0.2, seed=seed))
        return [faults.next(("get_server",), ZONE) is not None for _ in range(500)]

    assert hit(1) == hit(1)
    assert hit(1) != hit(2)
    assert 60 <= sum(hit(1)) <= 140


def test_faults_do_not_shift_one_another() -> None:
    faults = Faults()
    faults.add(Fault(kind="server_error", nth=2))
    faults.add(Fault(kind="rate_limited", nth=3))
    kinds = [getattr(faults.next(("get_server",), ZONE), "kind", None) for _ in range(4)]
    assert kinds == [None, "server_error", "rate_limited", None]


@pytest.mark.parametrize("wrong", [{"nth": 0}, {"share": 2.0}, {"after_s": 1e9}, {"status": 200}, {"times": -1}])
def test_a_fault_that_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"is |begin"):
        Fault(kind="status", **wrong)  # type: ignore[arg-type]  # one field at a time, of its own type


async def test_faults_clock_and_stock_are_set_from_outside_too(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    async with httpx.AsyncClient(base_url=scaleway.url) as admin:
        assert (await admin.post("/_simulation/faults", json={"kind": "server_error"})).status_code == 201
        assert (await refusal(sdk.create))[0] == 503
        shown = (await admin.get("/_simulation/faults")).json()
        assert (len(shown["faults"]), shown["hits"]) == (1, {"server_error": 1})
        assert (await admin.delete("/_simulation/faults")).status_code == 204
        stock = {"zone": ZONE, "commercial_type": "L4-1-24G", "count": 0}
        assert (await admin.post("/_simulation/stock", json=stock)).status_code == 204
        assert (await refusal(sdk.create))[1]["type"] == "out_of_stock"
        assert (await admin.post("/_simulation/clock", json={"advance_s": 5})).json() == {"now_s": 5}
        await sdk.create("L40S-1-48G")
        state = (await admin.get("/_simulation/state")).json()
        assert [(s["commercial_type"], s["state"]) for s in state["servers"]] == [("L40S-1-48G", "stopped")]
        for path, wrong in (("faults", {"kind": "no such"}), ("clock", {}), ("stock", {"zone": 1})):
            assert (await admin.post(f"/_simulation/{path}", json=wrong)).status_code == 400


def test_a_clock_does_what_is_due_in_order_and_as_if_at_its_own_moment() -> None:
    clock, seen = Clock(), list[tuple[str, float]]()

    def first() -> None:
        seen.append(("first", clock.now))
        clock.at(clock.now + 0.5, lambda: seen.append(("then", clock.now)))

    clock.at(2.0, lambda: seen.append(("second", clock.now)))
    clock.at(1.0, first)
    clock.advance(0.9)
    assert seen == []
    clock.advance(10)
    assert seen == [("first", 1.0), ("then", 1.5), ("second", 2.0)]
    assert clock.now == pytest.approx(10.9)


def test_a_clock_of_real_time_may_run_faster() -> None:
    clock = Clock(speed=1_000_000.0)
    assert clock.now > 0
