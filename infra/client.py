"""The REST API as a script sees it: finds the platform, logs in, repeats what may be repeated.

    data folder or INVENTIV_API_URL ──> address     admin password ──login──> token, kept in run/cli-session

Every POST carries an Idempotency-Key, so it may be sent again after an unknown outcome; reads carry the position of the
last write and see it. The surprising rule: a platform that answered before, or whose `inventiv up` lives, is given
PATIENCE_S to come back (a role may be restarting); one that never answered fails at once.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from infra.environment import DEFAULT_API_PORT, DEFAULT_GATEWAY_PORT, Environment
from infra.processes.running import Platform, read_platform, write_private

PATIENCE_S = 20.0
"""A killed role is back after its restart pause and about a second of start-up; NATS and Postgres recover before."""
RETRY_PAUSE_S = 0.2
TIMEOUT_S = 30.0
SESSION_COOKIE = "inventiv_session"
_DEFAULT_API_URL = f"http://127.0.0.1:{DEFAULT_API_PORT}"
_DEFAULT_GATEWAY_URL = f"http://127.0.0.1:{DEFAULT_GATEWAY_PORT}"
_COME_AGAIN = frozenset({429, 502, 503, 504})
_IN_FLIGHT = "idempotency_key_in_flight"


class ApiError(Exception):
    """The platform answered no: its status, its code and its sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class UnreachableError(Exception):
    """Nobody answers at `url`; whether a write took effect is unknown."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"Nothing answers at {url} ({why}).")
        self.url = url


class NoCredentialsError(Exception):
    """There is neither an admin password file nor an API key to log in with."""


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where the platform is; `local` when an `inventiv up` on our data folder lives."""

    api_url: str
    gateway_url: str
    secrets_dir: Path
    local: Platform | None


def find_platform(environment: Environment) -> Addresses:
    """INVENTIV_API_URL and INVENTIV_GATEWAY_URL win; else what `inventiv up` wrote down; else the usual ports."""
    local = read_platform(environment.data_dir)
    api_url, gateway_url, secrets_dir = environment.api_url, environment.gateway_url, environment.secrets_dir
    if local is not None:
        api_url = local.api_url if api_url == _DEFAULT_API_URL else api_url
        gateway_url = local.gateway_url if gateway_url == _DEFAULT_GATEWAY_URL else gateway_url
        secrets_dir = Path(local.secrets_dir)
        local = local if api_url == local.api_url else None
    return Addresses(api_url=api_url, gateway_url=gateway_url, secrets_dir=secrets_dir, local=local)


def http_client(url: str, *, timeout_s: float = TIMEOUT_S) -> httpx.Client:
    """Without proxies from the environment; certificates are loaded (130 ms) only where there is TLS to check."""
    return httpx.Client(base_url=url, trust_env=False, verify=url.startswith("https:"), timeout=timeout_s)


