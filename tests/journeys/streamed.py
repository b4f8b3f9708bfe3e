"""One streamed answer, read in the background while a test does something to the platform."""

import json
import threading
from typing import Any

import httpx

from tests.journeys.platform import MODEL, Platform, until

LONG_TEXT = "word " * 160
"""About 200 tokens: four seconds at the simulated engine's usual rate, longer than a drain's own grace."""


class Streamed(threading.Thread):
    """Attributes: pieces of content so far; `ending` is the last line's data; `error` what broke the connection."""

    def __init__(self, platform: Platform, key: str, text: str = LONG_TEXT) -> None:
        super().__init__()
        self.platform = platform
        self.key = key
        self.text = text
        self.pieces: list[str] = []
        self.ending = ""
        self.error: httpx.TransportError | None = None

    @property
    def content(self) -> str:
        return "".join(self.pieces)

    def run(self) -> None:
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": self.text}]}
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"{self.platform.card['gateway_url']}/v1/chat/completions"
        try:
            with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as reply:
                for line in reply.iter_lines():
                    if line.startswith("data: "):
                        self._take(line.removeprefix("data: "))
        except httpx.TransportError as error:
            self.error = error

    def _take(self, data: str) -> None:
        self.ending = data
        if data.startswith("{"):
            chunk: dict[str, Any] = json.loads(data)
            self.pieces += [p for choice in chunk.get("choices", []) if (p := choice["delta"].get("content"))]


def start_stream(platform: Platform, key: str) -> Streamed | None:
    """A stream whose first words have come; None when it was refused."""
    streamed = Streamed(platform, key)
    streamed.start()
    until(lambda: streamed.pieces or not streamed.is_alive(), "the first word or a refusal")
    if streamed.pieces:
        return streamed
    streamed.join()
    return None
