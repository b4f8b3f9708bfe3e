"""The card at the end of `inventiv up`: where everything is, how to get in, what to try.

Secrets stand on the very first card only; later ones name the files that hold them.
"""

from pathlib import Path
from typing import Any

from infra.cli.output import paint
from infra.processes.running import Platform

SAMPLE_MODEL = "mock-echo-model"


def card_document(
    platform: Platform, *, admin_password: str | None = None, api_key: str | None = None
) -> dict[str, Any]:
    """The card as `inventiv up --json` prints it; `admin_password` and `api_key` are null after the first time."""
    secrets_dir = Path(platform.secrets_dir)
    return {
        "api_url": platform.api_url,
        "gateway_url": platform.gateway_url,
        "data_dir": platform.data_dir,
        "admin_username": platform.admin_username,
        "admin_password_file": platform.admin_password_file,
        "admin_password": admin_password,
        "api_key_file": str(secrets_dir / "cli_api_key"),
        "api_key": api_key,
        "curl": _curl(platform.gateway_url, api_key or f"$(cat {secrets_dir / 'cli_api_key'})"),
        "pid": platform.pid,
    }


def print_card(card: dict[str, Any]) -> None:
    password, key = card["admin_password"], card["api_key"]
    shown_once = paint("(shown this once)", "dim")
    lines = {
        "API": f"{card['api_url']}   (routes: {card['api_url']}/swagger-ui)",
        "Gateway": f"{card['gateway_url']}/v1   (OpenAI-compatible)",
        "Login": f"{card['admin_username']}, password in {card['admin_password_file']}",
        "Password": f"{paint(password, 'bold')}   {shown_once}" if password else "",
        "API key": f"{paint(key, 'bold')}   {shown_once}" if key else "make one with `inventiv key create NAME`",
        "Data": card["data_dir"],
        "Deploy": f"inventiv deploy {SAMPLE_MODEL}",
        "Chat": f'inventiv chat {SAMPLE_MODEL} "hello"',
        "curl": card["curl"],
        "Stop": "Ctrl-C here; data stay. `inventiv up --fresh` forgets them.",
    }
    print(f"\n{paint('Inventiv Agents is running', 'green')}, on this machine only (embedded mode).\n")
    for heading, text in lines.items():
        if text:
            print(f"  {heading:<9} {text}")
    print(flush=True)


def _curl(gateway_url: str, key: str) -> str:
    body = f'{{"model":"{SAMPLE_MODEL}","messages":[{{"role":"user","content":"hello"}}]}}'
    return (
        f'curl {gateway_url}/v1/chat/completions -H "Authorization: Bearer {key}"'
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
