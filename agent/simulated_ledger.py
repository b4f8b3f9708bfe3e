"""What the simulated engine did for each request, by the id that the request came with: the engine's own count.

It is what the gateway's accounts are held against, so it counts a token when it is handed to the connection, and not
when it was thought of.
"""

from collections import OrderedDict
from typing import Literal

import msgspec

MAX_REQUESTS = 20_000
"""The newest are kept."""


class Entry(msgspec.Struct, kw_only=True):
    """One request; `ended` is "" while it runs, "abort" when its client went away."""

    prompt_tokens: int
    completion_tokens: int = 0
    ended: Literal["", "stop", "length", "tool_calls", "abort"] = ""


class Ledger:
    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def open(self, request_id: str, prompt_tokens: int) -> Entry:
        """A new line; one without an id is not kept, and one that comes again begins anew."""
        entry = Entry(prompt_tokens=prompt_tokens)
        if request_id:
            self._entries[request_id] = entry
            self._entries.move_to_end(request_id)
            while len(self._entries) > MAX_REQUESTS:
                self._entries.popitem(last=False)
        return entry

    def find(self, request_id: str) -> Entry | None:
        return self._entries.get(request_id)
