"""Whether a token belongs to an instance's worker: asked of the API, which has the log, and remembered for a while.

    yes ──> believed for FRESH_S, and for TRUST_S while the API is away        no ──> believed for REFUSED_S

The relay stands where strangers knock, so it holds no key, no read model and no connection to the log. The surprising
rule: an API that is away lets nobody new in, and throws nobody out.
"""

import asyncio
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Literal

import msgspec

from agent.protocol import AUTHORIZE_PATH, AuthorizeRequest

FRESH_S = 10.0
REFUSED_S = 2.0
TRUST_S = 600.0
ASK_TIMEOUT_S = 5.0
MAX_REMEMBERED = 50_000
MAX_ASKING = 8
"""Questions at once; others wait their turn."""

Verdict = Literal["yes", "no", "unknown"]
Ask = Callable[[str, str], Awaitable[Verdict]]


class Authority:
    """Args: ask, (instance id, token) -> what the API says."""

    def __init__(self, ask: Ask, now_s: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._now_s = now_s
        self._known: OrderedDict[tuple[str, bytes], tuple[Verdict, float]] = OrderedDict()
        self._turns = asyncio.Semaphore(MAX_ASKING)

    async def verdict(self, instance_id: str, token: str) -> Verdict:
        key = (instance_id, sha256(token.encode()).digest())
        if remembered := self._remembered(key, FRESH_S):
            return remembered
        async with self._turns:
            if remembered := self._remembered(key, FRESH_S):
                return remembered  # somebody asked the same while this one waited
            said = await self._ask(instance_id, token)
        if said == "unknown":
            return self._remembered(key, TRUST_S) or "unknown"
        self._known[key] = (said, self._now_s())
        self._known.move_to_end(key)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return said

    def _remembered(self, key: tuple[str, bytes], for_s: float) -> Verdict | None:
        said, at = self._known.get(key, ("unknown", 0.0))
        age_s = self._now_s() - at
        if said == "yes" and age_s < for_s:
            return said
        return "no" if said == "no" and age_s < REFUSED_S else None


def ask_api(api_url: str) -> Ask:
    """Asks over HTTP, in a thread: it happens once per token and FRESH_S, and needs no library of its own."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = api_url.rstrip("/") + AUTHORIZE_PATH
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"not the address of an API: {api_url!r}")

    def post(instance_id: str, token: str) -> Verdict:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = msgspec.json.encode(AuthorizeRequest(instance_id=instance_id))
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - http(s), see above
        try:
            with opener.open(request, timeout=ASK_TIMEOUT_S) as reply:
                return "yes" if reply.status == 200 else "unknown"
        except urllib.error.HTTPError as refused:
            return "no" if refused.code in {400, 401, 404, 410} else "unknown"
        except (OSError, ValueError):
            return "unknown"

    async def ask(instance_id: str, token: str) -> Verdict:
        return await asyncio.to_thread(post, instance_id, token)

    return ask
