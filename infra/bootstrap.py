"""The first start: a catalogue, an administrator, an organisation. Run at every start; it changes nothing twice.

    catalogue models ── administrator (password file) ── organisation owned by the administrator

All ids derive from fixed names, so two processes that do this at once, or one that died in the middle, end at the same
place. There is no default password: one is made by chance, or taken from the operator's file, unless it can be
guessed. The surprising rule: it never corrects. A model that was delisted or a password that was changed stays so.
"""

import asyncio
from pathlib import Path
from secrets import token_urlsafe

import structlog

from domain.catalogue import SEED_MODELS, model_id_of
from domain.ids import PLATFORM, OrganizationId, UserId, derived_id
from domain.message import Context
from domain.model import MODEL, ListModel
from domain.organization import ORGANIZATION
from domain.organization_commands import CreateOrganization
from domain.ports import Dispatch, Load
from domain.user import USER, CreateUser, RecordPasswordSet
from infra.environment import Environment
from infra.passwords import Passwords
from infra.secret_files import SecretFileError, secret_file
from infra.vault import Vault
from web.password_rules import weakness_of

ADMIN = UserId(derived_id("bootstrap", "user/admin"))
FIRST_ORGANIZATION = OrganizationId(derived_id("bootstrap", "organization/first"))
ADMIN_PASSWORD_FILE = "admin_password"  # noqa: S105 - a file's name
PASSWORD_CHANCE_BYTES = 18
"""24 characters, 144 bits."""
FALLBACK_SLUG = "first-organization"

_CONTEXT = Context(actor="system:bootstrap", correlation=derived_id("bootstrap", "correlation"))

_log = structlog.get_logger()


async def bootstrap(
    environment: Environment, *, dispatch: Dispatch, load: Load, vault: Vault, passwords: Passwords
) -> None:
    """Leaves a platform that one can sign in to.

    Raises:
        SecretFileError: the given password file cannot be used.
        OSError: the log or the vault does not answer; start again.
    """
    await asyncio.gather(*(_list_model(model, dispatch, load) for model in SEED_MODELS))
    await _create_admin(environment, dispatch, load, vault)
    await _set_password(environment, dispatch, load, passwords)
    organization = CreateOrganization(name=environment.organization_name, owner=ADMIN, fallback_slug=FALLBACK_SLUG)
    if (await load(ORGANIZATION, FIRST_ORGANIZATION, FIRST_ORGANIZATION)).version == 0:
        await dispatch(ORGANIZATION, FIRST_ORGANIZATION, FIRST_ORGANIZATION, organization, _CONTEXT)


async def _list_model(model: ListModel, dispatch: Dispatch, load: Load) -> None:
    model_id = model_id_of(model.code)
    if (await load(MODEL, PLATFORM, model_id)).version == 0:
        await dispatch(MODEL, PLATFORM, model_id, model, _CONTEXT)


async def _create_admin(environment: Environment, dispatch: Dispatch, load: Load, vault: Vault) -> None:
    if (await load(USER, PLATFORM, ADMIN)).state.exists:
        return
    command = CreateUser(
        username=await vault.seal(ADMIN, "username", environment.admin_username),
        username_digest=vault.digest("username", environment.admin_username),
        email=await vault.seal(ADMIN, "email", environment.admin_email),
        email_digest=vault.digest("email", environment.admin_email),
        first_name=await vault.seal(ADMIN, "first_name", "Platform"),
        last_name=await vault.seal(ADMIN, "last_name", "Administrator"),
        role="admin",
    )
    await dispatch(USER, PLATFORM, ADMIN, command, _CONTEXT)
    _log.info("admin_created", user=ADMIN)


async def _set_password(environment: Environment, dispatch: Dispatch, load: Load, passwords: Passwords) -> None:
    """The hash first, the event after it: whoever reads the event can sign in."""
    if (await load(USER, PLATFORM, ADMIN)).state.has_password and await passwords.is_set(ADMIN):
        return
    await passwords.set_password(ADMIN, _first_password(environment))
    await dispatch(USER, PLATFORM, ADMIN, RecordPasswordSet(), _CONTEXT)


def _first_password(environment: Environment) -> str:
    """From the operator's file, else by chance into a file of ours."""
    given = environment.admin_password_file
    if given is None:
        return _own(environment.secrets_dir / ADMIN_PASSWORD_FILE)
    password = _read(given)
    own_words = (environment.admin_username, environment.admin_email, environment.organization_name)
    weak = weakness_of(password, min_length=environment.min_password_length, own_words=own_words)
    if weak:
        raise SecretFileError(f"the password in {given} will not do: {weak.message} Write another one into it.")
    return password


def _read(given: Path) -> str:
    try:
        return given.read_text().strip()
    except OSError as error:
        raise SecretFileError(
            f"{given} cannot be read ({error.strerror}); correct INVENTIV_ADMIN_PASSWORD_FILE"
        ) from error


def _own(path: Path) -> str:
    return secret_file(path, lambda: token_urlsafe(PASSWORD_CHANCE_BYTES).encode()).decode().strip()
