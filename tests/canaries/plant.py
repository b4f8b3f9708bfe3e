"""Plants canaries: secrets and personal data, each its own random words, brought in by every door that takes one."""

import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.journeys.platform import HTTP, MODEL, Platform, until

PEOPLE = 10
BROWSERS = 5
GUESTS = 5
KEYS = 12
CREDENTIALS = 8
UPSTREAMS = 4
PROMPTS = 10
REFUSED = 10


@dataclass
class Planted:
    """`kinds`: canary -> what it is, for the report (never the canary itself)."""

    secrets: list[str] = field(default_factory=list)
    personal: list[str] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def everything(self) -> list[str]:
        return [*self.secrets, *self.personal]

    def kind_of(self, canary: str) -> str:
        return self.kinds[canary]

    def secret(self, kind: str, canary: str = "") -> str:
        return self._add(self.secrets, kind, canary or f"Canary-{secrets.token_hex(12)}")

    def person(self, kind: str, canary: str = "") -> str:
        return self._add(self.personal, kind, canary or f"canary{secrets.token_hex(8)}")

    def _add(self, to: list[str], kind: str, canary: str) -> str:
        to.append(canary)
        self.kinds[canary] = kind
        return canary


def plant(platform: Platform) -> Planted:
    """50 secrets and 50 personal data or more; then refusals, faults and kills with them in hand."""
    planted = Planted()
    tokens = [_person(platform, planted, number) for number in range(PEOPLE)]
    _browsers(platform, planted)
    _guests(platform, planted)
    keys = [_key(platform, planted) for _ in range(KEYS)]
    _credentials(platform, planted)
    _upstreams(platform, planted)
    _conversations(platform, planted, keys[0])
    _refusals(platform, planted, tokens, keys)
    _kills(platform)
    _refusals(platform, planted, tokens, keys)
    return planted


def _made(platform: Platform, method: str, path: str, body: dict[str, object]) -> dict[str, str]:
    reply = platform.rest(method, path, json=body)
    assert reply.status_code < 300, (method, path, reply.text[:300])
    found: dict[str, str] = reply.json()
    return found


def _person(platform: Platform, planted: Planted, number: int) -> str:
    """Somebody with names, an address and a password, signed in; returns the token."""
    name, email = planted.person("username"), f"{planted.person('e-mail address')}@example.org"
    person: dict[str, object] = {
        "username": name,
        "email": email,
        "password": planted.secret("password"),
        "first_name": planted.person("first name"),
        "last_name": planted.person("last name"),
    }
    _made(platform, "POST", "/users", person)
    reply = HTTP.post(f"{platform.card['api_url']}/auth/login", json={"email": name, "password": person["password"]})
    assert reply.status_code == 200, reply.text
    HTTP.cookies.clear()
    token = planted.secret("token of a signed-in person", reply.cookies["inventiv_session"])
    if number % 2:
        changed = {"last_name": planted.person("changed last name")}
        headers = {"Authorization": f"Bearer {token}"}
        reply = platform.rest("PUT", "/auth/me", json=changed, headers=headers)
        assert reply.status_code == 200, reply.text
    platform.rest("POST", "/auth/password-reset/request", signed=False, json={"email": email})
    return token


def _browsers(platform: Platform, planted: Planted) -> None:
    password = (platform.data_dir / "secrets" / "admin_password").read_text().strip()
    for _ in range(BROWSERS):
        headers = {"user-agent": planted.person("browser")}
        login = {"email": platform.card["admin_username"], "password": password}
        reply = HTTP.post(f"{platform.card['api_url']}/auth/login", json=login, headers=headers)
        assert reply.status_code == 200, reply.text
        planted.secret("token of a signed-in administrator", reply.cookies["inventiv_session"])
        HTTP.cookies.clear()


def _guests(platform: Platform, planted: Planted) -> None:
    for _ in range(GUESTS):
        email = f"{planted.person('address of somebody invited')}@example.org"
        invited = _made(platform, "POST", "/organizations/current/invitations", {"email": email, "role": "user"})
        planted.secret("token of an invitation", invited["token"])


