"""`inventiv chat <model> "text"`: one question through the gateway, with the command line's own API key.

The key is INVENTIV_API_KEY, else the one that `inventiv up` keeps for us in the secrets folder. Words are printed as
they come; --json prints one document at the end.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import msgspec
import typer

from infra.cli import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json
from infra.client import Addresses, error_of, find_platform, http_client, why
from infra.environment import Environment

ANSWER_TIMEOUT_S = 300.0
"""Between two pieces of an answer; SPEC 7's read timeout."""
_DATA = "data: "


def register(app: typer.Typer) -> None:
    app.command("chat", help="Ask a deployed model one question.")(chat)


def chat(
    model: Annotated[str, typer.Argument(help="Model code, e.g. mock-echo-model.")],
    text: Annotated[str, typer.Argument(help="What to say.")],
    *,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print words as they come.")] = True,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of the answer.")] = None,
    as_json: JsonFlag = False,
) -> None:
    environment = calling.environment()
    addresses = find_platform(environment)
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"Authorization": f"Bearer {_key(environment, addresses)}"}
    try:
        with (
            calling.failures_explained(),
            http_client(addresses.gateway_url, timeout_s=ANSWER_TIMEOUT_S) as http,
            http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply,
        ):
            if reply.is_error:
                reply.read()
                raise error_of(reply)
            answer = _streamed(reply.iter_lines(), quiet=as_json) if stream else _whole(reply)
    except httpx.ConnectError as error:
        raise calling.unreachable(addresses.gateway_url) from error
    except httpx.TransportError as error:
        message = f"The gateway at {addresses.gateway_url} broke off: {why(error)}."
        raise CommandError(ExitCode.FAILED, "answer_broken_off", message, "Ask again.") from error
    if as_json:
        print_json({"model": model, **answer})
    elif not stream:
        print(answer["content"])


def _key(environment: Environment, addresses: Addresses) -> str:
    if environment.api_key:
        return environment.api_key
    path = addresses.secrets_dir / "cli_api_key"
    try:
        return path.read_text().strip()
    except OSError as error:
        if addresses.local is None:
            raise calling.unreachable(addresses.gateway_url) from error
        cure = "Set INVENTIV_API_KEY to a key from `inventiv key create NAME`."
        raise CommandError(ExitCode.NOT_ALLOWED, "no_api_key", f"{path} cannot be read.", cure) from error


def _whole(reply: httpx.Response) -> dict[str, Any]:
    reply.read()
    completion = reply.json()
    choice = completion["choices"][0]
    return {
        "content": choice["message"]["content"],
        "finish_reason": choice["finish_reason"],
        "usage": completion.get("usage"),
    }


def _streamed(lines: Iterator[str], *, quiet: bool) -> dict[str, Any]:
    """Prints each piece as it comes (unless quiet); returns the whole.

    Raises:
        CommandError: the stream ended with an error object.
    """
    pieces: list[str] = []
    finish_reason, usage = None, None
    for line in lines:
        if not line.startswith(_DATA) or line == f"{_DATA}[DONE]":
            continue
        chunk = msgspec.json.decode(line.removeprefix(_DATA))
        if "error" in chunk:
            if pieces and not quiet:
                print()
            raise CommandError(ExitCode.FAILED, str(chunk["error"].get("code")), str(chunk["error"].get("message")))
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            finish_reason = choice.get("finish_reason") or finish_reason
            if piece := choice["delta"].get("content"):
                pieces.append(piece)
                if not quiet:
                    print(piece, end="", flush=True)
    if not quiet:
        print(flush=True)
    if finish_reason is None:
        raise CommandError(ExitCode.FAILED, "answer_broken_off", "The answer broke off in the middle.", "Ask again.")
    return {"content": "".join(pieces), "finish_reason": finish_reason, "usage": usage}
