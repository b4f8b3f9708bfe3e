"""An instance's state. How each event changes it stands in instance_evolve.py, its laws in instance.py.

    provisioning ──> booting ──> installing ──> starting ──> ready <──> unavailable ──> provisioning (replaced)
         │              └───────────┴─────────────┴── startup_failed
         └──> provisioning_failed                       ready ──> draining ──> terminating ──> terminated ──> archived

One instance may use up several servers, one after another: each is an attempt, with a name, a place and a deadline of
its own. The surprising rule: `discarding` means that the attempt's server has to be seen gone before the next begins.
"""

from datetime import datetime
from typing import Literal

import msgspec

from domain.activation import Activation
from domain.ids import WorkerId
from domain.instance_events import InstanceRequested, VolumeDiscovered
from domain.place import Place

Status = Literal[
    "requested",
    "provisioning",
    "booting",
    "installing",
    "starting",
    "ready",
    "draining",
    "unavailable",
    "terminating",
    "terminated",
    "archived",
    "provisioning_failed",
    "startup_failed",
    "failed",
]
"""SPEC 2.1's thirteen states, and "requested" for an id that has no event yet (never seen outside the domain)."""

ENDED: frozenset[Status] = frozenset({"terminated", "archived"})
COMING_UP: frozenset[Status] = frozenset({"booting", "installing", "starting", "unavailable"})
"""States from which good health leads to ready (SPEC 2.2)."""
NO_ROOM = frozenset({"PROVIDER_OUT_OF_STOCK", "PROVIDER_QUOTA_EXCEEDED"})
"""Refusals that another place may not share."""
CREATE_UNANSWERED = "PROVIDER_CREATE_UNANSWERED"
"""A create got no answer and its server was not found when it had to be there: the attempt is abandoned."""
RATE_LIMITED = "PROVIDER_RATE_LIMITED"
"""A create was turned away at the door: the attempt has no server, and the next one may."""
TRIES_IN_ONE_PLACE = {CREATE_UNANSWERED: 3, RATE_LIMITED: 20}
"""Attempts in a row that end so, until the next place is tried: an abandoned one may leave a server for the sweep."""
START_TIMEOUT = "PROVIDER_START_TIMEOUT"
PROVIDER_DELETED = "provider_deleted"
"""Why an instance ends whose server was deleted by somebody else."""
VOLUMES_PENDING = "VOLUMES_DELETE_PENDING"


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """State of one instance; see the events for the fields' meaning. Times are the envelopes' (UTC).

    Attributes:
        choice: the place of this attempt; `next_choice` that of the next one. 0 is the one requested.
        abandoned: attempts in a row in one place that nobody answered, or that were turned away.
        discarding: this attempt's server has to go, the instance goes on.
        replacements: servers given up since it was last ready.
        server_gone: seen gone twice.
        trouble: "<call>/<kind>" of the provider's last failure, until something else happens.
        next_token_sha256: of a token that its worker was offered and has not used yet.
    """

    status: Status = "requested"
    request: InstanceRequested | None = None
    activation: Activation = Activation()
    milestone_percent: int = 0
    attempt: int = 0
    choice: int = 0
    next_choice: int = 0
    abandoned: int = 0
    replacements: int = 0
    create_intended: bool = False
    create_failed: bool = False
    intended_at: datetime | None = None
    discarding: bool = False
    trouble: str = ""
    server_name: str = ""
    provider_instance_id: str = ""
    server_started: bool = False
    volumes: dict[str, VolumeDiscovered] = {}
    volumes_listed: bool = False
    resize_failed: bool = False
    ip_address: str = ""
    ports_open: bool = False
    ssh_reached_at: datetime | None = None
    bootstrap_phase: str = ""
    bootstrap_failed_at: datetime | None = None
    worker_id: WorkerId | None = None
    token_sha256: str = ""
    token_confirmed: bool = False
    next_token_sha256: str = ""
    engine_url: str = ""
    agent_url: str = ""
    agent_version: str = ""
    agent_sha256: str = ""
    engine_answered: bool = False
    model_loaded: bool = False
    endpoints: tuple[str, ...] = ()
    context_tokens: int = 0
    warmed_up: bool = False
    reinstall_wanted: bool = False
    boot_clock_started_at: datetime | None = None
    failed_at: datetime | None = None
    drain_started_at: datetime | None = None
    drain_deadline_s: int = 0
    drain_reason: str = ""
    drained: bool = False
    gone_sightings: int = 0
    seen_gone_at: datetime | None = None
    server_gone: bool = False
    terminating_at: datetime | None = None
    overdue: bool = False
    termination_reason: str = ""
    error_code: str = ""
    error_message: str = ""

    @property
    def progress_percent(self) -> int:
        """SPEC 2.6: 0 once it is ending, ended or failed."""
        hidden = {"terminating", "terminated", "archived", "provisioning_failed", "startup_failed", "failed"}
        return 0 if self.status in hidden else self.milestone_percent

    @property
    def place(self) -> Place | None:
        """Where this attempt is, or the last one was; None before the request."""
        return self.place_of(self.choice)

    def place_of(self, choice: int) -> Place | None:
        """None before the request; 0 is where it says, n its n-th alternative."""
        request = self.request
        if request is None or choice > len(request.alternatives):
            return None
        if choice > 0:
            return request.alternatives[choice - 1]
        return Place(
            zone=request.zone,
            instance_type=request.instance_type,
            gpu_count=request.gpu_count,
            vram_per_gpu_gb=request.vram_per_gpu_gb,
            price_eur_micros_per_hour=request.price_eur_micros_per_hour,
        )

    @property
    def has_place_left(self) -> bool:
        return self.request is not None and self.choice < len(self.request.alternatives)

    @property
    def volumes_to_delete(self) -> tuple[str, ...]:
        return tuple(known for known, volume in self.volumes.items() if volume.delete_on_terminate)

    @property
    def boot_volume(self) -> VolumeDiscovered | None:
        return next((volume for volume in self.volumes.values() if volume.is_boot), None)

    @property
    def may_own_a_server(self) -> bool:
        """True from an attempt's create intent until its server was seen gone: money may be at stake."""
        return self.create_intended and self.status not in ENDED

    def goes_on_after_create(self, code: str) -> bool:
        """Whether an attempt whose create failed with this code is followed by another."""
        return self.tries_here_again(code) or (self.has_place_left and code in {*NO_ROOM, *TRIES_IN_ONE_PLACE})

    def tries_here_again(self, code: str) -> bool:
        """Whether the attempt that follows is in the same place."""
        return self.create_intended and self.abandoned + 1 < TRIES_IN_ONE_PLACE.get(code, 0)

    def goes_on_after_start(self, code: str) -> bool:
        """Whether an attempt whose server did not start is followed by one in the next place."""
        return self.has_place_left and code in {*NO_ROOM, START_TIMEOUT}
