"""Who sends the fuzz: people of every role, a platform administrator, a key, nobody; and ids that exist.

The platform's first administrator makes them and is never one of them, so that whatever the fuzz deletes or demotes,
somebody can make new ones.
"""

import uuid
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.journeys.platform import HTTP, MODEL, Platform

PASSWORD = "a long enough passphrase 4 fuzz"
ROLES = ("owner", "admin", "manager", "user")
LISTS = {
    "instance_id": "/instances",
    "deployment_id": "/deployments",
    "key_id": "/api_keys",
    "model_id": "/models",
    "offering_id": "/offerings",
    "share_id": "/shares",
    "host_id": "/hosts",
    "user_id": "/organizations/current/members",
    "session_id": "/auth/sessions",
    "invitation_id": "/organizations/current/invitations",
    "provider_id": "/providers",
    "instance_type_id": "/instance_types",
}
"""Name of a path's parameter -> a list of what it may name."""


@dataclass
class Somebody:
    """`kind`: a role, "platform admin", "key" or "nobody"."""

    kind: str
    headers: dict[str, str] = field(default_factory=dict)


class People:
    """One of each kind, in one organisation that has something of everything."""

    def __init__(self, platform: Platform, chance: Random) -> None:
        self._platform = platform
        self._chance = chance
        self._ids: dict[str, list[str]] = {}
        self._all = [Somebody(kind) for kind in (*ROLES, "platform admin", "key", "nobody")]
        for one in self._all:
            self.renew(one)
        platform.rest("POST", "/deployments", json={"model": MODEL})
        self.refresh_ids()

    def somebody(self) -> Somebody:
        return self._chance.choice(self._all)

    def from_anywhere(self) -> dict[str, str]:
        """The header of a proxy that passes on a client of some network."""
        return {"X-Forwarded-For": f"10.{self._chance.randrange(256)}.{self._chance.randrange(256)}.1"}

    def renew(self, who: Somebody) -> None:
        """A new person of the same kind; the old one may have signed out, left, or deleted its organisation."""
        if who.kind == "nobody":
            return
        if who.kind == "key":
            made = self._make("POST", "/api_keys", {"name": "fuzz"})
            who.headers = {"X-API-Key": made["api_key"]}
            return
        name = f"fuzz-{uuid.uuid4().hex[:12]}"
        email = f"{name}@example.org"
        role = "admin" if who.kind == "platform admin" else "user"
        self._make("POST", "/users", {"username": name, "email": email, "password": PASSWORD, "role": role})
        login = {"email": name, "password": PASSWORD}
        reply = self._platform.rest("POST", "/auth/login", json=login, signed=False, headers=self.from_anywhere())
        reply.raise_for_status()
        HTTP.cookies.clear()  # with a bearer token beside it, it would be a second credential
        who.headers = {"Authorization": f"Bearer {reply.cookies['inventiv_session']}"}
        if who.kind in ROLES:
            self._join(who, email, who.kind)

    def refresh_ids(self) -> None:
        """Looks again at what there is, through the eyes of the first administrator."""
        self._ids = {name: self._listed(path) for name, path in LISTS.items()}

    def known_id(self, name: str) -> str:
        return self._chance.choice(self._ids.get(name) or [str(uuid.uuid4())])

    def close(self) -> None:
        self._platform.end_instances()

    def _join(self, who: Somebody, email: str, role: str) -> None:
        invited = self._make("POST", "/organizations/current/invitations", {"email": email, "role": role})
        token, current = invited["token"], self._platform.rest("GET", "/auth/me").json()["current_organization_id"]
        for method, path, body in (
            ("POST", f"/organizations/invitations/{token}/accept", {}),
            ("PUT", "/organizations/current", {"organization_id": current}),
        ):
            self._platform.rest(method, path, json=body, headers=who.headers).raise_for_status()

    def _make(self, method: str, path: str, body: dict[str, Any]) -> Any:
        reply = self._platform.rest(method, path, json=body)
        if reply.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {reply.status_code} {reply.text[:300]}")
        return reply.json()

    def _listed(self, path: str) -> list[str]:
        reply = self._platform.rest("GET", path)
        if reply.status_code != 200:
            return []
        found = reply.json()
        rows = found if isinstance(found, list) else found.get("rows", [])
        mine = self._platform.rest("GET", "/auth/me").json()["user_id"]
        ids = [str(next((row[key] for key in ("id", "user_id", "session_id") if key in row), "")) for row in rows]
        return [one for one in ids if one and one != mine]
