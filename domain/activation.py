"""Double activation (SPEC 6.5): a resource works only when its technical and its economic flag are both set.

    technical: owner or admin says that it may run       economic: owner or manager says that it may cost

Each flag is an act of its own, recorded with its actor and time in the envelope. The surprising rule: a flag says
nothing about the other; an owner, who may set both, still sets two.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

Flag = Literal["technical", "economic"]
FLAGS: tuple[Flag, ...] = ("technical", "economic")


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """Which flags of a resource are set."""

    technical: bool = False
    economic: bool = False

    @property
    def operational(self) -> bool:
        return self.technical and self.economic

    @property
    def missing(self) -> tuple[Flag, ...]:
        """What a reply names when the resource does not work."""
        return tuple(flag for flag in FLAGS if not getattr(self, flag))

    def is_set(self, flag: Flag) -> bool:
        return bool(getattr(self, flag))


def activation_with(flags: Iterable[Flag]) -> Activation:
    return Activation(**dict.fromkeys(flags, True))


def with_flag(activation: Activation, flag: Flag, *, value: bool) -> Activation:
    return replace(activation, technical=value) if flag == "technical" else replace(activation, economic=value)
