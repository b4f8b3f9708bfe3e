"""The judge sees each kind of broken promise, and the writers keep them all unless they leave out the rules."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from domain.api_key import ApiKeyIssued, ApiKeyRenamed
from domain.message import Recorded
from infra.embedded.nats import EmbeddedNats
from infra.events.jetstream import JetStreamLog
from tests.chaos.kill import reached, until
from tests.chaos.writers import CarelessLog, Findings, Ledger, Promise, judge, read_log, writing
from tests.examples import example
from tests.projections.grammar import Story

ACKED = 100
SPOILED = 3


def honest() -> tuple[list[Recorded], Ledger]:
    """Two writers take turns at one key."""
    story = Story().happened("acme", "k", example(ApiKeyIssued))
    ledger = Ledger()
    for number in range(1, 4):
        for writer in range(2):
            name = f"{writer}/{number}"
            story.happened("acme", "k", ApiKeyRenamed(name=name))
            ledger.promise(name, Promise(story.entries[-1].envelope.event_id, writer, number))
    return [Recorded(e.position, e.subject, e.payload, e.envelope) for e in story.entries], ledger


def renumbered(messages: list[Recorded]) -> list[Recorded]:
    return [replace(message, position=number) for number, message in enumerate(messages, start=1)]


def swapped(messages: list[Recorded]) -> list[Recorded]:
    """A writer's second and first intent change places, and every link is forged to fit."""
    told = Story().happened("acme", "k", example(ApiKeyIssued))
    for name in ("0/2", "1/1", "0/1", "1/2", "0/3", "1/3"):
        told.happened("acme", "k", ApiKeyRenamed(name=name))
    return [Recorded(e.position, e.subject, e.payload, e.envelope) for e in told.entries]


def test_an_honest_log_keeps_every_promise() -> None:
    assert judge(*honest()) == Findings(0, 0, 0)


@pytest.mark.parametrize(
    ("spoil", "findings"),
    [
        (lambda log: log[:-1], Findings(1, 0, 0)),
        (lambda log: renumbered([*log[:SPOILED], *log[SPOILED + 1 :]]), Findings(1, 0, 1)),
        (lambda log: [*log[:SPOILED], *log[SPOILED + 1 :]], Findings(1, 0, 2)),
        (lambda log: renumbered([*log, log[-1]]), Findings(0, 1, 1)),
        (lambda log: renumbered([*log, log[0]]), Findings(0, 1, 1)),
        (lambda log: renumbered([log[0], log[2], log[1], *log[3:]]), Findings(0, 0, 3)),
        (swapped, Findings(0, 0, 1)),
    ],
    ids=["the last is gone", "one is gone", "a hole", "an intent twice", "an event twice", "swapped", "forged"],
)
def test_the_judge_sees_what_is_broken(spoil: Callable[[list[Recorded]], list[Recorded]], findings: Findings) -> None:
    messages, ledger = honest()
    assert judge(spoil(messages), ledger) == findings


def test_what_a_reply_says_after_the_lights_went_out_is_no_promise() -> None:
    ledger = Ledger(open=False)
    ledger.promise("0/1", Promise("e", 0, 1))
    assert ledger.acked == {}


@pytest.mark.parametrize(("open_log", "rules"), [(JetStreamLog, True), (CarelessLog, False)])
async def test_racing_writers_keep_their_promises_by_the_rules_alone(
    nats_server: EmbeddedNats, open_log: type[JetStreamLog | CarelessLog], rules: bool
) -> None:
    ledger = Ledger()
    async with writing(nats_server.url, ledger, round_number=1, open_log=open_log):
        await until(lambda: reached(ledger, ACKED), "the writers got stuck")
    findings = judge(await read_log(nats_server.url), ledger)
    assert (findings == Findings(0, 0, 0)) == rules, findings
