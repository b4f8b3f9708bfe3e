"""The controls: each law of the recorded histories bites when the code is doctored."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.decider import Decider
from tests.histories.corpus import Corpus, Record, fingerprint
from tests.histories.laws import all_findings
from tests.histories.parcel import FIRST, SECOND, THIRD, UPCASTS_OF_PARCEL, WORD, parcels, release
from tests.histories.record import CannotRecordError, record

EXAMPLES = (FIRST(2500), SECOND(1.5), THIRD(3.0, "post"))


class Metered(msgspec.Struct, frozen=True):
    request: str
    schema: int = 1


METERED = Record("metered", Metered, "meter.acme")


@pytest.fixture
async def corpus(tmp_path: Path) -> Corpus:
    """Recorded by three releases, one after the other."""
    for event in (FIRST, SECOND, THIRD):
        await recorded(tmp_path, event)
    return Corpus(tmp_path)


async def recorded(folder: Path, event: type[Any]) -> list[str]:
    return await record(
        Corpus(folder),
        [parcels(event)],
        UPCASTS_OF_PARCEL,
        examples=EXAMPLES,
        records=[METERED],
        record_examples=[Metered("r-1")],
    )


def findings(
    corpus: Corpus,
    deciders: Sequence[Decider[Any, Any, Any]] = (parcels(THIRD),),
    upcasts: Any = UPCASTS_OF_PARCEL,
    records: Sequence[Record] = (METERED,),
) -> list[str]:
    return all_findings(Corpus(corpus.folder), deciders, upcasts, records)


async def test_three_releases_leave_three_samples_and_nothing_to_find(corpus: Corpus) -> None:
    versions = [msgspec.json.decode(line.payload)["schema"] for line in corpus.lines(WORD)]
    assert (versions, findings(corpus)) == ([1, 2, 3], [])


async def test_recording_adds_and_never_rewrites(tmp_path: Path) -> None:
    await recorded(tmp_path, FIRST)
    before = Corpus(tmp_path).raw_lines(WORD)
    assert await recorded(tmp_path, SECOND) == ["ParcelSent/2"]
    assert Corpus(tmp_path).raw_lines(WORD)[: len(before)] == before
    assert await recorded(tmp_path, SECOND) == []


def test_a_field_that_changed_under_a_stored_schema_is_found(corpus: Corpus) -> None:
    changed = release(3, [("weight_kg", float), ("carrier", bytes)])
    finding = findings(corpus, [parcels(changed)])[0]
    assert finding.startswith("the fields of ParcelSent changed under schema 3, which has been stored: set SCHEMA = 4")
    assert '("ParcelSent", 3) to UPCASTS' in finding
    assert "just histories" in finding


def test_a_field_added_with_a_default_is_a_change_too(corpus: Corpus) -> None:
    class ParcelSent(msgspec.Struct, frozen=True):
        SCHEMA = 3
        weight_kg: float
        carrier: str
        insured: bool = False

    assert "the fields of ParcelSent changed" in findings(corpus, [parcels(ParcelSent)])[0]


def test_words_about_a_field_are_no_change() -> None:
    class Told(msgspec.Struct):
        description: str

    class Retold(msgspec.Struct):
        """Now with a docstring."""

        description: str

    Retold.__name__ = Told.__name__
    assert fingerprint(Told) == fingerprint(Retold)
    assert fingerprint(Told) != fingerprint(release(1, [("title", str)], name="Told"))


def test_an_event_that_vanished_is_found(corpus: Corpus) -> None:
    other = release(1, [("at", str)], name="ParcelLost")
    found = findings(corpus, [parcels(other)])
    assert any("ParcelSent has been stored, but no aggregate declares it any more" in finding for finding in found)


def test_a_new_event_without_a_sample_is_found(corpus: Corpus) -> None:
    fourth = release(4, [("kg", float)])
    upcasts = {**UPCASTS_OF_PARCEL, ("ParcelSent", 3): lambda data: {"kg": data["weight_kg"]}}
    assert findings(corpus, [parcels(fourth)], upcasts) == [
        "ParcelSent of schema 4 is not registered: record a sample with `just histories`"
    ]


def test_a_schema_that_goes_back_is_found(corpus: Corpus) -> None:
    assert any(
        "fell back to schema 2, though 3 has been stored" in found for found in findings(corpus, [parcels(SECOND)])
    )


@pytest.mark.parametrize("schema", [1, 2])
def test_a_missing_upcast_is_found(corpus: Corpus, schema: int) -> None:
    upcasts = {key: upcast for key, upcast in UPCASTS_OF_PARCEL.items() if key != ("ParcelSent", schema)}
    [finding] = findings(corpus, upcasts=upcasts)
    assert "parcel.jsonl cannot be read" in finding
    assert f"no upcast for ('ParcelSent', {schema})" in finding


def test_an_upcast_to_the_wrong_shape_is_found(corpus: Corpus) -> None:
    upcasts = {**UPCASTS_OF_PARCEL, ("ParcelSent", 2): lambda data: data}
    assert "missing required field `carrier`" in findings(corpus, upcasts=upcasts)[0]


def test_a_history_that_no_longer_folds_is_found(corpus: Corpus) -> None:
    def refuse(_state: object, _event: object, _at: object) -> Any:
        raise ZeroDivisionError

    [finding] = findings(corpus, [replace(parcels(THIRD), evolve=refuse)])
    assert "ZeroDivisionError" in finding


def test_altered_bytes_are_found(corpus: Corpus) -> None:
    path = corpus.folder / f"{WORD}.jsonl"
    path.write_bytes(path.read_bytes().replace(b"2500", b"2501"))
    found = findings(corpus)
    assert found[0].startswith("parcel.jsonl is not as it was recorded")
    assert "is not a chain" in found[1]


def test_a_line_that_was_taken_away_is_found(corpus: Corpus) -> None:
    path = corpus.folder / f"{WORD}.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert [finding.split(":")[0] for finding in findings(corpus)] == [
        "parcel.jsonl is not as it was recorded",
        "ParcelSent of schema 3 is registered without a sample",
    ]


def test_a_file_that_nobody_recorded_is_found(corpus: Corpus) -> None:
    (corpus.folder / "stray.jsonl").touch()
    assert findings(corpus) == [
        "stray.jsonl was not written by the recorder: remove it, and record a sample with `just histories`"
    ]


def test_a_record_without_an_envelope_is_held_to_the_same(corpus: Corpus) -> None:
    class Metered(msgspec.Struct, frozen=True):
        request: str
        tenant: str
        schema: int = 1

    found = findings(corpus, records=[Record("metered", Metered, "meter.acme")])
    assert found[0].startswith("the fields of Metered changed under schema 1")
    assert "metered.jsonl cannot be read" in found[1]


async def test_a_change_under_a_stored_schema_is_not_recorded_away(corpus: Corpus) -> None:
    with pytest.raises(CannotRecordError, match="set SCHEMA = 4"):
        await recorded(corpus.folder, release(3, [("weight_kg", float)]))
