"""Hosts as their organisation sees them: the enrolled ones, as they are now."""

from msgspec.structs import replace

from domain.host import HostChanged, HostEnrolled, HostWithdrawn, host_id_of
from projections.hosts import HOSTS, find_host, list_hosts
from tests.examples import ACME, GLOBEX, HOST_FACTS, example
from tests.given import NOON
from tests.projections.grammar import Story, projected

ENROLLED = example(HostEnrolled)
FIRST, SECOND = host_id_of(ACME, "192.0.2.7", 22), host_id_of(ACME, "192.0.2.8", 22)
OTHER = replace(HOST_FACTS, name="attic", slots=())


async def test_an_organisation_lists_its_own_hosts_by_name(postgres_url: str) -> None:
    second = replace(ENROLLED, address="192.0.2.8", facts=OTHER)
    story = Story().happened(ACME, FIRST, ENROLLED).happened(ACME, SECOND, second)
    async with projected(postgres_url, HOSTS, story.entries) as connection:
        listed = await list_hosts(connection, ACME)
        assert [(host.id, host.address, host.facts) for host in listed] == [
            (SECOND, "192.0.2.8", OTHER),
            (FIRST, "192.0.2.7", HOST_FACTS),
        ]
        assert await list_hosts(connection, GLOBEX) == []
        assert await find_host(connection, GLOBEX, FIRST) is None
        found = await find_host(connection, ACME, FIRST)
    assert found is not None
    assert (found.facts.instance_type, found.enrolled_at) == ("host:2x48", NOON)


async def test_a_changed_host_shows_what_is_said_of_it_now(postgres_url: str) -> None:
    story = Story().happened(ACME, FIRST, ENROLLED, HostChanged(facts=OTHER))
    async with projected(postgres_url, HOSTS, story.entries) as connection:
        (host,) = await list_hosts(connection, ACME)
    assert (host.facts, host.address, host.enrolled_at) == (OTHER, "192.0.2.7", NOON)


async def test_a_withdrawn_host_is_not_there_until_it_comes_back(postgres_url: str) -> None:
    story = Story().happened(ACME, FIRST, ENROLLED, HostWithdrawn())
    async with projected(postgres_url, HOSTS, story.entries) as connection:
        assert await list_hosts(connection, ACME) == []
        assert await find_host(connection, ACME, FIRST) is None
    story.happened(ACME, FIRST, ENROLLED)
    async with projected(postgres_url, HOSTS, story.entries) as connection:
        (host,) = await list_hosts(connection, ACME)
    assert host.enrolled_at > NOON
