from domain.aggregates import AGGREGATES
from infra.event_catalogue import TARGET, catalogue, main


def test_the_committed_catalogue_is_what_the_code_says() -> None:
    assert main(["--check"]) == 0, "run `just generate`"


def test_every_event_stands_in_it() -> None:
    text = catalogue()
    missing = [e.__name__ for decider in AGGREGATES for e in decider.events if f"| {e.__name__} |" not in text]
    assert missing == []
    assert TARGET.exists()
