"""Scaleway's refusals, word for word where an answer of theirs is public, in their shape where none is.

    400 invalid_arguments, invalid_request_error, precondition_failed    401 denied_authentication
    403 permissions_denied, quotas_exceeded     404 not_found, unknown_resource     409 transient_state
    412 out_of_stock, precondition_failed       423 locked     429 too_many_requests     5xx internal

The surprising rule: one fact has two bodies, by which of the two APIs is asked. The older Instance API says
`unknown_resource` and refuses a server in use with 400; the Block API says `not_found` and refuses with 412.
"""

from typing import Any


class ApiError(Exception):
    """An answer that is not 2xx; `headers` go with it."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers or {}


def invalid_argument(name: str, reason: str, help_message: str) -> ApiError:
    """`reason`: "required", "format" or "constraint"."""
    detail = {"argument_name": name, "reason": reason, "help_message": help_message}
    return ApiError(400, {"type": "invalid_arguments", "message": "invalid argument(s)", "details": [detail]})


def missing_arguments(*names: str) -> ApiError:
    details = [{"argument_name": n, "reason": "required", "help_message": "required key not provided"} for n in names]
    return ApiError(400, {"type": "invalid_arguments", "message": "invalid argument(s)", "details": details})


def invalid_request(message: str) -> ApiError:
    return ApiError(400, {"type": "invalid_request_error", "message": message})


def denied_authentication() -> ApiError:
    body = {"type": "denied_authentication", "message": "authentication is denied", "method": "api_key"}
    return ApiError(401, {**body, "reason": "not_found"})


def permissions_denied(action: str, resource: str) -> ApiError:
    details = [{"action": action, "resource": resource}]
    return ApiError(403, {"type": "permissions_denied", "message": "insufficient permissions", "details": details})


def quotas_exceeded(resource: str, *, quota: int, current: int) -> ApiError:
    details = [{"resource": resource, "quota": quota, "current": current}]
    return ApiError(403, {"type": "quotas_exceeded", "message": "quota(s) exceeded", "details": details})


def unknown_resource(kind: str, resource_id: str) -> ApiError:
    """The Instance API's 404, e.g. of a kind "Server"."""
    return ApiError(404, {"type": "unknown_resource", "message": f"{kind} '{resource_id}' not found"})


def not_found(resource: str, resource_id: str) -> ApiError:
    """The 404 of the Block API, and of the Instance API for a block volume."""
    body = {"type": "not_found", "message": "resource is not found", "resource": resource, "resource_id": resource_id}
    return ApiError(404, body)


def transient_state(resource: str, resource_id: str, state: str) -> ApiError:
    body = {"type": "transient_state", "message": "resource is in a transient state", "resource": resource}
    return ApiError(409, {**body, "resource_id": resource_id, "current_state": state})


def out_of_stock(commercial_type: str) -> ApiError:
    return ApiError(412, {"type": "out_of_stock", "message": "resource is out of stock", "resource": commercial_type})


def still_in_use(help_message: str, *, status: int = 412) -> ApiError:
    body = {"type": "precondition_failed", "message": "precondition failed", "precondition": "resource_still_in_use"}
    return ApiError(status, {**body, "help_message": help_message})


def locked(resource: str, resource_id: str) -> ApiError:
    body = {"type": "locked", "message": "resource is locked", "resource": resource, "resource_id": resource_id}
    return ApiError(423, body)


def too_many_requests(retry_after_s: int) -> ApiError:
    body = {"type": "too_many_requests", "message": "too many requests, slow down"}
    return ApiError(429, body, {"Retry-After": str(retry_after_s)})


def internal(status: int = 503) -> ApiError:
    return ApiError(status, {"type": "internal", "message": "internal error"})
