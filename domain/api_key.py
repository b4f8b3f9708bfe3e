"""An API key: who may call the gateway. Only a hash of the secret is ever stored; the secret is shown once.

sk-inv-<56 hex of chance><8 hex checksum>      the checksum tells a mistyped key from an unknown one, without a look-up

Whoever gives a key its scope, or is shown a secret of it, must themselves be allowed all that the key allows: `limit`
in a command. A key that makes keys is such a maker too. The surprising rule: rotation has a limit as well, for the new
secret is told to whoever rotates.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import ClassVar, assert_never

import msgspec
from msgspec.structs import replace

from domain.activation import Activation, Flag, activation_with, with_flag
from domain.decider import Decider, Rejected
from domain.ids import UserId
from domain.key_scope import KeyScope, is_within, validated
from domain.values import MAX_NAME_LENGTH

KEY_PREFIX = "sk-inv-"
SECRET_BYTES = 28
"""Chance in a key; 56 hex digits, followed by 8 of checksum, make SPEC 6.8's 64."""
SHOWN_PREFIX_LENGTH = 12
MAX_OVERLAP = timedelta(days=30)
"""How long the secret before a rotation may go on working."""


class IssueApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key for a person (`owner`) or for the organisation itself (None).

    Attributes:
        limit: what its creator may do; a scope that is wider is refused.
        activate: the flags to set at once, which the creator's role must allow.
    """

    name: str
    owner: UserId | None
    created_by: UserId
    key_sha256: str
    key_prefix: str
    scope: KeyScope
    limit: KeyScope
    activate: tuple[Flag, ...]


class RenameApiKey(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class ChangeApiKeyScope(msgspec.Struct, frozen=True, kw_only=True):
    """`limit`: what whoever changes it may do."""

    scope: KeyScope
    limit: KeyScope


class RotateApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new secret; the old one works until `previous_valid_until`, MAX_OVERLAP at most, and the one before it no more.

    `limit`: what whoever is shown the new secret may do.
    """

    key_sha256: str
    key_prefix: str
    previous_valid_until: datetime
    limit: KeyScope


class ActivateApiKey(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class DeactivateApiKey(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class RevokeApiKey(msgspec.Struct, frozen=True):
    pass


ApiKeyCommand = (
    IssueApiKey | RenameApiKey | ChangeApiKeyScope | RotateApiKey | ActivateApiKey | DeactivateApiKey | RevokeApiKey
)


class ApiKeyIssued(msgspec.Struct, frozen=True, kw_only=True):
    """`owner` None: the organisation's own key."""

    SCHEMA: ClassVar[int] = 3

    name: str
    owner: UserId | None
    created_by: UserId
    key_sha256: str
    key_prefix: str
    scope: KeyScope
    activated: tuple[Flag, ...]


class ApiKeyRenamed(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class ApiKeyScopeChanged(msgspec.Struct, frozen=True, kw_only=True):
    SCHEMA: ClassVar[int] = 2

    scope: KeyScope


class ApiKeyRotated(msgspec.Struct, frozen=True, kw_only=True):
    key_sha256: str
    key_prefix: str
    previous_valid_until: datetime


class ApiKeyActivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class ApiKeyDeactivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class ApiKeyRevoked(msgspec.Struct, frozen=True):
    pass


ApiKeyEvent = (
    ApiKeyIssued
    | ApiKeyRenamed
    | ApiKeyScopeChanged
    | ApiKeyRotated
    | ApiKeyActivated
    | ApiKeyDeactivated
    | ApiKeyRevoked
)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """`previous_sha256`: the secret before the last rotation, good until `previous_valid_until`."""

    issued: bool = False
    revoked: bool = False
    name: str = ""
    owner: UserId | None = None
    created_by: UserId | None = None
    key_sha256: str = ""
    previous_sha256: str = ""
    previous_valid_until: datetime | None = None
    scope: KeyScope = KeyScope()
    activation: Activation = Activation()

    def accepts(self, key_sha256: str, at: datetime) -> bool:
        """Whether this is the hash of a secret that counts at that moment; says nothing about scope and flags."""
        if not self.issued or self.revoked:
            return False
        overlaps = self.previous_valid_until is not None and at < self.previous_valid_until
        return key_sha256 == self.key_sha256 or (overlaps and key_sha256 == self.previous_sha256)


def key_from(chance: bytes) -> str:
    """The clear key made of 28 random bytes."""
    body = chance.hex()
    return f"{KEY_PREFIX}{body}{_checksum(body)}"


def is_well_formed(key: str) -> bool:
    """True when prefix, length and checksum fit; says nothing about whether such a key was issued."""
    body = key.removeprefix(KEY_PREFIX)
    return key.startswith(KEY_PREFIX) and len(body) == 2 * SECRET_BYTES + 8 and _checksum(body[:-8]) == body[-8:]


def _checksum(body: str) -> str:
    return sha256(f"inventiv-key:{body}".encode()).hexdigest()[:8]


def key_hash(key: str) -> str:
    """What is stored and looked up. A plain hash is enough for 224 bits of chance."""
    return sha256(key.encode()).hexdigest()


def evolve(state: ApiKey, event: ApiKeyEvent, _at: datetime) -> ApiKey:
    match event:
        case ApiKeyIssued():
            return ApiKey(
                issued=True,
                name=event.name,
                owner=event.owner,
                created_by=event.created_by,
                key_sha256=event.key_sha256,
                scope=event.scope,
                activation=activation_with(event.activated),
            )
        case ApiKeyRenamed():
            return replace(state, name=event.name)
        case ApiKeyScopeChanged():
            return replace(state, scope=event.scope)
        case ApiKeyRotated():
            return replace(
                state,
                key_sha256=event.key_sha256,
                previous_sha256=state.key_sha256,
                previous_valid_until=event.previous_valid_until,
            )
        case ApiKeyActivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=True))
        case ApiKeyDeactivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=False))
        case ApiKeyRevoked():
            return replace(state, revoked=True)
        case _:
            assert_never(event)


