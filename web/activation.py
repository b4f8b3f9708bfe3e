"""The two flags of a resource at the REST edge: how they are shown, changed, and who may change which (SPEC 6.5)."""

from domain.activation import Activation, Flag
from domain.permissions import flags_allowed
from web.auth import Member
from web.errors import ApiError
from web.shapes import Body, Reply


class FlagChange(Body):
    flag: Flag
    value: bool


class ActivationShown(Reply):
    """`missing`: the flags that keep it from working; empty when it is operational."""

    technical: bool
    economic: bool
    operational: bool
    missing: list[Flag]


def activation_shown(activation: Activation) -> ActivationShown:
    return ActivationShown(
        technical=activation.technical,
        economic=activation.economic,
        operational=activation.operational,
        missing=list(activation.missing),
    )


def require_flag(caller: Member, flag: Flag) -> None:
    """The route lets in whoever may change any flag; this one asks about this flag.

    Raises:
        ApiError: 403 activation_not_allowed.
    """
    if flag not in flags_allowed(caller.role):
        raise ApiError(403, "activation_not_allowed", f"Role {caller.role} may not change the {flag} flag.")