def _key(platform: Platform, planted: Planted) -> str:
    return planted.secret("API key", _made(platform, "POST", "/api_keys", {"name": "canary"})["api_key"])


def _credentials(platform: Platform, planted: Planted) -> None:
    """Twice, so that replaced ones are gone as well; a token for models; and once under a name that is refused."""
    for _ in range(CREDENTIALS // 2):
        values = {name: planted.secret("provider credential") for name in ("project_id", "secret_key")}
        _made(platform, "PUT", "/providers/scaleway/credentials", {"values": values})
    token: dict[str, object] = {
        "values": {"token": planted.secret("token for gated models", f"hf_{secrets.token_hex(16)}")}
    }
    _made(platform, "PUT", "/providers/huggingface/credentials", token)
    wrong = {"values": {"pin": planted.secret("refused credential")}}
    assert platform.rest("PUT", "/providers/scaleway/credentials", json=wrong).status_code == 400


def _upstreams(platform: Platform, planted: Planted) -> None:
    """Connected, replaced and stopped; and once with a password in a URL, which is refused for it. None is called."""
    for number in range(UPSTREAMS):
        wish = {"url": "https://1.1.1.1/v1", "api_key": planted.secret("key of an upstream")}
        made = _made(platform, "POST", "/deployments", {"model": f"canary-{number}", "upstream": wish})
        path = f"/deployments/{made['deployment_id']}"
        replacing: dict[str, object] = {"api_key": planted.secret("new key of an upstream")}
        _made(platform, "PUT", f"{path}/upstream/key", replacing)
        if number % 2:
            assert platform.rest("DELETE", path).status_code == 202
    url = f"https://user:{planted.secret('password in a refused URL')}@1.1.1.1/v1"
    refused = {"model": "canary", "upstream": {"url": url}}
    assert platform.rest("POST", "/deployments", json=refused).status_code == 400


def _conversations(platform: Platform, planted: Planted, key: str) -> None:
    _made(platform, "POST", "/deployments", {"model": MODEL})

    def live() -> bool:
        return platform.gateway("GET", f"/v1/models/{MODEL}", key=key).status_code == 200

    until(live, "the model is live")
    for number in range(PROMPTS):
        words = planted.person("words of a prompt")
        streamed = number % 2 == 0
        body = {"model": MODEL, "messages": [{"role": "user", "content": words}], "stream": streamed}
        reply = platform.gateway("POST", "/v1/chat/completions", key=key, json=body)
        assert reply.status_code == 200, reply.text
        assert streamed or words in reply.text  # the engine echoes: what is looked for did pass through


def _refusals(platform: Platform, planted: Planted, tokens: list[str], keys: list[str]) -> None:
    """Secrets in wrong places, as clumsy clients send them."""
    url = platform.card["api_url"]
    tries: list[Callable[[], object]] = []
    for number in range(REFUSED):
        secret, token, key = planted.secrets[number], tokens[number], keys[number]
        name = planted.personal[number]
        tries += [
            partial(HTTP.post, f"{url}/auth/login", json={"email": name, "password": f"{secret}x"}),
            partial(HTTP.post, f"{url}/auth/login", json={"email": ["x"], "password": {"p": secret}}),
            partial(HTTP.get, f"{url}/no/such/place", headers={"authorization": f"Bearer {token}"}),
            partial(HTTP.get, f"{url}/users", headers={"x-api-key": key}),
            partial(HTTP.get, f"{url}/instances", headers={"authorization": f"Basic {key}"}),
            partial(platform.gateway, "POST", "/v1/chat/completions", key=key, content=b"{broken"),
            partial(platform.gateway, "GET", "/v1/models", key=f"{key[:-1]}0"),
        ]
    for attempt in tries:
        attempt()
        HTTP.cookies.clear()


def _kills(platform: Platform) -> None:
    """Every process of ours dies once without a word."""
    for name in ("gateway", "web", "handlers", "projections", "postgres", "nats"):
        pid = platform.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        until(partial(_runs_anew, platform, name, pid), f"{name} runs again")
    platform.settled()


def _runs_anew(platform: Platform, name: str, pid: int) -> bool:
    return platform.pid_of(name) != pid
