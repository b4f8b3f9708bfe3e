"""What is AWS's own: tokens, tags, GiB, codes, images, roles. What every provider must do is in conformance/."""

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.ec2.models import ec2_backends

from domain.catalogue import find_provider
from domain.provider_credentials import EXPECTED
from handlers.cloud_ports import (
    CloudRefusedError,
    CloudUnavailableError,
    Present,
    Server,
    ServerRequest,
    Unknown,
    Volume,
)
from infra.providers.aws import MAX_LIVES, MAX_USER_DATA_BYTES, aws_cloud
from infra.providers.aws_calls import DEFAULT_REGIONS, ROLE_RENEWED_BEFORE, AwsCalls, aws_account
from infra.providers.aws_errors import translated
from infra.providers.aws_images import KEPT_S, ImageChoice, Images
from infra.providers.aws_network import GROUP_NAME
from infra.providers.aws_shapes import gb_of, gib_of, region_of, split_id, vram_gb_of
from infra.providers.aws_volumes import client_token
from infra.providers.calling import StillBusyError
from tests.infra.providers.aws_server import INSTANCE_TYPE, MOTO_ACCOUNT, UBUNTU, ZONE, Ec2, refused, running_ec2

TAGS = {"platform": "inventiv-agents", "instance": "1", "signature": "s" * 64}
WANTED = ServerRequest(
    name="inventiv-worker-1-1", tags=TAGS, zone=ZONE, instance_type=INSTANCE_TYPE, agent_environment={}, disk_gb=200
)


@pytest.fixture
async def ec2() -> AsyncIterator[Ec2]:
    async with running_ec2() as running:
        yield running


def sent(ec2: Ec2, operation: str = "RunInstances") -> dict[str, str]:
    """The parameters of the last call of it."""
    return [said for name, said in ec2.app.asked if name == operation][-1]


