"""AWS in the suite: our adapter over real HTTP against moto, with the idempotency that moto leaves out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
from moto.ec2.models import ec2_backends

from infra.providers.aws_shapes import split_id
from tests.infra.providers.aws_server import (
    INSTANCE_TYPE,
    MOTO_ACCOUNT,
    SECRET,
    ZONE,
    Ec2,
    StartResponse,
    cut,
    foreign,
    refused,
    running_ec2,
)
from tests.infra.providers.conformance.double import Double, Trouble

REGION = "eu-west-3"
OTHER_IMAGE = "ami-999844e0"
"""One of moto's, whose boot disk has another name than that of the image which these tests choose by themselves."""


@asynccontextmanager
async def aws_double(_folder: Path) -> AsyncIterator[Double]:
    async with running_ec2() as ec2:

        async def pass_time() -> None:
            """Moto is where it goes at the next look; the loop gets a turn."""
            await asyncio.sleep(0)

        async def heal() -> None:
            ec2.app.troubles.clear()

        async def plant_stranger(name: str) -> None:
            await asyncio.to_thread(_plant, ec2, name)

        async def opened_ports(provider_instance_id: str) -> set[int]:
            return _opened(provider_instance_id)

        async def booted_image(provider_instance_id: str) -> str:
            return _image_of(provider_instance_id)

        yield Double(
            new_cloud=ec2.cloud,
            zone=ZONE,
            instance_type=INSTANCE_TYPE,
            no_server_id=f"{REGION}/i-00000000000000000",
            no_volume_id=f"{REGION}/vol-00000000000000000",
            pass_time=pass_time,
            troubles=_troubles(ec2),
            heal=heal,
            plant_stranger=plant_stranger,
            opened_ports=opened_ports,
            other_image=OTHER_IMAGE,
            no_image="ami-00000000000000000",
            booted_image=booted_image,
            secrets=(SECRET,),
        )


def _troubles(ec2: Ec2) -> dict[Trouble, Callable[[], Awaitable[None]]]:
    def with_(operation: str, answer: Callable[..., Iterable[bytes]]) -> Callable[[], Awaitable[None]]:
        async def make() -> None:
            ec2.app.troubles[operation] = answer

        return make

    def done_then_cut(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        ec2.app.troubles.pop("RunInstances")
        list(ec2.app(environ, start_response))
        return cut(environ, start_response)

    return {
        "unreachable": with_("*", cut),
        "denied": with_("*", refused("401 Unauthorized", "AuthFailure")),
        "rate_limited": with_("*", refused("503 Service Unavailable", "RequestLimitExceeded")),
        "server_error": with_("*", refused("500 Internal Server Error", "InternalError")),
        "nonsense": with_("*", foreign),
        "lost_answer": with_("RunInstances", done_then_cut),
        "out_of_stock": with_("RunInstances", refused("500 Internal Server Error", "InsufficientInstanceCapacity")),
        "quota": with_("RunInstances", refused("400 Bad Request", "VcpuLimitExceeded")),
    }


def _plant(ec2: Ec2, name: str) -> None:
    client = boto3.Session("AKIAIOSFODNN7EXAMPLE", SECRET).client("ec2", region_name=REGION, endpoint_url=ec2.url)
    image_id = client.describe_images(Owners=["099720109477"])["Images"][0]["ImageId"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}]
    client.run_instances(ImageId=image_id, MinCount=1, MaxCount=1, ClientToken="theirs", TagSpecifications=tags)
    client.close()


def _opened(provider_instance_id: str) -> set[int]:
    region, instance_id = split_id(provider_instance_id)
    backend = ec2_backends[MOTO_ACCOUNT][region]
    instance = backend.get_instance_by_id(instance_id)
    assert instance is not None, provider_instance_id
    groups = [group for nic in instance.nics.values() for group in nic.group_set]
    return {int(rule.from_port) for group in groups for rule in group.ingress_rules if rule.from_port is not None}


def _image_of(provider_instance_id: str) -> str:
    region, instance_id = split_id(provider_instance_id)
    instance = ec2_backends[MOTO_ACCOUNT][region].get_instance_by_id(instance_id)
    assert instance is not None, provider_instance_id
    return str(instance.image_id)
