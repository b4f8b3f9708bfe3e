"""How commands call the platform: one door that turns each failure into what, why, what to do, and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

from infra.cli.output import CommandError, ExitCode
from infra.client import Api, ApiError, NoCredentialsError, UnreachableError
from infra.environment import Environment, read_environment

_BY_STATUS = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    410: ExitCode.NOT_FOUND,
    502: ExitCode.UNREACHABLE,
    503: ExitCode.UNREACHABLE,
    504: ExitCode.TIMED_OUT,
}
_BY_CODE = {
    "no_ready_worker": ExitCode.NO_CAPACITY,
    "PROVIDER_OUT_OF_STOCK": ExitCode.NO_CAPACITY,
    "INSTANCE_TYPE_NOT_AVAILABLE_IN_ZONE": ExitCode.NO_CAPACITY,
    "INVALID_MODEL": ExitCode.NOT_FOUND,
    "INVALID_PROVIDER": ExitCode.NOT_FOUND,
    "INVALID_ZONE": ExitCode.NOT_FOUND,
    "INVALID_INSTANCE_TYPE": ExitCode.NOT_FOUND,
    "MISSING_MODEL": ExitCode.USAGE,
    "MISSING_PARAMS": ExitCode.USAGE,
    "PRICE_UNKNOWN": ExitCode.USAGE,
}
_CURES = {
    "invalid_credentials": "The admin password file does not fit; see the data folder's secrets/admin_password.",
    "password_reset_needed": "Ask for a link to set a new password; `inventiv inbox ls` shows mails that stay here.",
    "no_ready_worker": "Deploy the model (`inventiv deploy MODEL`) or wait for it (`inventiv instance ls`).",
    "key_table_too_old": "The gateway hears nothing from NATS: see `inventiv status`, and the gateway's /readyz.",
    "model_not_found": "`inventiv model ls` lists the catalogue; `inventiv deploy MODEL` makes one answer.",
    "INVALID_MODEL": "`inventiv model ls` lists what can be deployed.",
    "INCOMPATIBLE_MODEL_INSTANCE": "`--plan` shows what would fit; `--context` asks for less of it.",
    "PRICE_UNKNOWN": "`--price EUR` says what an hour costs you there.",
    "no_current_organization": "`inventiv org ls` lists yours; `inventiv org switch SLUG` enters one.",
    "last_owner_cannot_be_removed": "`inventiv member role MEMBER owner` makes someone else an owner.",
    "last_owner_cannot_be_changed": "`inventiv member role MEMBER owner` makes someone else an owner.",
    "organization_has_live_instances": "`inventiv deployment ls` and `inventiv deployment stop ID` end them.",
    "invitation_already_exists": "`inventiv invite revoke EMAIL` takes it back.",
    "api_key_not_found": "`inventiv key ls` lists the keys.",
    "api_key_not_operational": "`inventiv key activate ID FLAG` sets what is missing; ask an owner, admin or manager.",
    "key_wider_than_creator": "Ask for a narrower role or scope: see `inventiv key create --help`.",
    "upstream_address_not_allowed": "An operator allows it, for example by INVENTIV_UPSTREAM_ALLOW=10.0.0.9:8000.",
    "upstream_refused_us": "`inventiv upstream key ID --key-stdin` gives it another key; look at its account, too.",
    "upstream_key_unavailable": "Try again; if it stays, the gateway's log says why it cannot open the key.",
    "provider_in_use": "`inventiv deployment stop ID` ends them; `inventiv instance ls` shows when they have ended.",
    "provider_not_configured": "`inventiv provider credentials CODE` gives what is missing.",
    "instance_not_terminated": "Stop it first: `inventiv instance stop ID`.",
}


def exit_code_of(status: int, code: str) -> ExitCode:
    """The platform's code decides where it has one of its own; else the HTTP status does."""
    return _BY_CODE.get(code) or _BY_STATUS.get(status, ExitCode.FAILED)


def refusal(status: int, code: str, message: str) -> CommandError:
    return CommandError(exit_code_of(status, code), code, f"{message} ({code})", _CURES.get(code, ""))


def unreachable(url: str) -> CommandError:
    return CommandError(ExitCode.UNREACHABLE, "unreachable", f"Nothing answers at {url}; start it with `inventiv up`.")


def environment() -> Environment:
    try:
        return read_environment()
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, "invalid_environment", str(error)) from error


@contextmanager
def calling() -> Iterator[Api]:
    """The REST API, for one command.

    Raises:
        CommandError: with the exit code that fits.
    """
    with failures_explained(), Api(environment()) as api:
        yield api


@contextmanager
def failures_explained() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise refusal(error.status, error.code, error.message) from error
    except UnreachableError as error:
        raise unreachable(error.url) from error
    except NoCredentialsError as error:
        cure = "Set INVENTIV_DATA_DIR to the platform's data folder, or INVENTIV_API_KEY."
        raise CommandError(ExitCode.NOT_ALLOWED, "no_credentials", str(error), cure) from error
