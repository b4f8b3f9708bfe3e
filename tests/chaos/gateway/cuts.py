"""Streams that are cut at a random token, and whether each is in the books once, with the tokens that were made.

    the client leaves      the gateway is killed -9, another starts on its folder      the engines are killed -9

Counts are held against the engine's own (simulated_ledger.py), which dies with it: for a killed engine's streams what
the client got has to do. The surprising rule: when the gateway dies, tokens may be on their way, which nobody has read
and nobody will. So every second time the engines are held (SIGSTOP) for the blow: then the books must be exact. The
other times it falls at any moment, and what was on its way is a figure of its own.

Control: a gateway that notes nothing down while requests run. What ran when it was killed must then be missing.
"""

import asyncio
import random
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
import msgspec

from agent.simulated_engine import Behaviour
from domain.usage import UsageRecord
from tests.chaos.gateway.books import balance, differences, largest, total
from tests.chaos.gateway.clients import Told, new_client, plain, stream, until_told
from tests.chaos.gateway.stage import Gateway, Stage, stage
from tests.chaos.gateway.variants import command

ENGINES = [Behaviour(tokens_per_s=40.0)] * 2
LONGEST_TOKENS = 2_000
"""Of a stream that is to be cut: fifty seconds."""
LEAVE_WITHIN_TOKENS = 60
START_WITHIN_S = 1.5
"""Streams of a group begin within this time, so that one blow hits each at another token."""
BLOW_WITHIN_S = 0.5
CATCH_UP_S = 0.3
"""What a gateway needs at most to read what engines had sent before they were held."""
ENGINE_ENDS_WITHIN_S = 10.0
WELL_WITHIN_S = 40.0
"""Engines that were started again are asked again; longer than a breaker's longest pause."""
TOLERANCE_TOKENS = 64
"""Of a stream whose engine or gateway was killed: what was on its way then."""


class Cut(msgspec.Struct, frozen=True):
    """Streams by what cut them.

    Attributes:
        held: by the gateway's death while the engines were held, so that no token was on its way.
        killed: by the gateway's death at any moment.
        broken: by the engines' death.
    """

    left: Sequence[Told]
    held: Sequence[Told]
    killed: Sequence[Told]
    broken: Sequence[Told]

    @property
    def request_ids(self) -> list[str]:
        return [told.request_id for told in (*self.left, *self.held, *self.killed, *self.broken)]


async def measure(
    folder: Path, *, leaving: int = 400, gateway_groups: int = 8, worker_groups: int = 8, group: int = 38
) -> dict[str, float | None]:
    draw = random.Random(5)
    async with stage(folder, ENGINES) as play, new_client(keep_alive=False) as client:
        gateway = await play.start_gateway()
        left = await _leave(play, client, draw, leaving, at_once=group)
        killed: list[Told] = []
        held: list[Told] = []
        for number in range(gateway_groups):
            is_held = number % 2 == 0
            (held if is_held else killed).extend(await _kill_gateway(play, client, draw, group, gateway, hold=is_held))
            gateway = await play.start_gateway()
            print(f"cuts: gateway killed {number + 1} of {gateway_groups}", flush=True)
        counted = await _counted(play, [told.request_id for told in (*left, *held, *killed)])
        broken: list[Told] = []
        for number in range(worker_groups):
            broken += await _kill_engines(play, client, draw, group)
            print(f"cuts: engines killed {number + 1} of {worker_groups}", flush=True)
        cut = Cut(left, held, killed, broken)
        figures = _figures(cut, counted, await play.records(cut.request_ids))
        await gateway.stop()
        return {**figures, "accounts_control_unbooked": await _control(play, client, draw, group)}


async def _leave(
    play: Stage, client: aiohttp.ClientSession, draw: random.Random, count: int, *, at_once: int
) -> list[Told]:
    """Streams whose clients leave at a token of their own choice."""
    places = asyncio.Semaphore(at_once)

    async def one(leave_after: int) -> Told:
        async with places:
            return await stream(client, play, play.tenants[0], Told(), tokens=LONGEST_TOKENS, leave_after=leave_after)

    told = await asyncio.gather(*(one(draw.randint(1, LEAVE_WITHIN_TOKENS)) for _ in range(count)))
    _expect(told, "left")
    print(f"cuts: {count} clients left", flush=True)
    return told


async def _kill_gateway(
    play: Stage, client: aiohttp.ClientSession, draw: random.Random, group: int, gateway: Gateway, *, hold: bool = False
) -> list[Told]:
    told, tasks = await _running(play, client, draw, group)
    if hold:
        _signal_engines(play, signal.SIGSTOP)
        await asyncio.sleep(CATCH_UP_S)
    await gateway.kill()
    if hold:
        _signal_engines(play, signal.SIGCONT)
    await asyncio.gather(*tasks)
    _expect(told, "broken")
    return told


