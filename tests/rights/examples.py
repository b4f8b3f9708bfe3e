"""One good example for each route: what to put into its path, its query and its body.

A new route usually needs a line here only if it takes a body or a query that names things; what stands in braces is an
object of the asker's own, of a stranger, or of nobody, as the cell wants it. A route with a body and no line fails the
run.

    "POST /shares": one(body={"offering": "{offering}", "consumer": "third"})
"""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi.routing import APIRoute

from domain.permissions import Action
from tests.web.world import PERSON_PASSWORD
from web.api.catalogue import instance_type_id
from web.declared import name, rule_of

Strings = Mapping[str, str]

PATH_KINDS: Strings = {
    "session_id": "session",
    "user_id": "user",
    "organization_id": "organization",
    "invitation_id": "invitation",
    "token": "invitation_token",
    "key_id": "api_key",
    "model_id": "model",
    "offering_id": "offering",
    "share_id": "share",
    "host_id": "host",
    "deployment_id": "deployment",
    "instance_id": "instance",
    "parked_id": "parked",
    "position": "position",
    "entry": "position",
    "aggregate_id": "instance",
}
"""Parameter of a path -> kind of object; see plant.py."""
PATH_CONSTANTS: Strings = {
    "provider": "local",
    "zone": "fr-par-2",
    "aggregate": "instance",
    "step": "pause",
    "type_id": instance_type_id("local", "mock-local-instance"),
}

_HOST = {"name": "rack", "host_key_fingerprint": "SHA256:" + "k" * 43, "gpu_count": 1, "vram_per_gpu_gb": 24}


@dataclass(frozen=True)
class Example:
    """One way to call a route.

    Attributes:
        kinds: what its path's parameters are, where that differs from PATH_KINDS.
        finer: codes with 401 or 403 that one whom the access rule lets in may still get, for a reason of the object's.
        also: an action that this body needs beside the route's own; who lacks it gets 403 activation_not_allowed.
        for_admins: of a member's route, a question that only a platform administrator may ask.
        admins_see_all: of a question that anybody may ask: to a platform administrator no object is a stranger's.
        open_because: why a stranger's object may be answered unlike an absent one.
        refused: codes with which even its owner's good request ends, other than finer ones.
    """

    query: Strings = field(default_factory=dict)
    body: Any = None
    kinds: Strings = field(default_factory=dict)
    finer: AbstractSet[str] = frozenset()
    also: Action | None = None
    for_admins: bool = False
    admins_see_all: bool = False
    open_because: str = ""
    refused: AbstractSet[str] = frozenset()

    def names_in(self, path: str) -> frozenset[str]:
        """The kinds of objects that it names, in path, query and body."""
        kinds = {**PATH_KINDS, **self.kinds}
        of_path = {kinds[each] for each in re.findall(r"{(\w+)}", path) if each in kinds}
        return frozenset(of_path | set(re.findall(r"{(\w+)}", repr((self.query, self.body)))))

    def path(self, path: str, objects: Strings) -> str:
        kinds = {**PATH_KINDS, **self.kinds}
        return re.sub(r"{(\w+)}", lambda f: objects[kinds[f[1]]] if f[1] in kinds else PATH_CONSTANTS[f[1]], path)


def filled(template: Any, objects: Strings) -> Any:
    """The template of a body or a query with its braces filled."""
    if isinstance(template, str):
        return re.sub(r"{(\w+)}", lambda found: objects[found[1]], template)
    if isinstance(template, Mapping):
        return {key: filled(value, objects) for key, value in template.items()}
    return [filled(value, objects) for value in template] if isinstance(template, list) else template


def _flags() -> tuple[Example, ...]:
    return (
        Example(body={"flag": "technical", "value": False}, also="activation.technical"),
        Example(body={"flag": "economic", "value": False}, also="activation.economic"),
    )


def one(**fields: Any) -> tuple[Example, ...]:
    return (Example(**fields),)


UPSTREAM = {"deployment_id": "upstream"}
HOLDER = "whoever holds the token was sent it, and is a member of nothing yet"
PASSWORD = "a ferret on the seventh floor"
ALL = Example(query={"all": "true"}, for_admins=True)
OF_ONE = Example(query={"organization": "{organization}"}, finer={"admin_required"}, admins_see_all=True)
OF_A_PROVIDER = (
    Example(),
    Example(query={"provider": "local"}, for_admins=True),
    Example(query={"provider": "scaleway"}, refused={"provider_not_configured"}),
)

EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "POST /auth/login": one(body={"email": "nobody", "password": "wrong"}, finer={"invalid_credentials"}),
    "PUT /auth/me": one(body={"first_name": "Ann"}),
    "PUT /auth/me/password": one(body={"current_password": PERSON_PASSWORD, "new_password": PASSWORD}),
    "POST /auth/password-reset/request": one(body={"email": "nobody@example.org"}),
    "POST /auth/password-reset/reset": one(body={"token": "x" * 32, "new_password": PASSWORD}),
    "POST /users": one(body={"email": "new@example.org", "password": PASSWORD}),
    "PUT /users/{user_id}": one(body={"first_name": "Ann"}),
    "POST /organizations": one(body={"name": "Another"}),
    "PUT /organizations/current": one(body={"organization_id": "{organization}"}, finer={"not_a_member"}),
    "PATCH /organizations/current": one(body={"sidebar_color": "#123456"}),
    "PUT /organizations/{organization_id}/plan": one(body={"plan": "subscriber"}),
    "GET /organizations/{organization_id}/limits": one(),
    "PATCH /organizations/{organization_id}/limits": one(body={"concurrency": 10}),
    "PUT /organizations/current/members/{user_id}": one(body={"role": "manager"}, finer={"role_change_not_allowed"}),
    "GET /organizations/invitations/{token}": one(open_because=HOLDER),
    "POST /organizations/invitations/{token}/accept": one(open_because=HOLDER, finer={"email_mismatch"}),
    "POST /organizations/current/invitations": one(body={"email": "guest@example.org", "role": "user"}),
    "POST /api_keys": one(body={"name": "key"}),
    "PUT /api_keys/{key_id}": one(body={"name": "key"}),
    "PUT /api_keys/{key_id}/scope": one(body={"requests_per_minute": 5}),
    "POST /api_keys/{key_id}/rotate": one(body={"overlap_s": 60}),
    "PUT /api_keys/{key_id}/activation": _flags(),
    "POST /models": one(body={"model_id": "new/model", "required_vram_gb": 1, "context_length": 2048}),
    "PUT /models/{model_id}": one(body={"name": "model"}),
    "POST /offerings": one(body={"model": "{model_code}", "code": "another"}),
    "PUT /offerings/{offering_id}": one(body={"name": "offering"}),
    "PUT /offerings/{offering_id}/activation": _flags(),
    "POST /shares": one(body={"offering": "{offering}", "consumer": "third"}),
    "PUT /shares/{share_id}": one(body={"price": None}),
    "PUT /shares/{share_id}/activation": _flags(),
    "POST /hosts": one(body={"address": "192.0.2.250", **_HOST}),
    "PUT /hosts/{host_id}": one(body=_HOST),
    "POST /reconcile": OF_A_PROVIDER,
    "POST /catalog/sync": OF_A_PROVIDER,
    "GET /zones/{zone}/instance_types": one(),
    "PUT /settings/global": one(body={"key": "OPENAI_WORKER_STALE_SECONDS", "value_int": 60}),
    "PUT /providers/{provider}/params": one(body={"worker_instance_startup_timeout_s": 600}),
    "PUT /providers/{provider}/credentials": one(
        body={"values": {"project_id": "p", "secret_key": "s"}}, refused={"unknown_credential"}
    ),
    "POST /deployments": (
        Example(body={"model": "{model_code}"}),
        Example(body={"model_id": "{model}"}),
        Example(body={"model": "chat", "upstream": {"url": "https://api.example.com/v1", "api_key": "sk-1"}}),
    ),
    "PUT /deployments/{deployment_id}/upstream/key": one(body={"api_key": "sk-2"}, kinds=UPSTREAM),
    "PUT /deployments/{deployment_id}/activation": tuple(replace(flag, kinds=UPSTREAM) for flag in _flags()),
    "GET /instance_types/{type_id}/models": one(),
    "GET /users/{user_id}/forgetting": one(refused={"user_not_found"}),
    "GET /events": (Example(), Example(query={"aggregate": "instance", "id": "{instance}"}), ALL, OF_ONE),
    "GET /events/stream": (
        Example(query={"after": "1"}),
        Example(query={"after": "1", "all": "true"}, for_admins=True),
    ),
    "GET /events/{aggregate}/{aggregate_id}": (Example(), ALL),
    "GET /audit/entries/{position}": (Example(), ALL),
    "PUT /instances/{instance_id}/activation": _flags(),
    "GET /audit/checkpoints/latest": one(refused={"checkpoint_not_found"}),
    "GET /audit/proofs/inclusion": one(query={"entry": "1", "size": "1"}),
    "GET /audit/proofs/consistency": one(query={"from": "1", "to": "2"}),
    "GET /audit": (
        Example(),
        Example(query={"id": "{instance}"}),
        ALL,
        OF_ONE,
        Example(query={"text": "{instance}"}),
    ),
    "GET /audit/export": (Example(query={"id": "{instance}"}), ALL),
    "GET /audit/state": one(query={"aggregate": "instance", "id": "{instance}"}),
    "GET /action_logs": (Example(), Example(query={"instance_id": "{instance}"})),
    "GET /action_logs/search": (Example(), Example(query={"instance_id": "{instance}", "include_stats": "true"})),
}


def examples_of(route: APIRoute) -> tuple[Example, ...]:
    """Those of the table; one without query and body for a route that takes none.

    Raises:
        KeyError: the route takes a body, or its path a parameter that nobody knows, and the table does not name it.
    """
    wanted = name(route)
    found = EXAMPLES.get(wanted)
    if found is None:
        unknown = set(re.findall(r"{(\w+)}", route.path)) - PATH_KINDS.keys() - PATH_CONSTANTS.keys()
        if route.body_field is not None or unknown:
            raise KeyError(wanted)
        found = (Example(),)
    return found


def without_example(routes: Sequence[APIRoute]) -> list[str]:
    """The routes that nobody gave an example yet."""
    missing = []
    for route in routes:
        try:
            examples_of(route)
        except KeyError:
            missing.append(f"{name(route)} ({rule_of(route).name})")
    return missing
