"""Fuzzes the REST API of a whole platform with what its OpenAPI allows, and with what it forbids: `just fuzz-api`.

    openapi.json ──schemathesis──> case ──known ids put in──> HTTP ──> status, content type and body as promised?

Real processes, real HTTP. People of every kind send the cases; who loses rights or session on the way (the fuzz finds
`leave` and `logout` too) is replaced. The control: a copy of the schema that promises something else must break.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.people import People
from tests.journeys.platform import Platform, running

REQUESTS = 5_000
QUICK_REQUESTS = 1_000
TIMEOUT_S = 20
MAX_ROUND_SECONDS = 600
MAX_ROUNDS = 20
KNOWN_ID_SHARE = 0.5
"""How often an id in a path is replaced by one that exists; otherwise nothing but 404 would be seen."""
SHOWN_FAILURES = 20
REFRESH_EVERY = 10
"""Operations between two looks at what there is; each look is a dozen requests."""
OPENAPI = Path(__file__).parent.parent.parent / "web" / "openapi.json"
ENDED = ("session_invalid_or_expired", "invalid_token", "invalid_api_key")
"""Refusals after which a person needs another sign-in, or a key another key."""
CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance]
ENDLESS = {"/events/stream"}
"""Of answers that never end, only the head is looked at."""


@dataclass
class Findings:
    """What the run saw; `broken` holds one line for each distinct finding."""

    requests: int = 0
    server_errors: int = 0
    schema_breaks: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)

    def note(self, case: Any, failure: Failure) -> None:
        if type(failure).__name__ == "ServerError":
            self.server_errors += 1
        else:
            self.schema_breaks += 1
        words = f"{failure.message[:600]}\n{case.as_curl_command()[:600]}"
        self.broken.setdefault(f"{case.method} {case.path}: {failure.title}", words)


@dataclass
class Fuzz:
    """One run against one platform."""

    platform: Platform
    people: People
    chance: Random
    findings: Findings
    http: requests.Session = field(default_factory=requests.Session)

    def send(self, case: Any) -> None:
        case.path_parameters = {
            name: self._known(name) if self.chance.random() < KNOWN_ID_SHARE else value
            for name, value in dict(case.path_parameters or {}).items()
        }
        who = self.people.somebody()
        headers = {**who.headers, **self.people.from_anywhere()}
        if case.path in ENDLESS and self._begins_without_end(case, headers):
            return
        response = case.call(
            base_url=self.platform.card["api_url"], session=self.http, headers=headers, timeout=TIMEOUT_S
        )
        self.http.cookies.clear()
        self.findings.requests += 1
        self.findings.statuses[f"{response.status_code // 100}xx"] += 1
        self._check(case, response)
        if response.status_code == 401 and any(code in response.text for code in ENDED):
            self.people.renew(who)

    def _begins_without_end(self, case: Any, headers: dict[str, str]) -> bool:
        """Whether it answers with a live stream, which is then let go; a refusal is left to be asked for again."""
        sent = {**case.as_transport_kwargs(base_url=self.platform.card["api_url"]), "timeout": TIMEOUT_S}
        sent["headers"] = {**dict(sent.get("headers") or {}), **headers}
        with self.http.request(**sent, stream=True) as response:
            media_type = str(response.headers.get("content-type", ""))
            streams = bool(response.status_code == 200) and media_type.startswith("text/event-stream")
        if streams:
            self.findings.requests += 1
            self.findings.statuses["2xx"] += 1
        return streams

    def _check(self, case: Any, response: Any) -> None:
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                self.findings.note(case, failure)
        except Failure as failure:
            self.findings.note(case, failure)

    def _known(self, name: str) -> str:
        return self.people.known_id(name)


def run(platform: Platform, schema: Any, wanted: int, *, seed: int) -> Findings:
    """Sends at least `wanted` requests, half of them deliberately wrong.

    An operation without parameters has one case in all; so another round, with other cases, follows until it is enough.
    """
    operations = [found.ok() for found in schema.get_all_operations()]
    fuzz = Fuzz(platform, People(platform, Random(seed)), Random(seed), Findings())
    for number in range(MAX_ROUNDS):
        missing = wanted - fuzz.findings.requests
        if missing <= 0:
            break
        per_mode = max(2, -(-missing // (2 * len(operations))))
        _round(fuzz, operations, per_mode, seed + number * len(operations))
    fuzz.people.close()
    return fuzz.findings


def _round(fuzz: Fuzz, operations: Sequence[Any], per_mode: int, seed: int) -> None:
    began = time.monotonic()
    for number, operation in enumerate(operations):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _fuzz_operation(fuzz, operation, mode, per_mode, seed + number)
        if number % REFRESH_EVERY == 0:
            fuzz.people.refresh_ids()
        if time.monotonic() - began > MAX_ROUND_SECONDS:
            raise SystemExit(f"not through after {MAX_ROUND_SECONDS} s: {fuzz.findings.requests} requests")
        _say(f"{number + 1:3}/{len(operations)} {operation.method.upper()} {operation.path}")


def _fuzz_operation(fuzz: Fuzz, operation: Any, mode: GenerationMode, examples: int, seed: int) -> None:
    sent = 0
    strategy = operation.as_strategy(generation_mode=mode)

    @seeded(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def send(case: Any) -> None:
        nonlocal sent
        sent += 1
        fuzz.send(case)

    try:
        send()
    except Exception as error:
        # An operation without parameters has nothing that could be wrong; schemathesis then has no case to give.
        if mode is GenerationMode.POSITIVE or sent:
            raise RuntimeError(f"{operation.method} {operation.path}") from error


def planted_lie(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with one promise that the API does not keep: `GET /version` answers a number."""
    lie: dict[str, Any] = json.loads(json.dumps(schema))
    content = lie["paths"]["/version"]["get"]["responses"]["200"]["content"]
    content["application/json"]["schema"] = {"type": "integer"}
    lie["paths"] = {"/version": lie["paths"]["/version"]}
    return lie


@contextmanager
def _platform() -> Iterator[Platform]:
    """Every request says to come from elsewhere: limits for one address would turn most of them away."""
    with (
        tempfile.TemporaryDirectory(prefix="inventiv-fuzz-") as folder,
        running(Path(folder), INVENTIV_TRUSTED_PROXIES="127.0.0.1") as platform,
    ):
        yield platform


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--requests", type=int, default=REQUESTS)
    arguments.add_argument("--quick", action="store_true", help=f"{QUICK_REQUESTS} requests")
    arguments.add_argument("--seed", type=int, default=1)
    given_ = arguments.parse_args()
    wanted = QUICK_REQUESTS if given_.quick else given_.requests
    document = json.loads(OPENAPI.read_text())
    with _platform() as platform:
        control = run(platform, schemathesis.openapi.from_dict(planted_lie(document)), 4, seed=given_.seed)
        found = run(platform, schemathesis.openapi.from_dict(document), wanted, seed=given_.seed)
        health = platform.rest("GET", "/readyz", signed=False).status_code
    for title, words in list(found.broken.items())[:SHOWN_FAILURES]:
        _say(f"\n{title}\n{words}")
    figures = {
        "requests": found.requests,
        "server_errors": found.server_errors,
        "schema_breaks": found.schema_breaks,
        "control_schema_breaks": control.schema_breaks,
        "statuses": dict(sorted(found.statuses.items())),
        "ready_afterwards": health == 200,
        "seed": given_.seed,
    }
    print(json.dumps(figures))
    good = not found.server_errors and not found.schema_breaks and control.schema_breaks and health == 200
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
