"""Laws of errors: each kind by its type, in the provider's words, short and without a credential."""

from collections.abc import Awaitable, Callable

from handlers.cloud_ports import Cloud, RefusalKind, TroubleKind
from infra.providers.calling import MOST_WORDS
from tests.infra.providers.conformance.double import (
    Double,
    Trouble,
    deleted,
    eventually,
    made,
    refusal_of,
    trouble_of,
    wanted,
)

Case = Callable[[Double], Awaitable[None]]


def _refused_when(trouble: Trouble, kind: RefusalKind, code: str) -> Case:
    async def is_refused(double: Double) -> None:
        cloud = double.new_cloud()
        await double.trouble(trouble)
        refused = await refusal_of(lambda: _rent(double, cloud))
        assert (refused.kind, refused.code) == (kind, code)
        _check_words(double, refused.message)

    is_refused.__name__ = f"when_{trouble}_a_server_is_refused_as_{kind}"
    return is_refused


def _unavailable_when(trouble: Trouble, kind: TroubleKind) -> Case:
    async def is_unavailable(double: Double) -> None:
        cloud = double.new_cloud()
        await double.trouble(trouble)
        unavailable = await trouble_of(cloud.list_servers)
        assert unavailable.kind == kind
        _check_words(double, str(unavailable))

    is_unavailable.__name__ = f"when_{trouble}_the_trouble_is_{kind}"
    return is_unavailable


async def refused_credentials_are_told_as_such(double: Double) -> None:
    cloud = double.new_cloud()
    await double.trouble("denied")
    refused = await refusal_of(lambda: cloud.create_server(wanted(double)))
    assert refused.kind == "auth"
    _check_words(double, refused.message)


async def what_is_not_there_is_told_as_such(double: Double) -> None:
    cloud = double.new_cloud()
    server = await made(double, cloud)
    await deleted(double, cloud, server.provider_instance_id)
    refused = await refusal_of(lambda: cloud.start_server(server.provider_instance_id))
    assert refused.kind == "not_found"
    _check_words(double, refused.message)


async def _rent(double: Double, cloud: Cloud) -> None:
    """A provider may say no at the creation or at the start."""
    server = await eventually(double, lambda: cloud.create_server(wanted(double)))
    await eventually(double, lambda: cloud.start_server(server.provider_instance_id))


def _check_words(double: Double, words: str) -> None:
    assert 0 < len(words) <= MOST_WORDS
    assert not any(secret in words for secret in double.secrets)


CASES = (
    _refused_when("out_of_stock", "out_of_stock", "PROVIDER_OUT_OF_STOCK"),
    _refused_when("quota", "quota", "PROVIDER_QUOTA_EXCEEDED"),
    _unavailable_when("rate_limited", "rate_limited"),
    _unavailable_when("server_error", "transient"),
    _unavailable_when("unreachable", "transient"),
    refused_credentials_are_told_as_such,
    what_is_not_there_is_told_as_such,
)
