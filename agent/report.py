"""The agent's side of the protocol: register once, keep the token, then one heartbeat per change or interval.

    no token on disk ──register, again with back-off──> token ──on disk──> heartbeats ──> desired: run | drain | stop
                                                          ^────on disk─────── next token <──── rotate_token

The surprising rule: the token is on disk before the first heartbeat leaves. Until then the control plane accepts a
second registration; afterwards a lost token would lock the worker out for good.
"""

import asyncio
import contextlib
import random
from typing import TypeVar, assert_never

import aiohttp
import msgspec

from agent.credentials import Credentials, CredentialStore
from agent.dead_man import DeadMan
from agent.event_log import REPEAT_FAILURE_S, REPEAT_SUCCESS_S, EventLog
from agent.measure import Meter, Sample
from agent.protocol import (
    HEARTBEAT_PATH,
    INSTANCE_GONE,
    INSTANCE_NOT_ADDRESSED,
    REGISTER_PATH,
    ROTATE_PATH,
    AgentInfo,
    Desired,
    Heartbeat,
    HeartbeatReply,
    Refusal,
    RegisterReply,
    RegisterRequest,
    RotateReply,
    RotateRequest,
)
from agent.settings import Settings
from agent.worker import Worker

REQUEST_TIMEOUT_S = 10.0
FIRST_RETRY_S = 0.25
LAST_RETRY_S = 15.0
LEAST_INTERVAL_S = 0.05
MOST_INTERVAL_S = 60.0

T = TypeVar("T")