def decide(state: ApiKey, command: ApiKeyCommand, at: datetime) -> Sequence[ApiKeyEvent]:
    if not state.issued and not isinstance(command, IssueApiKey):
        raise Rejected("api_key_not_found", "There is no API key with this id.")
    match command:
        case IssueApiKey():
            return _issue(state, command, at)
        case RenameApiKey():
            name = _valid_name(command.name)
            return [] if name == state.name else [ApiKeyRenamed(name=name)]
        case RevokeApiKey():
            return [] if state.revoked else [ApiKeyRevoked()]
        case ChangeApiKeyScope():
            return _change_scope(_alive(state), command, at)
        case RotateApiKey():
            return _rotate(_alive(state), command, at)
        case ActivateApiKey():
            is_set = _alive(state).activation.is_set(command.flag)
            return [] if is_set else [ApiKeyActivated(flag=command.flag)]
        case DeactivateApiKey():
            is_set = _alive(state).activation.is_set(command.flag)
            return [ApiKeyDeactivated(flag=command.flag)] if is_set else []
        case _:
            assert_never(command)


def _alive(state: ApiKey) -> ApiKey:
    if state.revoked:
        raise Rejected("api_key_revoked", "This API key is revoked for good; make a new one.")
    return state


def _issue(state: ApiKey, command: IssueApiKey, at: datetime) -> Sequence[ApiKeyEvent]:
    if state.issued:
        return []
    return [
        ApiKeyIssued(
            name=_valid_name(command.name),
            owner=command.owner,
            created_by=command.created_by,
            key_sha256=command.key_sha256,
            key_prefix=command.key_prefix,
            scope=_granted(command.scope, command.limit, at),
            activated=command.activate,
        )
    ]


def _change_scope(state: ApiKey, command: ChangeApiKeyScope, at: datetime) -> Sequence[ApiKeyEvent]:
    if command.scope == state.scope:
        return []
    scope = _granted(command.scope, command.limit, at)
    return [] if scope == state.scope else [ApiKeyScopeChanged(scope=scope)]


def _granted(scope: KeyScope, limit: KeyScope, at: datetime) -> KeyScope:
    scope = validated(scope, at=at)
    if not is_within(scope, limit):
        raise _too_wide()
    return scope


def _rotate(state: ApiKey, command: RotateApiKey, at: datetime) -> Sequence[ApiKeyEvent]:
    if command.key_sha256 == state.key_sha256:
        return []
    if not is_within(state.scope, command.limit):
        raise _too_wide()
    return [
        ApiKeyRotated(
            key_sha256=command.key_sha256,
            key_prefix=command.key_prefix,
            previous_valid_until=min(command.previous_valid_until, at + MAX_OVERLAP),
        )
    ]


def _too_wide() -> Rejected:
    return Rejected("key_wider_than_creator", "An API key may never do more than whoever makes, changes or rotates it.")


def _valid_name(name: str) -> str:
    name = name.strip()
    if not name:
        raise Rejected("name_required", "An API key needs a name.")
    if len(name) > MAX_NAME_LENGTH:
        raise Rejected("name_too_long", f"A name has at most {MAX_NAME_LENGTH} characters.")
    return name


API_KEY: Decider[ApiKeyCommand, ApiKeyEvent, ApiKey] = Decider(
    aggregate="api_key",
    events=(
        ApiKeyIssued,
        ApiKeyRenamed,
        ApiKeyScopeChanged,
        ApiKeyRotated,
        ApiKeyActivated,
        ApiKeyDeactivated,
        ApiKeyRevoked,
    ),
    initial=ApiKey(),
    state_type=ApiKey,
    evolve=evolve,
    decide=decide,
)
