"""Double activation: both flags, each by its own people."""

import pytest

from domain.activation import Activation, Flag, activation_with, with_flag
from domain.decider import Rejected
from domain.instance_commands import ActivateInstance, DeactivateInstance
from domain.instance_events import InstanceActivated, InstanceDeactivated, InstanceRequested
from domain.permissions import flags_allowed, granted_flags
from domain.roles import Role
from tests.examples import example
from tests.given import given

REQUESTED = example(InstanceRequested)


def test_only_both_flags_together_make_a_resource_work() -> None:
    assert [activation_with(flags).operational for flags in ((), ("technical",), ("economic",))] == [False] * 3
    assert activation_with(("technical", "economic")).operational


def test_what_is_missing_is_named() -> None:
    assert Activation().missing == ("technical", "economic")
    assert with_flag(Activation(), "technical", value=True).missing == ("economic",)
    assert with_flag(activation_with(("technical", "economic")), "economic", value=False).missing == ("economic",)


@pytest.mark.parametrize(
    ("role", "flags"),
    [("owner", ("technical", "economic")), ("admin", ("technical",)), ("manager", ("economic",)), ("user", ())],
)
def test_each_role_has_its_flags(role: Role, flags: tuple[Flag, ...]) -> None:
    assert flags_allowed(role) == flags
    assert granted_flags(role, None) == flags
    assert granted_flags(role, ()) == ()


def test_a_wish_for_a_flag_beyond_the_role_is_refused() -> None:
    with pytest.raises(Rejected, match="activation_not_allowed"):
        granted_flags("admin", ("technical", "economic"))


def test_setting_a_flag_twice_is_setting_it_once() -> None:
    given(REQUESTED).when(ActivateInstance(flag="technical")).then_nothing()
    off = InstanceDeactivated(flag="technical")
    given(REQUESTED).when(DeactivateInstance(flag="technical")).then(off)
    given(REQUESTED, off).when(DeactivateInstance(flag="technical")).then_nothing()
    given(REQUESTED, off).when(ActivateInstance(flag="technical")).then(InstanceActivated(flag="technical"))