async def test_a_server_is_asked_for_with_everything_that_ends_its_bill(ec2: Ec2) -> None:
    await ec2.cloud().create_server(WANTED)
    said = sent(ec2)
    assert said["ClientToken"] == client_token(WANTED.name)
    assert len(said["ClientToken"]) == 64
    assert said["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert said["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
    assert said["BlockDeviceMapping.1.Ebs.VolumeSize"] == "187"  # GiB: 200 GB
    assert said["MetadataOptions.HttpTokens"] == "required"
    assert base64.b64decode(said["UserData"]) == b"#cloud-config\n"


async def test_tags_are_on_the_server_and_on_its_disk_from_their_first_moment(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    server = await cloud.create_server(WANTED)
    (disk,) = await cloud.volumes.list_volumes(server.provider_instance_id)
    assert server.tags == disk.tags == TAGS
    assert (disk.is_boot, disk.size_gb, disk.attached_to) == (True, 200, server.provider_instance_id)
    assert "CreateTags" not in ec2.app.operations()


async def test_the_token_makes_one_server_where_looking_cannot(ec2: Ec2) -> None:
    """Both handlers have looked before either has created: the listing lags."""
    await asyncio.gather(*(_create_without_looking(ec2) for _ in range(3)))
    assert len(await ec2.cloud().list_servers()) == 1


async def test_without_the_token_the_same_race_makes_several(ec2: Ec2) -> None:
    """The control: moto by itself knows no tokens."""
    ec2.app.honours_tokens = False
    await asyncio.gather(*(_create_without_looking(ec2) for _ in range(3)))
    assert len(await ec2.cloud().list_servers()) == 3


async def _create_without_looking(ec2: Ec2) -> None:
    cloud = ec2.cloud()

    async def finds_nothing(_region: str, _name: str) -> Server | None:
        return None

    cloud._named = finds_nothing  # type: ignore[method-assign,assignment] # as if the listing lagged
    await cloud.create_server(WANTED)


async def test_a_name_whose_server_has_ended_takes_the_next_token(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    lives = []
    for _ in range(MAX_LIVES):
        server = await cloud.create_server(WANTED)
        lives.append(sent(ec2)["ClientToken"])
        await cloud.delete_server(server.provider_instance_id)
    assert len(set(lives)) == MAX_LIVES
    with pytest.raises(CloudRefusedError, match=f"used {MAX_LIVES} times"):
        await cloud.create_server(WANTED)


async def test_a_server_that_ends_as_it_begins_tells_why(ec2: Ec2) -> None:
    def out_of_room(_environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/xml")])
        reason = "<code>Server.InsufficientInstanceCapacity</code><message>none left</message>"
        state = "<instanceState><name>terminated</name></instanceState>"
        item = f"<item><instanceId>i-1</instanceId>{state}<stateReason>{reason}</stateReason></item>"
        return [f"<RunInstancesResponse><instancesSet>{item}</instancesSet></RunInstancesResponse>".encode()]

    ec2.app.troubles["RunInstances"] = out_of_room
    with pytest.raises(CloudRefusedError) as told:
        await ec2.cloud().create_server(WANTED)
    assert (told.value.code, told.value.kind) == ("PROVIDER_OUT_OF_STOCK", "out_of_stock")


async def test_a_zone_beyond_the_accounts_regions_is_refused(ec2: Ec2) -> None:
    with pytest.raises(CloudRefusedError) as told:
        await ec2.cloud(regions=("us-east-1",)).create_server(WANTED)
    assert told.value.code == "MISSING_ZONE"


async def test_an_account_without_a_network_is_told_what_to_set(ec2: Ec2) -> None:
    with pytest.raises(CloudRefusedError, match="subnet_ids"):
        await ec2.cloud(subnet_ids=("subnet-00000000",)).create_server(WANTED)


async def test_servers_of_one_network_share_one_group_of_ours(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    first = await cloud.create_server(WANTED)
    second = await cloud.create_server(_named("other"))
    await cloud.ports.open_ports(first.provider_instance_id, [22, 8080])
    await cloud.ports.open_ports(second.provider_instance_id, [8080, 8000])
    groups = [
        one for one in ec2_backends[MOTO_ACCOUNT]["eu-west-3"].describe_security_groups() if one.name == GROUP_NAME
    ]
    assert len(groups) == 1
    assert sorted(int(rule.from_port or 0) for rule in groups[0].ingress_rules) == [22, 8000, 8080]


def _named(name: str) -> ServerRequest:
    return ServerRequest(
        name=name, tags=TAGS, zone=ZONE, instance_type=INSTANCE_TYPE, agent_environment={}, disk_gb=200
    )


async def test_a_long_script_is_packed_and_one_beyond_that_refused(ec2: Ec2) -> None:
    long = "#cloud-config\n" + "# the same line\n" * 5000
    await ec2.cloud(lambda _: long).create_server(WANTED)
    assert gzip.decompress(base64.b64decode(sent(ec2)["UserData"])).decode() == long
    noise = Random(1).randbytes(2 * MAX_USER_DATA_BYTES).hex()
    with pytest.raises(CloudRefusedError, match="first-boot script"):
        await ec2.cloud(lambda _: noise).create_server(_named("other"))


async def test_a_new_server_is_left_to_start_by_itself(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    server = await cloud.create_server(WANTED)
    await cloud.start_server(server.provider_instance_id)
    assert "StartInstances" not in ec2.app.operations()
    await cloud.stop_server(server.provider_instance_id)
    await cloud.start_server(server.provider_instance_id)
    assert "StartInstances" in ec2.app.operations()


async def test_reinstalling_puts_a_new_disk_in_once_and_keeps_the_server(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    server = await cloud.create_server(WANTED)
    await cloud.reinstall_server(server.provider_instance_id)
    assert sent(ec2, "CreateReplaceRootVolumeTask")["DeleteReplacedRootVolume"] == "true"
    assert isinstance(await cloud.find_server(name=server.name), Present)


async def test_a_server_that_is_off_is_started_before_it_is_reinstalled(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    server = await cloud.create_server(WANTED)
    await cloud.stop_server(server.provider_instance_id)
    with pytest.raises(StillBusyError):
        await cloud.reinstall_server(server.provider_instance_id)
    assert "CreateReplaceRootVolumeTask" not in ec2.app.operations()
    await cloud.reinstall_server(server.provider_instance_id)
    assert "CreateReplaceRootVolumeTask" in ec2.app.operations()


async def test_a_region_that_does_not_answer_leaves_no_listing(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    server = await cloud.create_server(WANTED)
    ec2.app.troubles["DescribeInstances"] = refused("403 Forbidden", "UnauthorizedOperation")
    with pytest.raises(CloudUnavailableError):
        await cloud.list_servers()
    assert isinstance(await cloud.find_server(name=server.name), Unknown)


async def test_volumes_are_made_once_attached_and_counted_in_gb(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    server = await cloud.create_server(WANTED)
    made = [await cloud.volumes.create_volume(name="data", zone=ZONE, size_gb=100, tags=TAGS) for _ in range(2)]
    assert made[0].provider_volume_id == made[1].provider_volume_id
    assert (made[0].size_gb, made[0].is_boot, made[0].tags) == (100, False, TAGS)
    for _ in range(2):
        await cloud.volumes.attach_volume(made[0].provider_volume_id, server.provider_instance_id)
    found = await cloud.volumes.find_volume(made[0].provider_volume_id)
    assert isinstance(found, Volume)
    assert found.attached_to == server.provider_instance_id
    with pytest.raises(StillBusyError):
        await cloud.volumes.delete_volume(made[0].provider_volume_id)


async def test_a_volume_of_another_server_is_not_taken_from_it(ec2: Ec2) -> None:
    cloud = ec2.cloud()
    first, second = await cloud.create_server(WANTED), await cloud.create_server(_named("other"))
    (disk, *_) = await cloud.volumes.list_volumes(first.provider_instance_id)
    with pytest.raises(CloudRefusedError, match="is attached to"):
        await cloud.volumes.attach_volume(disk.provider_volume_id, second.provider_instance_id)


async def test_offers_agree_with_the_built_in_catalogue(ec2: Ec2) -> None:
    provider = find_provider("aws")
    assert provider is not None
    offers = await ec2.cloud(regions=DEFAULT_REGIONS).offers.list_offers()
    assert {offer.price_eur_micros_per_hour for offer in offers} == {None}
    said = {
        offer.instance_type: (offer.gpu_count, offer.vram_per_gpu_gb, offer.cpu_count, offer.ram_gb) for offer in offers
    }
    listed = {
        one.code: (one.gpu_count, one.vram_per_gpu_gb, one.cpu_count, one.ram_gb) for one in provider.instance_types
    }
    assert said == listed
    pairs = {(offer.zone, offer.instance_type) for offer in offers}
    assert pairs == {(zone.code, code) for zone in provider.zones for code in zone.instance_types}


async def test_the_image_that_aws_names_is_taken_and_kept_for_an_hour(ec2: Ec2) -> None:
    now = [0.0]
    images = Images(AwsCalls(ec2.account()), _public_parameter(), lambda: now[0])
    first = await images.of("eu-west-3")
    assert first.image_id.startswith("ami-")
    asked = len(ec2.app.asked)
    now[0] = KEPT_S
    assert await images.of("eu-west-3") == first
    assert len(ec2.app.asked) == asked
    now[0] = KEPT_S + 1
    await images.of("eu-west-3")
    assert len(ec2.app.asked) > asked


def _public_parameter() -> ImageChoice:
    """One that moto has."""
    parameter = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    return ImageChoice(parameter=parameter, owners=(), name="none")


async def test_an_own_image_may_be_chosen_by_a_name_that_every_region_knows(ec2: Ec2) -> None:
    server = await ec2.cloud().create_server(WANTED)
    calls = AwsCalls(ec2.account())
    instance_id = split_id(server.provider_instance_id)[1]
    ours = (await calls("eu-west-3", "create_image", InstanceId=instance_id, Name="gold"))["ImageId"]
    images = Images(calls, UBUNTU)
    usual = await images.of("eu-west-3")
    assert (await images.of("eu-west-3", "gold")).image_id == ours != usual.image_id
    assert (await images.of("eu-west-3", ours)).image_id == ours
    assert await images.of("eu-west-3") == usual
    with pytest.raises(CloudRefusedError, match="us-east-1 has no image gold of self"):
        await images.of("us-east-1", "gold")


async def test_no_image_is_a_refusal_with_the_name_that_was_sought(ec2: Ec2) -> None:
    images = Images(AwsCalls(ec2.account()), ImageChoice(parameter="/none", owners=UBUNTU.owners, name="nothing*"))
    with pytest.raises(CloudRefusedError, match=r"nothing\*"):
        await images.of("eu-west-3")


async def test_a_role_is_assumed_and_renewed_before_it_ends(ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = AwsCalls(ec2.account(role_arn="arn:aws:iam::123456789012:role/inventiv", external_id="ours"))
    for _ in range(2):
        await calls("eu-west-3", "describe_regions")
    assert ec2.app.operations().count("AssumeRole") == 1
    assert sent(ec2, "AssumeRole")["ExternalId"] == "ours"
    assert calls._role_until is not None
    monkeypatch.setattr(calls, "_role_until", calls._role_until - timedelta(hours=1) + ROLE_RENEWED_BEFORE)
    await calls("eu-west-3", "describe_regions")
    assert ec2.app.operations().count("AssumeRole") == 2


def test_credentials_make_an_account() -> None:
    given_all = dict.fromkeys(EXPECTED["aws"].names, "x") | {"regions": " eu-west-3, ,us-east-1 ", "subnet_ids": "a,b"}
    account = aws_account(given_all)
    assert account.regions == ("eu-west-3", "us-east-1")
    assert account.subnet_ids == ("a", "b")
    required = dict.fromkeys(EXPECTED["aws"].required, "x")
    assert aws_account(required).regions == DEFAULT_REGIONS
    assert aws_cloud(required, bootstrap=lambda _: "").traits.stops_billing_when_off
    with pytest.raises(KeyError):
        aws_account({})


def error(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "op")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InsufficientInstanceCapacity", 500, "out_of_stock"),
        ("Unsupported", 400, "out_of_stock"),
        ("VcpuLimitExceeded", 400, "quota"),
        ("AuthFailure", 401, "auth"),
        ("UnauthorizedOperation", 403, "auth"),
        ("SomethingNew", 403, "auth"),
        ("InvalidInstanceID.NotFound", 400, "not_found"),
        ("InvalidInstanceID.Malformed", 400, "not_found"),
        ("InvalidParameterValue", 400, "permanent"),
    ],
)
def test_a_no_of_aws_has_its_kind(code: str, status: int, kind: str) -> None:
    told = translated("run_instances", error(code, status))
    assert isinstance(told, CloudRefusedError)
    assert told.kind == kind
    assert told.message == f"{code}: m"


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestLimitExceeded", 503, "rate_limited"),
        ("Whatever", 429, "rate_limited"),
        ("InternalError", 500, "transient"),
        ("RequestExpired", 400, "transient"),
        ("IdempotentParameterMismatch", 400, "transient"),
        ("", 302, "transient"),
        ("", 0, "transient"),
    ],
)
def test_what_is_no_answer_is_no_refusal(code: str, status: int, kind: str) -> None:
    told = translated("run_instances", error(code, status))
    assert isinstance(told, CloudUnavailableError)
    assert told.kind == kind


def test_a_passing_state_is_busy_and_opens_no_circuit() -> None:
    assert isinstance(translated("delete_volume", error("VolumeInUse")), StillBusyError)


def test_what_is_not_of_aws_is_left_to_the_caller() -> None:
    assert translated("run_instances", ConnectionError("cut")) is None


@given(st.text(max_size=40), st.integers(0, 599))
def test_nothing_is_refused_that_aws_may_have_done(code: str, status: int) -> None:
    """An unknown code is a refusal only with a 4xx, and then never one that tries another place."""
    told = translated("run_instances", error(f"Unheard{code}", status))
    if isinstance(told, CloudRefusedError):
        assert 400 <= status < 500
        assert told.kind in {"auth", "not_found", "permanent"}


@pytest.mark.parametrize(
    ("zone", "region"),
    [
        ("eu-west-3a", "eu-west-3"),
        ("us-east-1-bos-1a", "us-east-1"),
        ("us-gov-west-1b", "us-gov-west-1"),
        ("fr-par", ""),
    ],
)
def test_a_zone_is_of_its_region(zone: str, region: str) -> None:
    assert region_of(zone) == region


@pytest.mark.parametrize("text", ["", "i-1", "/i-1", "eu-west-3/", "fr-par-2x/i-1", "EU/i-1"])
def test_a_foreign_id_is_none_of_ours(text: str) -> None:
    assert split_id(text) == ("", "")


def test_an_id_holds_its_region() -> None:
    assert split_id("eu-west-3/i-0abc") == ("eu-west-3", "i-0abc")


@given(st.integers(1, 16_000))
def test_a_disk_is_never_smaller_than_asked_nor_two_gb_larger(size_gb: int) -> None:
    assert size_gb <= gb_of(gib_of(size_gb)) <= size_gb + 1


@pytest.mark.parametrize(("mib", "vram_gb"), [(16_384, 16), (22_888, 24), (45_776, 48), (40_960, 40), (81_920, 80)])
def test_a_cards_memory_is_the_number_on_the_card(mib: int, vram_gb: int) -> None:
    assert vram_gb_of(mib) == vram_gb
