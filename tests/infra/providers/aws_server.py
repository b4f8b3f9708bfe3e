"""EC2 on loopback for tests: moto's, with what moto leaves out, and with troubles.

    adapter ──HTTP──> TroubledApp ──┬─ trouble: an error, a cut connection, somebody else's page
                                    └─ moto (one for the whole process, emptied at the start)

Added to moto: RunInstances answers a ClientToken that it knows with the server that it made, and refuses one whose
server has ended; and ReplaceRootVolume. The surprising rule: troubles apply to every call, the looks included, except
those that name an operation.
"""

import io
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from handlers.cloud_ports import ServerRequest
from infra.providers.aws import AwsCloud
from infra.providers.aws_calls import AwsAccount
from infra.providers.aws_images import ImageChoice

REGIONS = ("eu-west-3", "us-east-1")
ZONE = "eu-west-3a"
INSTANCE_TYPE = "g5.xlarge"
SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"
MOTO_ACCOUNT = "123456789012"
UBUNTU = ImageChoice(owners=("099720109477",), name="ubuntu/images/*")
"""An image that moto knows; it knows none of the real choice."""
HEADERS = [("Content-Type", "text/xml")]

POLL_S = 0.02
"""How soon the server notices that it shall end."""
StartResponse = Callable[..., Any]


@dataclass
class TroubledApp:
    """A WSGI application before moto's."""

    moto: Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
    troubles: dict[str, Callable[[dict[str, Any], StartResponse], Iterable[bytes]]] = field(default_factory=dict)
    """By operation, or "*" for all."""
    honours_tokens: bool = True
    made: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        said = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        operation = said.get("Action", "")
        self.asked.append((operation, said))
        trouble = self.troubles.get(operation) or self.troubles.get("*")
        if trouble is not None:
            return trouble(environ, start_response)
        return self.answer(operation, said, environ, start_response)

    def answer(
        self, operation: str, said: dict[str, str], environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        """Without troubles."""
        match operation:
            case "RunInstances" if self.honours_tokens:
                with self.lock:
                    return self._run_instances(said, environ, start_response)
            case "DescribeReplaceRootVolumeTasks" | "CreateReplaceRootVolumeTask":
                return self._replace_root(operation, said, environ, start_response)
            case _:
                return self.moto(environ, start_response)

    def _run_instances(self, said: dict[str, str], environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        token = said["ClientToken"]
        if token in self.made:
            instance_id, reply = self.made[token]
            if _state(instance_id) in {"shutting-down", "terminated"}:
                return refused("400 Bad Request", "IdempotentInstanceTerminated")(environ, start)
            start("200 OK", HEADERS)
            return [reply]
        reply = b"".join(self.moto(environ, start))
        found = re.search(rb"<instanceId>(i-[0-9a-f]+)<", reply)
        if found:
            self.made[token] = (found[1].decode(), reply)
        return [reply]

    def _replace_root(
        self, operation: str, said: dict[str, str], environ: dict[str, Any], start: StartResponse
    ) -> Iterable[bytes]:
        instance_id = said.get("InstanceId") or said.get("Filter.1.Value.1", "")
        if operation.startswith("Create") and not _state(instance_id):
            return refused("400 Bad Request", "InvalidInstanceID.NotFound")(environ, start)
        start("200 OK", HEADERS)
        inside = "<replaceRootVolumeTaskSet/>" if operation.startswith("Describe") else ""
        return [
            f'<{operation}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">{inside}</{operation}Response>'.encode()
        ]

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.asked]


def _state(instance_id: str) -> str:
    for region in REGIONS:
        instance = ec2_backends[MOTO_ACCOUNT][region].get_instance_by_id(instance_id)
        if instance is not None:
            return str(instance._state.name)
    return ""


def refused(status: str, code: str) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """AWS's error of that code."""

    def answer(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, HEADERS)
        error = f"<Error><Code>{code}</Code><Message>because</Message></Error>"
        return [f"<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>".encode()]

    return answer


def cut(environ: dict[str, Any], _start_response: StartResponse) -> Iterable[bytes]:
    """No answer: the connection ends."""
    environ["werkzeug.socket"].shutdown(2)
    return []


def foreign(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """A page of somebody else's, who stands between."""
    start_response("404 Not Found", [("Content-Type", "text/html")])
    return [b"<html><body>Nothing here.<br></body></html>"]


@dataclass
class Ec2:
    app: TroubledApp
    url: str

    def account(self, **changes: Any) -> AwsAccount:
        keys = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": SECRET}
        return AwsAccount(**{**keys, "regions": REGIONS, "endpoint_url": self.url, **changes})

    def cloud(
        self, bootstrap: Callable[[ServerRequest], str] = lambda _: "#cloud-config\n", **changes: Any
    ) -> AwsCloud:
        return AwsCloud(self.account(**changes), bootstrap=bootstrap, images=UBUNTU)


@lru_cache(maxsize=1)
def _moto() -> Any:
    """More than a second to make."""
    return DomainDispatcherApplication(create_backend_app)


@asynccontextmanager
async def running_ec2() -> AsyncIterator[Ec2]:
    ec2_backends.reset()
    app = TroubledApp(_moto())
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), name="moto")
    thread.start()
    try:
        yield Ec2(app, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
