"""Every route x every principal x own, foreign and absent object: asked once, and judged by rules rather than by cell.

let in   neither 401 nor 403, and for what is one's own an answer that is no "not found"
not      exactly the status and the code of the access rule
foreign  the very reply that an absent object gets, but for the id that was asked
always   nothing of a stranger's in the reply; no decision that would write into another organisation
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.routing import APIRoute

from domain.ids import PLATFORM
from tests.rights.asking import Answer, ask
from tests.rights.examples import Example, examples_of, filled
from tests.rights.expected import NO_RIGHT, expected
from tests.rights.plant import WORDS, Home, Planted, Principal
from tests.rights.walls import Rehearsal, Walls, rehearsing
from tests.web.world import World
from web.app import create_app
from web.auth import AccessRule
from web.declared import api_routes, name, rule_of

Whose = Literal["own", "foreign", "absent"]

_ABSENT_ID = "0192aaaa-0000-7000-8000-00000000dead"
_ABSENT: Mapping[str, str] = {
    "position": "999999999",
    "organization_slug": "no-such-organization",
    "model_code": "no/such-model",
    "invitation_token": "x" * 32,
    "parked": f"advance_instance.instance.{_ABSENT_ID}",
}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)")
_MALFORMED = frozenset({"invalid_request", "method_not_allowed", "not_found"})


@dataclass(frozen=True)
class Cell:
    """One question; `example` tells several of one route apart."""

    route: str
    method: str
    path: str
    rule: AccessRule
    example: Example
    who: Principal
    whose: Whose

    def __str__(self) -> str:
        return f"{self.route} {dict(self.example.query) or ''} by {self.who.name}, {self.whose}"


@dataclass
class Verdict:
    """What one run found; each finding is a sentence."""

    walls: Walls
    cells: int = 0
    leaks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    leaking_routes: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Reply:
    """An answer, and how its request called the objects that it was about."""

    answer: Answer
    names: tuple[str, ...]

    @property
    def normal(self) -> tuple[int, str, tuple[str, ...]]:
        """Status, body and names of headers, without what differs from one request to the next."""
        text = self.answer.text
        for named in self.names:
            text = text.replace(named, "<named>")
        text = _TIME.sub("<time>", _UUID.sub("<id>", text))
        return self.answer.status, text, tuple(sorted(self.answer.headers.keys() - {"content-length"}))


@asynccontextmanager
async def behind_walls(world: World, walls: Walls) -> AsyncIterator[tuple[FastAPI, Rehearsal]]:
    """The application as it is, but for the walls, and for what it would write."""
    services, rehearsal = rehearsing(world.services, walls)
    app = create_app(services)
    async with app.router.lifespan_context(app):
        yield app, rehearsal


def cells_of(routes: Sequence[APIRoute], planted: Planted) -> Iterator[Cell]:
    """Raises KeyError: a route without an example."""
    for route in routes:
        for example in examples_of(route):
            named = bool(example.names_in(route.path))
            for who in planted.principals:
                for whose in _variants(who, named):
                    for method in sorted(route.methods or ()):
                        yield Cell(name(route), method, route.path, rule_of(route), example, who, whose)


def _variants(who: Principal, named: bool) -> tuple[Whose, ...]:
    """Absent comes before foreign, which is held against it. Who is at home nowhere has no objects of its own."""
    if not named:
        return ("own",)
    return ("own", "absent", "foreign") if who.home else ("absent", "foreign")


async def run(world: World, planted: Planted, walls: Walls, *, routes: Sequence[str] = ()) -> Verdict:
    """`routes`: only these, by name; empty means all."""
    verdict = Verdict(walls)
    async with behind_walls(world, walls) as (app, rehearsal):
        asked = [route for route in api_routes(app) if not routes or name(route) in routes]
        absent: _Reply | None = None
        for cell in cells_of(asked, planted):
            rehearsal.attempts.clear()
            sent = _sent(cell, planted)
            answer = await ask(app, cell.method, sent.path, query=sent.query, headers=cell.who.headers, body=sent.body)
            verdict.cells += 1
            verdict.wrong += _wrong(cell, answer)
            leaks = _leaked(cell, answer, sent, planted) + _written(cell, rehearsal, planted)
            if cell.whose == "absent":
                absent = _Reply(answer, sent.names)
            elif cell.whose == "foreign" and absent is not None:
                leaks += _told_apart(cell, _Reply(answer, sent.names), absent)
            verdict.leaks += leaks
            verdict.leaking_routes |= {cell.route} if leaks else set()
    return verdict


@dataclass(frozen=True)
class _Sent:
    """`names`: how it called the objects that it is about."""

    path: str
    query: Mapping[str, str]
    body: Any
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path} {json.dumps(dict(self.query))} {json.dumps(self.body)}"


def _sent(cell: Cell, planted: Planted) -> _Sent:
    home: Home = cell.who.home or "a"
    own = {**planted.objects[home], **cell.who.own}
    foreign = planted.objects[_other(cell.who)]
    objects = {
        "own": own,
        "foreign": {**own, **foreign, "self": own.get("self", "")},
        "absent": {kind: _ABSENT.get(kind, _ABSENT_ID) for kind in own},
    }[cell.whose]
    return _Sent(
        cell.example.path(cell.path, objects),
        filled(cell.example.query, objects),
        filled(cell.example.body, objects),
        names=tuple(objects[kind] for kind in sorted(cell.example.names_in(cell.path))),
    )


def _other(who: Principal) -> Home:
    return "a" if who.home == "b" else "b"


def _wrong(cell: Cell, answer: Answer) -> list[str]:
    """Whether the access rule decided as the table says."""
    wanted = expected(cell.rule, cell.who, also=cell.example.also, for_admins=cell.example.for_admins)
    got = f"{cell}: {answer.status} {answer.code}"
    if answer.status >= 500:
        return [f"{got}: a defect"]
    if cell.rule.name == "worker":
        return [f"{got}: let in without a worker's token"] if answer.status < 400 else []
    if not wanted.let_in:
        return [] if (answer.status, answer.code) == (wanted.status, wanted.code) else [f"{got}, not {wanted.code}"]
    if answer.status in NO_RIGHT and answer.code not in cell.example.finer:
        return [f"{got}: refused, though the rule lets in"]
    if cell.whose != "own" or answer.status < 400 or answer.code in cell.example.finer | cell.example.refused:
        return []
    is_vacuous = cell.method == "GET" or answer.code in _MALFORMED
    return [f"{got}: the example is no good one, so this cell tests nothing"] if is_vacuous else []


def _leaked(cell: Cell, answer: Answer, sent: _Sent, planted: Planted) -> list[str]:
    """What of a stranger's stands in the reply, other than what the asker named."""
    if cell.example.open_because or (cell.who.is_admin and _sees_all(cell)):
        return []
    found = [marker for marker in _markers(cell.who, planted) if marker in answer.text and marker not in str(sent)]
    return [f"{cell}: shows {', '.join(found[:3])}"] if found else []


