"""Scaleway's SDK, as our adapters use it: one account, bounded requests, complete pages, and what its errors mean.

    ScalewayApi.call(operation, lambda sdk: sdk.instance.get_server(...)) ──> thread ──> SDK ──> Transport ──> HTTPS
    ScalewayApi.pages(...)                                                                 every page, or unavailable

The SDK gives paths, requests and answers as types; how they travel is ours (Transport), for the SDK would wait for
ever, follow redirects with the secret in a header, and stumble over an answer that is no JSON. The surprising rule: a
listing without a total, or whose pages do not add up to it, is no listing: what is missing in it may well exist.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError, RefusalKind
from infra.providers.calling import CONNECT_S, THREADS, TOTAL_S, Caller, StillBusyError, words_of

T = TypeVar("T")

SCALEWAY_URL = "https://api.scaleway.com"
PAGE_SIZE = 100
"""The most that the API gives at once."""
MOST_PAGES = 100
"""Of one listing: 10,000 servers in one zone of one account."""
MOST_ANSWER_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

CODES = {
    "create_server": "PROVIDER_CREATE_FAILED",
    "start_server": "PROVIDER_START_FAILED",
    "stop_server": "PROVIDER_STOP_FAILED",
    "reinstall_server": "PROVIDER_REINSTALL_FAILED",
    "delete_server": "PROVIDER_DELETE_FAILED",
    "create_volume": "PROVIDER_VOLUME_CREATE_FAILED",
    "attach_volume": "PROVIDER_VOLUME_ATTACH_FAILED",
    "resize_volume": "PROVIDER_VOLUME_RESIZE_FAILED",
    "delete_volume": "PROVIDER_VOLUME_DELETE_FAILED",
    "open_ports": "PROVIDER_SECURITY_GROUP_FAILED",
}
"""SPEC 2.3's words, by what was wanted; looking and listing have PROVIDER_CALL_FAILED."""
BUSY_PRECONDITIONS = {"resource_still_in_use", "resource_not_usable"}
NOT_FOUND_TYPES = {"not_found", "unknown_resource", "resource_expired"}


class ScalewayAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Whose servers. `access_key` and `organization_id` are not needed by any call of ours."""

    project_id: str
    secret_key: str
    url: str = SCALEWAY_URL

    @property
    def problem(self) -> str:
        """Why these credentials cannot be right; "" when they can. Never the values."""
        if not _UUID.fullmatch(self.secret_key):
            return "The secret key is not one of Scaleway's: those are UUIDs."
        if not _UUID.fullmatch(self.project_id):
            return "The project id is not one of Scaleway's: those are UUIDs."
        return ""


class AnswerError(Exception):
    """The API answered with something else than success."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after_s: float) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Sdk:
    """The SDK's clients of one account; untyped, so each adapter turns answers into types of ours at once."""

    instance: Any
    block: Any


class ScalewayApi:
    """One account's API. Every method raises CloudRefusedError or CloudUnavailableError, nothing else."""

    def __init__(self, account: ScalewayAccount) -> None:
        self.project_id = account.project_id
        self._account = account
        self._caller = Caller("scaleway", translate, [account.secret_key])
        self._sdk: Sdk | None = None
        self._lock = threading.Lock()

    async def call(self, operation: str, act: Callable[[Sdk], T]) -> T:
        """`operation` is a key of CODES, or "look"; it says what was wanted when the answer is no."""
        if self._account.problem:
            raise CloudRefusedError("PROVIDER_AUTH_FAILED", self._account.problem, "auth")
        return await self._caller(operation, lambda: act(self._connected()))

    async def pages(self, operation: str, what: str, fetch: Callable[[Sdk, int], Any]) -> list[Any]:
        """All of a listing, page by page.

        Args:
            operation: as in `call`.
            what: the field of an answer that holds the things; of a mapping there, its (key, value) pairs.
            fetch: gets one page, from 1 on, with PAGE_SIZE things.
        """
        found: list[Any] = []
        for page in range(1, MOST_PAGES + 1):
            answer = await self.call(operation, lambda sdk, page=page: fetch(sdk, page))  # type: ignore[misc] # mypy cannot infer a lambda with a default
            held = getattr(answer, what)
            things = list(held.items() if isinstance(held, dict) else held)
            total = int(answer.total_count)
            if len(things) != max(0, min(PAGE_SIZE, total - len(found))) or total < 0:
                text = f"scaleway: page {page} of {what} has {len(things)} after {len(found)} of {total}: incomplete"
                raise CloudUnavailableError(text)
            found += things
            if len(found) >= total:
                return found
        raise CloudUnavailableError(f"scaleway: there are more than {MOST_PAGES} pages of {what}")

    def _connected(self) -> Sdk:
        """Runs in a thread: importing the SDK takes half a second."""
        with self._lock:
            if self._sdk is None:
                self._sdk = _connect(self._account)
            return self._sdk