class Api:
    """The REST API with our credentials. Use as a context manager.

    Raises (every method):
        ApiError: the platform refused.
        UnreachableError: it cannot be reached, or stays out of order beyond the patience.
        NoCredentialsError: nothing to log in with.
    """

    def __init__(self, environment: Environment) -> None:
        self.addresses = find_platform(environment)
        self._environment = environment
        self._http = http_client(self.addresses.api_url)
        self._session_path = environment.data_dir / "run" / "cli-session"
        self._token = self._kept_token() or ""
        self._answered = self.addresses.local is not None
        self.position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def is_admin(self) -> bool:
        """Whether we log in as the platform's administrator, rather than with an API key."""
        return not self._environment.api_key

    @property
    def password_file(self) -> Path:
        """What the administrator's password is read from, for the next login too."""
        if self.addresses.local:
            return Path(self.addresses.local.admin_password_file)
        return self._environment.admin_password_file or self.addresses.secrets_dir / "admin_password"

    def get(self, path: str, **query: str | int | None) -> Any:
        return self._call("GET", path, query=query)

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, idempotency_key: str = "", **query: str | int | None
    ) -> Any:
        key = idempotency_key or str(uuid.uuid4())
        return self._call("POST", path, query=query, body=body or {}, headers={"Idempotency-Key": key})

    def put(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._call("PUT", path, body=body or {})

    def patch(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._call("PATCH", path, body=body or {})

    def delete(self, path: str, **query: str | int | None) -> Any:
        return self._call("DELETE", path, query=query)

    def server_sent_events(self, path: str, **query: str | int | None) -> Iterator[tuple[str, str]]:
        """(event name, data) of one connection to an SSE route, until it ends; the caller connects again."""
        if not self._token:
            self._login()
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "text/event-stream"}
        parameters = {name: value for name, value in query.items() if value is not None}
        try:
            with self._http.stream("GET", path, params=parameters, headers=headers) as reply:
                if reply.status_code == 401:
                    self._token = ""
                if reply.status_code != 200:
                    reply.read()
                    raise error_of(reply)
                yield from _events_of(reply.iter_lines())
        except httpx.TransportError as error:
            raise UnreachableError(self.addresses.api_url, why(error)) from error

    def chunks(self, path: str, **query: str | int | None) -> Iterator[bytes]:
        """The body of one GET, as it comes; what breaks off is an error, never a shorter body."""
        parameters = {name: value for name, value in query.items() if value is not None}
        for last_try in (False, True):
            if not self._token:
                self._login()
            headers = {"Authorization": f"Bearer {self._token}"}
            try:
                with self._http.stream("GET", path, params=parameters, headers=headers) as reply:
                    if reply.status_code == 401 and not last_try:
                        self._token = ""
                        continue
                    if reply.is_error:
                        reply.read()
                        raise error_of(reply)
                    yield from reply.iter_bytes()
                    return
            except httpx.TransportError as error:
                raise UnreachableError(self.addresses.api_url, why(error)) from error

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request, with a fresh login when the kept one is not accepted any more."""
        request = {
            "params": {name: value for name, value in (query or {}).items() if value is not None},
            "json": body,
            "headers": dict(headers or {}),
        }
        reply = self._send_signed(method, path, request)
        if reply.status_code == 401:
            self._token = ""
            reply = self._send_signed(method, path, request)
        if reply.is_error:
            raise error_of(reply)
        self.position = max(self.position, int(reply.headers.get("Event-Position") or 0))
        return reply.json() if reply.content else None

    def _send_signed(self, method: str, path: str, request: dict[str, Any]) -> httpx.Response:
        if not self._token:
            self._login()
        signed = {**request["headers"], "Authorization": f"Bearer {self._token}"}
        if self.position:
            signed["Event-Position"] = str(self.position)
        return self._send(method, path, **{**request, "headers": signed})

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Again after a lost connection or a 503, while the patience lasts; everything sent here may be repeated."""
        give_up = time.monotonic() + (PATIENCE_S if self._answered else 0)
        while True:
            try:
                reply = self._http.request(method, path, **request)
                self._answered = True
                again = reply.status_code in _COME_AGAIN or (
                    reply.status_code == 409 and _code_and_message(reply)[0] == _IN_FLIGHT
                )
                if not again or time.monotonic() >= give_up:
                    return reply
            except httpx.TransportError as error:
                if time.monotonic() >= give_up:
                    raise UnreachableError(self.addresses.api_url, why(error)) from error
            time.sleep(RETRY_PAUSE_S)

    def _login(self) -> None:
        if self._environment.api_key:
            self._token = self._environment.api_key
            return
        local, path = self.addresses.local, self.password_file
        try:
            password = path.read_text().strip()
        except OSError as error:
            self._require_answer()
            raise NoCredentialsError(f"No credentials: {path} cannot be read ({error.strerror}).") from error
        who = local.admin_username if local else self._environment.admin_username
        reply = self._send("POST", "/auth/login", json={"email": who, "password": password})
        if reply.is_error:
            raise error_of(reply)
        self._token = reply.cookies[SESSION_COOKIE]
        self._http.cookies.clear()  # the token travels as a bearer: no cookie, no cross-site rules
        self._keep_token()

    def _require_answer(self) -> None:
        """Tells "not running" from "no password": the first is the likelier reason for a missing file."""
        self._send("GET", "/healthz")

    def _kept_token(self) -> str | None:
        try:
            kept = msgspec.json.decode(self._session_path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            return None
        return kept.get("token") if kept.get("api_url") == self.addresses.api_url else None

    def _keep_token(self) -> None:
        """Where there is a data folder of ours; elsewhere each command logs in."""
        if self._session_path.parent.is_dir():
            content = {"api_url": self.addresses.api_url, "token": self._token}
            write_private(self._session_path, msgspec.json.encode(content))


def error_of(reply: httpx.Response) -> ApiError:
    return ApiError(reply.status_code, *_code_and_message(reply))


def _code_and_message(reply: httpx.Response) -> tuple[str, str]:
    """From our shape {"error", "message"} or OpenAI's {"error": {"code", "message"}}; else the status line's words."""
    try:
        body = reply.json()
        error = body["error"]
        if isinstance(error, dict):
            return str(error.get("code") or error.get("type")), str(error.get("message"))
        return str(error), str(body.get("message") or error)
    except (ValueError, KeyError, TypeError):
        return (
            f"http_{reply.status_code}",
            f"{reply.request.url.path} answered {reply.status_code} {reply.reason_phrase}",
        )


def _events_of(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Parses text/event-stream: fields until an empty line; comments (keep-alives) are skipped."""
    name = "message"
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        if field == "event":
            name = value.strip()
        elif field == "data":
            data.append(value.removeprefix(" "))


def why(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