def _sees_all(cell: Cell) -> bool:
    return cell.rule.name == "platform_admin" or cell.example.for_admins or cell.example.admins_see_all


def _markers(who: Principal, planted: Planted) -> list[str]:
    """Words and ids of strangers, also in the hexadecimal in which payloads travel."""
    strangers: list[Home] = [home for home in ("a", "b") if home != who.home]
    own = set(who.own.values())
    plain = [WORDS[home] for home in strangers]
    for home in strangers:
        plain += [id_ for kind, id_ in planted.objects[home].items() if kind != "position" and id_ not in own]
    return plain + [marker.encode().hex() for marker in plain]


def _written(cell: Cell, rehearsal: Rehearsal, planted: Planted) -> list[str]:
    """Decisions on aggregates that are not the asker's to change."""
    if cell.who.is_admin or cell.example.open_because:
        return []
    own = {planted.objects[cell.who.home]["organization"]} if cell.who.home else set()
    foreign = set(planted.objects[_other(cell.who)].values()) - set(cell.who.own.values())
    return [
        f"{cell}: would write {attempt.command} on {attempt.aggregate} of another"
        for attempt in rehearsal.attempts
        if attempt.aggregate_id in foreign or attempt.organization in _foreign_organizations(planted) - own
    ]


def _foreign_organizations(planted: Planted) -> set[str]:
    return {objects["organization"] for objects in planted.objects.values()} - {PLATFORM}


def _told_apart(cell: Cell, foreign: _Reply, absent: _Reply) -> list[str]:
    """Whether one can tell that it exists."""
    if cell.example.open_because or (cell.who.is_admin and _sees_all(cell)):
        return []
    seen, wanted = foreign.normal, absent.normal
    return [] if seen == wanted else [f"{cell}: {seen[:2]} is not {wanted[:2]}, the answer for what does not exist"]