def translate(operation: str, error: Exception) -> CloudRefusedError | CloudUnavailableError | None:
    """What an error means; see https://www.scaleway.com/en/developers/api/ and the types in its SDKs' error tables."""
    if not isinstance(error, AnswerError):
        return None
    kind, words = str(error.body.get("type", "")), _words(error)
    code = CODES.get(operation, "PROVIDER_CALL_FAILED")
    if kind == "out_of_stock" or (400 <= error.status < 500 and "out of stock" in words.lower()):
        return CloudRefusedError("PROVIDER_OUT_OF_STOCK", words, "out_of_stock")
    if kind == "quotas_exceeded":
        return CloudRefusedError("PROVIDER_QUOTA_EXCEEDED", words, "quota")
    if error.status in {401, 403}:
        return CloudRefusedError("PROVIDER_AUTH_FAILED", words, "auth")
    if error.status == 429:
        return CloudUnavailableError(words, "rate_limited", error.retry_after_s)
    if _is_busy(error):
        return StillBusyError(words)
    refusal = _refusal_kind(error.status, kind)
    if refusal:
        return CloudRefusedError(code, words, refusal)
    return CloudUnavailableError(words, "transient", error.retry_after_s)


def _is_busy(error: AnswerError) -> bool:
    kind, precondition = error.body.get("type"), error.body.get("precondition")
    return kind in {"transient_state", "locked"} or precondition in BUSY_PRECONDITIONS or error.status in {409, 423}


def _refusal_kind(status: int, kind: str) -> RefusalKind | None:
    """None: no certain no. A 404 counts only in Scaleway's own words: a proxy's says nothing about the thing."""
    if status in {404, 410}:
        return "not_found" if kind in NOT_FOUND_TYPES else None
    return "permanent" if 400 <= status < 500 and status != 408 and kind else None


def _words(error: AnswerError) -> str:
    body = error.body
    said = [str(body.get("message", "")), str(body.get("help_message", "")), str(body.get("reason", ""))]
    said += [str(body[name]) for name in ("resource", "resource_id", "current_state") if name in body]
    details = body.get("details")
    said += [_detail(each) for each in details if isinstance(each, Mapping)] if isinstance(details, list) else []
    return words_of(f"Scaleway {error.status} {body.get('type', '')}: " + "; ".join(text for text in said if text))


def _detail(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())


class Answer:
    """As much of requests.Response as the SDK looks at."""

    def __init__(self, status_code: int, content: bytes, body: Any) -> None:
        self.status_code = status_code
        self.content = content
        self._body = body

    def json(self) -> Any:
        return self._body


class Transport:
    """Sends the SDK's requests, bounded in time and size; called in threads."""

    def __init__(self, account: ScalewayAccount, user_agent: str) -> None:
        import requests  # noqa: PLC0415 - slow to import, wanted only where there is an account
        from requests.adapters import HTTPAdapter  # noqa: PLC0415 - as above

        self._url = account.url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a .netrc of this machine is nobody's account at Scaleway
        self._session.mount(self._url, HTTPAdapter(pool_maxsize=THREADS))
        self._session.headers.update({"X-Auth-Token": account.secret_key, "User-Agent": user_agent})

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """In the place of scaleway_core.api.API._request.

        Raises:
            AnswerError: the status is not 2xx.
            requests.RequestException: no whole answer came.
            ValueError: a success that is no JSON.
        """
        sent = {"accept": "application/json", "Content-Type": "application/json; charset=utf-8", **(headers or {})}
        until = time.monotonic() + TOTAL_S
        with self._session.request(
            method,
            f"{self._url}{path}",
            params=_query(params or {}),
            headers=sent,
            data=body if isinstance(body, bytes) else json.dumps(body or {}),
            timeout=(CONNECT_S, TOTAL_S),
            allow_redirects=False,
            stream=True,
        ) as response:
            content = _read(response.iter_content(CHUNK_BYTES), until)
            if not 200 <= response.status_code < 300:
                raise AnswerError(response.status_code, _object(content), _seconds(response.headers.get("Retry-After")))
            parsed = json.loads(content) if content.strip() else {}
            if isinstance(parsed, dict):
                parsed.setdefault("total_count", int(response.headers.get("X-Total-Count", -1)))
            return Answer(response.status_code, content, parsed)


def _connect(account: ScalewayAccount) -> Sdk:
    from scaleway import Client  # noqa: PLC0415 - slow to import
    from scaleway.block.v1 import BlockV1API  # noqa: PLC0415 - as above
    from scaleway.instance.v1.custom_api import InstanceUtilsV1API  # noqa: PLC0415 - as above

    client = Client(secret_key=account.secret_key, default_project_id=account.project_id, api_url=account.url)
    transport = Transport(account, client.user_agent)
    # bypass_validation: it wants an access key, which no call needs
    sdk = Sdk(InstanceUtilsV1API(client, bypass_validation=True), BlockV1API(client, bypass_validation=True))
    for api in (sdk.instance, sdk.block):
        api._request = transport.request  # noqa: SLF001 - the SDK's one door; it has no setting for a time limit
    return sdk


def _query(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """As the SDK writes it: what is None is left out, a list repeats its name."""
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        pairs += [(name, str(one).lower() if isinstance(one, bool) else str(one)) for one in values]
    return pairs


def _read(chunks: Iterable[bytes], until: float) -> bytes:
    """The whole body; a server that drips it byte by byte is given up like a silent one."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MOST_ANSWER_BYTES or time.monotonic() > until:
            raise CloudUnavailableError("scaleway: an answer is too long, or took too long")
    return bytes(content)


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        parsed = json.loads(content)
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"message": content[:1000].decode(errors="replace")}


def _seconds(text: str | None) -> float:
    """Of a Retry-After header in seconds; its other form, a date, counts as not said."""
    return float(text) if text and text.isdecimal() else 0.0