class RefusedError(Exception):
    """The control plane answered, but not with 200."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"status {status} {code}".rstrip())
        self.code = code


class InstanceGoneError(Exception):
    """The control plane knows the instance no more, or calls it over: there is nothing left to report to."""


class ControlPlaneUnreachableError(Exception):
    """No answer, or one that is not of the protocol; the message says which."""


class ControlPlane:
    """The three requests."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def register(self, bootstrap_token: str, request: RegisterRequest) -> RegisterReply:
        return await self._post(REGISTER_PATH, bootstrap_token, request, RegisterReply)

    async def heartbeat(self, worker_token: str, beat: Heartbeat) -> HeartbeatReply:
        return await self._post(HEARTBEAT_PATH, worker_token, beat, HeartbeatReply)

    async def rotate(self, worker_token: str, request: RotateRequest) -> RotateReply:
        return await self._post(ROTATE_PATH, worker_token, request, RotateReply)

    async def _post(self, path: str, token: str, body: msgspec.Struct, shape: type[T]) -> T:
        """Raises RefusedError, InstanceGoneError or ControlPlaneUnreachableError."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        try:
            async with self._http.post(
                self._url + path,
                data=msgspec.json.encode(body),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as reply:
                content = await reply.read()
                if reply.status != 200:
                    raise _refusal(reply.status, content)
                return msgspec.json.decode(content, type=shape)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
            raise ControlPlaneUnreachableError(f"{path}: {str(error) or 'no answer in time'}") from error


class Reporter:
    """Reports one worker for as long as its instance lives."""

    def __init__(
        self,
        settings: Settings,
        worker: Worker,
        meter: Meter,
        log: EventLog,
        *,
        control_plane: ControlPlane,
        store: CredentialStore,
        dead_man: DeadMan,
        agent_info: AgentInfo,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._meter = meter
        self._log = log
        self._control_plane = control_plane
        self._store = store
        self._dead_man = dead_man
        self._agent_info = agent_info
        self._may_rotate = True

    async def run(self) -> None:
        """Endless, unless the instance is gone: then the worker is told to stop, and this returns."""
        try:
            credentials = self._store.load(self._settings.instance_id) or await self._registered()
            await self._beat_for_ever(credentials)
        except InstanceGoneError:
            self._log.record("heartbeat_failed", "the instance is gone: draining and ending")
            self._worker.stop()

    async def _registered(self) -> Credentials:
        failures = 0
        while True:
            self._log.record("register_start", "registering with the control plane", repeat_after_s=REPEAT_FAILURE_S)
            try:
                return await self._register()
            except RefusedError as error:
                self._log.record("register_failed", str(error), repeat_after_s=REPEAT_FAILURE_S)
                known = (
                    error.code == INSTANCE_NOT_ADDRESSED
                )  # somebody knows of this machine, and waits for its address
            except (ControlPlaneUnreachableError, OSError) as error:
                self._log.record("register_exception", str(error), repeat_after_s=REPEAT_FAILURE_S)
                known = False
            self._log.record("heartbeat_skipped", "not registered yet", repeat_after_s=REPEAT_FAILURE_S)
            if known:
                self._dead_man.heard()
            else:
                self._dead_man.missed()
            failures += 1
            await asyncio.sleep(retry_delay_s(failures, random.random()))  # noqa: S311 - jitter

    async def _register(self) -> Credentials:
        settings = self._settings
        request = RegisterRequest(
            instance_id=settings.instance_id,
            worker_id=settings.worker_id,
            model_id=settings.model_id,
            vllm_port=settings.vllm_port,
            health_port=settings.health_port,
            ip_address=settings.advertise_ip,
            base_url=settings.base_url,
            agent_url=settings.agent_url,
            agent_info=self._agent_info,
            metadata=(await self._meter.sample()).metadata(),
            tunnel=bool(settings.tunnel_url),
        )
        reply = await self._control_plane.register(settings.bootstrap_token, request)
        self._dead_man.heard()
        credentials = Credentials(
            settings.instance_id, settings.worker_id, reply.worker_token, reply.heartbeat_interval_s
        )
        await asyncio.to_thread(self._store.save, credentials)
        self._log.record("register_success", "registered", token_prefix=reply.worker_token_prefix)
        return credentials

    async def _beat_for_ever(self, credentials: Credentials) -> None:
        interval_s = credentials.heartbeat_interval_s or self._settings.heartbeat_interval_s
        interval_s = min(MOST_INTERVAL_S, max(LEAST_INTERVAL_S, interval_s))
        failures = 0
        while True:
            self._worker.hold(credentials.worker_token)
            self._worker.changed.clear()
            reply = await self._beat(credentials.worker_token)
            if reply is None:
                failures += 1
                await asyncio.sleep(min(interval_s, retry_delay_s(failures, random.random())))  # noqa: S311 - jitter
                continue
            failures = 0
            self._obey(reply.desired)
            if reply.rotate_token and self._may_rotate:
                renewed = await self._rotated(credentials)
                if renewed is not credentials:
                    credentials = renewed  # and used at once, so that the earlier one ends
                    continue
            with contextlib.suppress(TimeoutError):
                # Not wait_for: in Python 3.11 it forgets a cancellation that comes together with the event.
                async with asyncio.timeout(interval_s):
                    await self._worker.changed.wait()

    async def _beat(self, worker_token: str) -> HeartbeatReply | None:
        """Sends one heartbeat; its reply, or None when it was not accepted. Raises InstanceGoneError."""
        try:
            beat = self._heartbeat(await self._meter.sample())
            reply = await self._control_plane.heartbeat(worker_token, beat)
        except RefusedError as error:
            self._log.record("heartbeat_failed", str(error), repeat_after_s=REPEAT_FAILURE_S)
            self._dead_man.missed()
            return None
        except ControlPlaneUnreachableError as error:
            self._log.record("heartbeat_exception", str(error), repeat_after_s=REPEAT_FAILURE_S)
            self._dead_man.missed()
            return None
        self._dead_man.heard()
        self._log.record("heartbeat_success", f"reported {beat.status}", repeat_after_s=REPEAT_SUCCESS_S)
        return reply

    async def _rotated(self, credentials: Credentials) -> Credentials:
        """With the next token, once it is on disk; the same as given when that did not work.

        A token that could not be kept is not asked for again in this life: the file may hold it or the present one, and
        both are good until a third one is made.
        """
        request = RotateRequest(instance_id=credentials.instance_id, worker_id=credentials.worker_id)
        try:
            reply = await self._control_plane.rotate(credentials.worker_token, request)
            renewed = msgspec.structs.replace(credentials, worker_token=reply.worker_token)
            self._may_rotate = False
            await asyncio.to_thread(self._store.save, renewed)
            self._may_rotate = True
        except (RefusedError, ControlPlaneUnreachableError, OSError) as error:
            self._log.record("token_rotation_failed", str(error), repeat_after_s=REPEAT_FAILURE_S)
            return credentials
        self._log.record("token_rotated", "the next token is kept", token_prefix=reply.worker_token_prefix)
        return renewed

    def _heartbeat(self, sample: Sample) -> Heartbeat:
        worker, settings = self._worker, self._settings
        return Heartbeat(
            instance_id=settings.instance_id,
            worker_id=settings.worker_id,
            status=worker.status,
            model_id=settings.model_id,
            engine_up=worker.milestones.up,
            model_loaded=worker.milestones.loaded,
            warmed_up=worker.milestones.warm,
            queue_depth=sample.load.queue_depth,
            gpu_utilization=sample.gpu_utilization,
            gpu_mem_used_mb=sample.gpu_mem_used_mb,
            ip_address=settings.advertise_ip,
            agent_info=self._agent_info,
            engine_paths=worker.milestones.paths,
            context_tokens=worker.milestones.context_tokens,
            metadata=sample.metadata(),
        )

    def _obey(self, desired: Desired) -> None:
        match desired:
            case "run":
                pass
            case "drain":
                self._worker.drain()
            case "stop":
                self._worker.stop()
            case _:
                assert_never(desired)


def retry_delay_s(failures: int, chance: float) -> float:
    """Doubles from FIRST_RETRY_S up to LAST_RETRY_S, less up to half of it by `chance` (0 to 1)."""
    full = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 16))
    return full * (1 - chance / 2)


def _refusal(status: int, content: bytes) -> RefusedError | InstanceGoneError:
    """Gone needs status and code: a bare 404 is what a proxy says while the control plane is being replaced."""
    try:
        code = msgspec.json.decode(content, type=Refusal).error
    except msgspec.MsgspecError:
        code = ""
    if status in {404, 410} and code == INSTANCE_GONE:
        return InstanceGoneError()
    return RefusedError(status, code)
