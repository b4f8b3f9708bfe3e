"""The action catalogue, SPEC 2.7: code, label, icon, colour, category of everything that a row of the log can be.

The surprising rule: an action is active when an event of this release carries its code. What SPEC names and nothing
here does any more (or yet) stays listed, inactive, so that a console can still tell an old name.
"""

from collections.abc import Mapping

import msgspec

from projections.audit_words import WORDS


class ActionType(msgspec.Struct, frozen=True, kw_only=True):
    """`icon`: a name of the lucide set; `color_class`: a colour's name."""

    code: str
    label: str
    icon: str
    color_class: str
    category: str
    is_active: bool


_SPEC = {
    "create": """REQUEST_CREATE Zap blue, EXECUTE_CREATE Server purple, PROVIDER_CREATE Cloud orange,
        PERSIST_PROVIDER_ID Database indigo, PROVIDER_START Cloud orange, PROVIDER_GET_IP Cloud orange,
        INSTANCE_CREATED Database green, PROVIDER_CREATE_VOLUME HardDrive orange,
        PROVIDER_ATTACH_VOLUME HardDrive orange, PROVIDER_VOLUME_RESIZE HardDrive orange,
        PROVIDER_SECURITY_GROUP Shield orange, PROVIDER_START_RETRY RefreshCw orange, WORKER_SSH_INSTALL Terminal sky,
        REQUEUE_PROVISION RefreshCw blue""",
    "health": """HEALTH_CHECK Clock teal, WORKER_MODEL_READY_CHECK Activity sky, WORKER_VLLM_HTTP_OK Activity sky,
        WORKER_VLLM_WARMUP Activity sky, WORKER_MODEL_LOADED CheckCircle sky, INSTANCE_READY CheckCircle green,
        INSTANCE_STARTUP_FAILED AlertTriangle gray, WORKER_SSH_ACCESSIBLE Terminal sky,
        WORKER_CONTAINER_CHECK FileText sky, WORKER_LOG_FETCH FileText sky, WORKER_LOG_ERRORS FileText sky,
        RECOVERY_STARTUP_FAILED AlertTriangle gray, OPENAI_PROXY Activity sky""",
    "terminate": """REQUEST_TERMINATE Zap blue, EXECUTE_TERMINATE Server purple, PROVIDER_TERMINATE Cloud orange,
        TERMINATION_PENDING Clock yellow, TERMINATOR_RETRY Cloud orange, TERMINATION_CONFIRMED Database red,
        INSTANCE_TERMINATED Database red, PROVIDER_DELETE_VOLUME HardDrive orange, RECOVERY_TERMINATE Database red""",
    "repair": "REQUEST_REINSTALL Wrench sky, EXECUTE_REINSTALL Server sky",
    "archive": "ARCHIVE_INSTANCE Archive gray",
    "reconcile": "PROVIDER_DELETED_DETECTED AlertTriangle yellow, VOLUME_RECONCILIATION_RETRY_DELETE HardDrive yellow",
    "legacy": "TERMINATE_INSTANCE Zap gray, SCALEWAY_CREATE Cloud gray, SCALEWAY_DELETE Cloud gray",
}
_LOOKS = {
    "create": ("Server", "orange"),
    "health": ("Activity", "teal"),
    "terminate": ("Database", "red"),
    "activation": ("ToggleRight", "green"),
    "people": ("Users", "indigo"),
    "access": ("ShieldAlert", "yellow"),
    "keys": ("Key", "purple"),
    "sharing": ("Share2", "blue"),
    "settings": ("Settings", "gray"),
    "reconcile": ("AlertTriangle", "yellow"),
    "catalogue": ("Tags", "sky"),
    "hosts": ("Server", "sky"),
    "platform": ("Database", "gray"),
}
"""Icon and colour of the codes that SPEC gives none."""
_SPELLED = {"api": "API", "http": "HTTP", "id": "ID", "ip": "IP", "openai": "OpenAI", "ssh": "SSH", "vllm": "vLLM"}


def label_of(code: str) -> str:
    """For people: "Provider Get IP" of PROVIDER_GET_IP."""
    return " ".join(_SPELLED.get(word, word.capitalize()) for word in code.lower().split("_"))


def _catalogue() -> Mapping[str, ActionType]:
    emitted = {words.action: words.category for words in WORDS.values()}
    looks = {
        code: (icon, color, category)
        for category, listed in _SPEC.items()
        for code, icon, color in (entry.split() for entry in listed.split(","))
    }
    looks |= {code: (*_LOOKS[category], category) for code, category in emitted.items() if code not in looks}
    return {
        code: ActionType(
            code=code,
            label=label_of(code),
            icon=icon,
            color_class=color,
            category=category,
            is_active=code in emitted,
        )
        for code, (icon, color, category) in looks.items()
    }


ACTION_TYPES: Mapping[str, ActionType] = _catalogue()
