import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.outbound import MAX_LISTED, PUBLIC_ONLY, OutboundRules, rules_of

PUBLIC = "93.184.215.14"


def allowed(
    rules: OutboundRules, address: str, *, host: str = "a.example", port: int = 443, encrypted: bool = True
) -> bool:
    return rules.allows(host, port, address, encrypted=encrypted)


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"])
def test_the_public_internet_is_open_by_https_alone(address: str) -> None:
    assert allowed(PUBLIC_ONLY, address)
    assert not allowed(PUBLIC_ONLY, address, encrypted=False)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a01:203::1",
        "not an address",
        "",
        "127.1",
        "2130706433",
    ],
)
def test_what_only_our_own_machines_reach_is_closed(address: str) -> None:
    assert not allowed(PUBLIC_ONLY, address)
    assert not allowed(PUBLIC_ONLY, address, encrypted=False)


@given(st.ip_addresses())
def test_no_address_is_public_that_python_calls_private(address: object) -> None:
    inner = getattr(address, "is_private", False) or getattr(address, "is_loopback", False)
    assert not (inner and allowed(PUBLIC_ONLY, str(address)))


def test_a_listed_network_is_open_in_clear_too() -> None:
    rules = rules_of(["10.1.0.0/16", "fd00::5"])
    for encrypted in (True, False):
        assert allowed(rules, "10.1.2.3", encrypted=encrypted)
        assert allowed(rules, "::ffff:10.1.2.3", encrypted=encrypted)
        assert allowed(rules, "fd00::5", encrypted=encrypted)
        assert not allowed(rules, "10.2.0.1", encrypted=encrypted)
        assert not allowed(rules, "fd00::6", encrypted=encrypted)


@pytest.mark.parametrize(
    ("entry", "address"),
    [("127.0.0.1:11434", "127.0.0.1"), ("[::1]:11434", "::1"), ("llm-d.internal:11434", "10.0.0.9")],
)
def test_a_listed_port_is_open_alone(entry: str, address: str) -> None:
    """Ollama may be on loopback, and so are Postgres and NATS."""
    rules = rules_of([entry])
    assert allowed(rules, address, host="llm-d.internal", port=11434, encrypted=False)
    assert not allowed(rules, address, host="llm-d.internal", port=5432, encrypted=False)


def test_a_listed_host_may_have_any_address_and_another_one_not() -> None:
    rules = rules_of([" LLM-D.internal ", ""])
    assert allowed(rules, "10.0.0.9", host="llm-d.internal", encrypted=False)
    assert not allowed(rules, "10.0.0.9", host="x.llm-d.internal", encrypted=False)


@pytest.mark.parametrize(
    "entry",
    [
        "10.0.0.0/33",
        "a b",
        "http://x",
        "x:0",
        "x:99999",
        "x:y",
        "[::1",
        "[::1]8",
        "999.1.1.1",
        "-x",
        "x..y",
        "x:\uff11",
    ],
)
def test_a_list_with_a_slip_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"neither a host nor a network|not between 1 and"):
        rules_of([entry])


def test_a_list_has_an_end() -> None:
    with pytest.raises(ValueError, match="at most"):
        rules_of([f"h{n}" for n in range(MAX_LISTED + 1)])
