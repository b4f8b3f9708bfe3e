"""A provider's own words, as they may be kept: what says why stays, what names a person goes."""

import pytest

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError
from handlers.provider_words import MAX_WORDS, Trouble, said, trouble_of


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("quota exceeded\n  for L4 ", "quota exceeded for L4"),
        (
            "User: arn:aws:iam::123456789012:user/alice.doe is not authorized to perform: ec2:RunInstances",
            "User: arn:aws:iam::123456789012:user/*** is not authorized to perform: ec2:RunInstances",
        ),
        ("arn:aws:sts::1:assumed-role/Ops/alice denied", "arn:aws:sts::1:assumed-role/*** denied"),
        ("the line HF_TOKEN=hf_abcdefghijkl is wrong", "the line HF_TOKEN=hf_*** is wrong"),
        ("project of alice@example.org is locked", "project of *** is locked"),
        ("arn:aws:ec2:eu-west-3:1:instance/i-1 is gone", "arn:aws:ec2:eu-west-3:1:instance/i-1 is gone"),
    ],
)
def test_what_names_a_person_or_tells_a_token_is_masked(text: str, kept: str) -> None:
    assert said(text) == kept


def test_long_words_are_cut() -> None:
    assert len(said("no " * MAX_WORDS)) == MAX_WORDS
    assert said("no " * MAX_WORDS).endswith("...")


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (CloudRefusedError("QUOTA", "no more L4", "quota"), Trouble("quota", "no more L4")),
        (CloudUnavailableError("slow down", "rate_limited", 3), Trouble("rate_limited", "slow down")),
        (TimeoutError(), Trouble("transient", "no answer in time")),
        (ConnectionResetError(), Trouble("transient", "ConnectionResetError")),
        (OSError("the vault is away"), Trouble("transient", "the vault is away")),
    ],
)
def test_every_fault_has_a_kind_and_words(fault: CloudRefusedError | OSError, trouble: Trouble) -> None:
    assert trouble_of(fault) == trouble
