"""Every reply that is not a success: `{"error": code, "message": sentence}`, and which status its code has.

A refusal's code is the domain's own word; the table gives its status, 400 where it names none. Faults of servers behind
us are 503 with Retry-After. The surprising rule: what belongs to another organisation is answered exactly like what
does not exist.
"""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from domain.decider import Rejected
from projections.projection import NotYetVisibleError
from web.services import TooManyLoginsError

RETRY_AFTER_S = 1
"""Servers behind us are restarted within a second or two."""
MAX_VALIDATION_FINDINGS = 5

STATUS_OF: Mapping[str, int] = {
    "api_key_not_found": 404,
    "deployment_not_found": 404,
    "deployment_has_no_upstream": 409,
    "deployment_stopped": 409,
    "instance_not_found": 404,
    "model_not_found": 404,
    "organization_not_found": 404,
    "session_not_found": 404,
    "user_not_found": 404,
    "organization_slug_already_exists": 409,
    "username_or_email_already_exists": 409,
    "user_already_member": 409,
    "member_not_found": 404,
    "invitation_not_found": 404,
    "invitation_already_exists": 409,
    "invitation_already_accepted": 409,
    "too_many_invitations": 409,
    "email_mismatch": 403,
    "role_change_not_allowed": 403,
    "member_remove_not_allowed": 403,
    "insufficient_permissions_to_invite": 403,
    "cannot_invite_owner_or_admin_role": 403,
    "last_owner_cannot_be_changed": 409,
    "organization_has_live_instances": 409,
    "last_owner_cannot_be_removed": 409,
    "instance_terminating": 409,
    "token_already_exists": 409,
    "worker_not_registered": 409,
    "token_not_found_or_expired": 404,
    "instance_gone": 410,
    "session_invalid_or_expired": 401,
    "activation_not_allowed": 403,
    "api_key_expired": 401,
    "api_key_not_operational": 403,
    "api_key_revoked": 409,
    "endpoint_not_allowed": 403,
    "ip_address_not_allowed": 403,
    "key_wider_than_creator": 403,
    "model_not_allowed": 403,
    "provider_in_use": 409,
    "provider_not_found": 404,
    "too_many_exports": 429,
    "host_not_found": 404,
    "host_already_enrolled": 409,
    "host_serves": 409,
    "host_address_not_allowed": 403,
    "offering_not_found": 404,
    "share_not_found": 404,
    "model_already_exists": 409,
    "model_in_use": 409,
    "offering_already_exists": 409,
    "offering_withdrawn": 409,
    "share_already_exists": 409,
    "share_not_active": 409,
    "share_paused": 409,
    "share_revoked": 409,
    "access_not_requested": 409,
    "trial_already_used": 409,
    "subscription_required": 403,
}
"""Codes of the domain whose status is not 400."""

_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

_log = structlog.get_logger()


class ApiError(Exception):
    """A reply that ends the request here. Headers are added to it."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def not_found(what: str) -> ApiError:
    """`what` in the domain's spelling ("api_key"); the same words as the domain's own refusal."""
    name = {"api_key": "API key", "organization": "organisation"}.get(what, what.replace("_", " "))
    return ApiError(404, f"{what}_not_found", f"There is no {name} with this id.")


def error_reply(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": code, "message": message}, status_code=status, headers=dict(headers or {}))


def answer_errors(app: FastAPI) -> None:
    """Registers one handler for each kind of failure."""
    handlers: dict[type[Exception], Any] = {
        ApiError: _api_error,
        Rejected: _rejected,
        NotYetVisibleError: _not_yet_visible,
        TooManyLoginsError: _too_many_logins,
        RequestValidationError: _invalid_request,
        HTTPException: _http_exception,
        OSError: _unavailable,
        Exception: _internal_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _api_error(request: Request, error: ApiError) -> JSONResponse:
    request.state.refusal = error.code
    return error_reply(error.status, error.code, error.message, error.headers)


async def _rejected(request: Request, refusal: Rejected) -> JSONResponse:
    request.state.refusal = refusal.code
    return error_reply(STATUS_OF.get(refusal.code, 400), refusal.code, refusal.message)


async def _not_yet_visible(request: Request, _error: NotYetVisibleError) -> JSONResponse:
    """A position that the log has not reached itself is no reason to ask again: it is another log's, or invented."""
    asked = request.headers.get("event-position") or request.query_params.get("position") or "0"
    try:
        if int(asked) > await request.app.state.services.log.head():
            return error_reply(400, "invalid_position", "The log has not come so far; is the position another log's?")
    except OSError as away:
        return await _unavailable(request, away)
    message = "The read models have not reached the given Event-Position yet; ask again."
    return error_reply(503, "not_yet_visible", message, {"retry-after": str(RETRY_AFTER_S)})


async def _too_many_logins(_request: Request, _error: TooManyLoginsError) -> JSONResponse:
    message = "Too many logins wait to be checked; try again in a moment."
    return error_reply(429, "too_many_logins", message, {"retry-after": str(RETRY_AFTER_S)})


async def _invalid_request(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Says which field is wrong and why, never what was sent: it could be a password."""
    findings = error.errors()[:MAX_VALIDATION_FINDINGS]
    if any(finding["type"] == "json_invalid" for finding in findings):
        return error_reply(400, "invalid_json", "The body is not valid JSON.")
    message = "; ".join(f"{'.'.join(str(part) for part in f['loc'])}: {f['msg']}" for f in findings)
    return error_reply(400, "invalid_request", message)


async def _http_exception(request: Request, error: HTTPException) -> JSONResponse:
    code = _CODE_OF_STATUS.get(error.status_code, "invalid_request")
    unknown = error.status_code in {404, 405}
    message = f"{request.method} {request.scope['path']} is not an endpoint." if unknown else str(error.detail)
    return error_reply(error.status_code, code, message, error.headers)


async def _unavailable(request: Request, error: OSError) -> JSONResponse:
    _log.warning("dependency_unavailable", method=request.method, path=request.scope["path"], error=str(error))
    message = "A server behind this API does not answer right now; try again."
    return error_reply(503, "unavailable", message, {"retry-after": str(RETRY_AFTER_S)})


async def _internal_error(request: Request, error: Exception) -> JSONResponse:
    _log.error("request_failed", method=request.method, path=request.scope["path"], exc_info=error)
    return error_reply(500, "internal_error", "This is a defect of the server; its log has the details.")