def _signal_engines(play: Stage, wanted: signal.Signals) -> None:
    for engine in play.engines:
        if engine.process is not None:
            engine.process.send_signal(wanted)


async def _kill_engines(play: Stage, client: aiohttp.ClientSession, draw: random.Random, group: int) -> list[Told]:
    told, tasks = await _running(play, client, draw, group)
    await asyncio.gather(*(engine.kill() for engine in play.engines))
    await asyncio.gather(*tasks)
    _expect(told, "error")
    await asyncio.gather(*(engine.start() for engine in play.engines))
    async with asyncio.timeout(WELL_WITHIN_S):
        while not (await plain(client, play, play.tenants[0], tokens=1)).is_answered:  # noqa: ASYNC110 - see stage.py
            await asyncio.sleep(BLOW_WITHIN_S)  # their breakers are open
    return told


async def _running(
    play: Stage, client: aiohttp.ClientSession, draw: random.Random, group: int
) -> tuple[list[Told], Sequence[asyncio.Task[Told]]]:
    """Streams under way, each of them at another token."""
    told = [Told() for _ in range(group)]

    async def one(of: Told, after_s: float) -> Told:
        await asyncio.sleep(after_s)
        return await stream(client, play, play.tenants[0], of, tokens=LONGEST_TOKENS)

    tasks = [asyncio.create_task(one(of, draw.uniform(0, START_WITHIN_S))) for of in told]
    await until_told(told)
    await asyncio.sleep(draw.uniform(0, BLOW_WITHIN_S))
    return told, tasks


async def _counted(play: Stage, request_ids: Sequence[str]) -> Mapping[str, int]:
    """The engines' own counts, once they have noticed that nobody listens any more.

    Raises:
        TimeoutError: one still generates.
    """
    async with asyncio.timeout(ENGINE_ENDS_WITHIN_S + 0.05 * len(request_ids)):
        while True:
            entries = await play.engine_counts(request_ids)
            if all(entry.ended for entry in entries.values()):
                return {request_id: entry.completion_tokens for request_id, entry in entries.items()}


def _figures(cut: Cut, counted: Mapping[str, int], records: Sequence[UsageRecord]) -> dict[str, float | None]:
    def beside_engine(told: Sequence[Told]) -> list[int]:
        return differences({one.request_id: counted[one.request_id] for one in told}, records)

    def beside_client(told: Sequence[Told]) -> list[int]:
        return differences({one.request_id: one.tokens for one in told}, records)

    books = balance(cut.request_ids, records)
    by_client, by_held, by_gateway = (beside_engine(told) for told in (cut.left, cut.held, cut.killed))
    by_worker = beside_client(cut.broken)
    delivered = (*beside_client(cut.held), *beside_client(cut.killed), *by_worker)
    tolerated = (*by_gateway, *by_worker)
    return {
        "streams": len(cut.request_ids),
        "accounts_unbooked": books.unbooked,
        "accounts_double_booked": books.double_booked,
        "token_difference": total([*by_client, *by_held, *tolerated]),
        "token_difference_max": largest([*by_client, *by_held, *tolerated]),
        "token_difference_client_left": total(by_client),
        "token_difference_gateway_killed": total(by_held),
        "token_difference_worker_killed": total(by_worker),
        "token_difference_worker_killed_max": largest(by_worker),
        "tokens_on_their_way": total(by_gateway),
        "tokens_on_their_way_max": largest(by_gateway),
        "tolerance_exceeded": sum(abs(one) > TOLERANCE_TOKENS for one in tolerated),
        "tokens_booked_beyond_engine": sum(one for one in (*by_held, *by_gateway) if one > 0),
        "tokens_delivered_unbooked": -sum(one for one in delivered if one < 0),
    }


async def _control(play: Stage, client: aiohttp.ClientSession, draw: random.Random, group: int) -> int:
    """Streams of a killed gateway without a journal that are in no book; a request after them must be."""
    gateway = await play.start_gateway(command("no_journal"))
    told = await _kill_gateway(play, client, draw, group, gateway)
    gateway = await play.start_gateway(command("no_journal"))
    later = await plain(client, play, play.tenants[0], tokens=2)
    assert later.is_answered, later
    records = await play.records([later.request_id])
    assert balance([later.request_id], records).unbooked == 0, "the control's gateway books nothing at all"
    await gateway.stop()
    return balance([one.request_id for one in told], records).unbooked


def _expect(told: Sequence[Told], ending: str) -> None:
    others = [one for one in told if one.ending != ending or not one.request_id]
    assert not others, f"{len(others)} of {len(told)} streams did not end with {ending!r}: {others[:3]}"
