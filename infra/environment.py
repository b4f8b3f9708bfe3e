"""The only reader of environment variables. Every setting has a default, a unit and a meaning here.

Secrets come as files, never as variables: each lives in `<data folder>/secrets`, mode 0600. What is absent there is
made by chance in the embedded mode, and stops the start in any other.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from platformdirs import user_data_path

from domain.network import Network, networks_of
from domain.outbound import OutboundRules, rules_of

DEFAULT_API_PORT = 8003
DEFAULT_GATEWAY_PORT = 8002
DEFAULT_TUNNEL_PORT = 8004
DEFAULT_TUNNEL_INNER_PORT = 8005
DEFAULT_NATS_PORT = 42220
DEFAULT_POSTGRES_PORT = 54320
FIRST_LISTEN_FD = 3
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
"""What a child process gets of our own surroundings: enough to find programs and libraries, no stray secrets."""


class NatsLogin(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection proves itself with, besides what its address says.

    Attributes:
        nkey_file: holds the seed of this service's own key.
        ca_file: PEM; who signed the servers' certificates. The machine's own authorities when absent.
    """

    nkey_file: Path | None = None
    ca_file: Path | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one process.

    Attributes:
        data_dir: INVENTIV_DATA_DIR; streams, tables, secrets, logs and local servers of the embedded mode.
        nats_url: INVENTIV_NATS_URL.
        nats_monitor_url: INVENTIV_NATS_MONITOR_URL; the server's monitoring address, to check its sync_interval; of a
            cluster every node's, separated by commas.
        nats_nkey_file: INVENTIV_NATS_NKEY_FILE; this service's own key (its seed) for a cluster that wants one.
        nats_ca_file: INVENTIV_NATS_CA_FILE; PEM of who signed the servers' certificates.
        nats_nodes: INVENTIV_NATS_NODES; nats-servers of `inventiv up`: 1, 3 or 5; 0 leaves it to the data folder.
        nats_replicas: INVENTIV_NATS_REPLICAS; fewest copies of each stream; services refuse to start with fewer.
        postgres_url: INVENTIV_POSTGRES_URL.
        host: INVENTIV_HOST; address that the API and the gateway listen on.
        api_port, gateway_port: INVENTIV_API_PORT, INVENTIV_GATEWAY_PORT.
        api_url: INVENTIV_API_URL; where agents and the CLI reach the API.
        gateway_url: INVENTIV_GATEWAY_URL.
        api_key: INVENTIV_API_KEY; the key that `inventiv chat` uses, when given.
        secrets_dir: INVENTIV_SECRETS_DIR; default `<data_dir>/secrets`.
        make_secrets: INVENTIV_MAKE_SECRETS=1 makes secrets that are missing, as `inventiv up` does; elsewhere a missing
            one is a lost one, and nothing starts.
        console_url: INVENTIV_CONSOLE_URL; where the links in mails lead; empty: to api_url.
        smtp_server: INVENTIV_SMTP_SERVER; sends the platform's mails. Empty: mails stay in `<data_dir>/inbox`.
        smtp_port: INVENTIV_SMTP_PORT; 465 speaks TLS from the start, any other begins it by STARTTLS.
        smtp_username: INVENTIV_SMTP_USERNAME; empty: no login.
        smtp_password_file: INVENTIV_SMTP_PASSWORD_FILE; holds the password of smtp_username.
        smtp_from_email, smtp_from_name: INVENTIV_SMTP_FROM_EMAIL, INVENTIV_SMTP_FROM_NAME; who mails come from.
        smtp_use_tls: INVENTIV_SMTP_USE_TLS=0 sends in the clear, for a relay on this very machine.
        admin_password_file: INVENTIV_ADMIN_PASSWORD_FILE; the first admin's password is read from it.
        admin_email: INVENTIV_ADMIN_EMAIL.
        admin_username: INVENTIV_ADMIN_USERNAME.
        organization_name: INVENTIV_ORGANIZATION_NAME; the organisation that a fresh platform starts with.
        jwt_secret_file: INVENTIV_JWT_SECRET_FILE; signs sign-in tokens; at least 32 bytes. Absent: a key made from the
            master key.
        min_password_length: INVENTIV_MIN_PASSWORD_LENGTH, characters (8..128) of a password that is chosen from now on.
        session_ttl_s: INVENTIV_SESSION_TTL_S, seconds a login lasts.
        cookie_secure: INVENTIV_COOKIE_SECURE=1 marks the cookie for https only.
        heartbeat_interval_s: INVENTIV_HEARTBEAT_INTERVAL_S, seconds between an agent's heartbeats.
        startup_timeout_s: INVENTIV_STARTUP_TIMEOUT_S, seconds a worker may take to become ready.
        worker_data_volume_gb: INVENTIV_WORKER_DATA_VOLUME_GB, GB (up to 5000) of every rented machine's disk, whatever
            its model or its organisation's settings say; 0 leaves it to them.
        worker_stale_s: INVENTIV_WORKER_STALE_S, seconds without heartbeat after which the gateway passes a worker over.
        worker_silent_s: INVENTIV_WORKER_SILENT_S, seconds (5..3600) without heartbeat after which a worker is asked
            itself, and taken for lost when it does not answer.
        key_trust_s: INVENTIV_KEY_TRUST_S, seconds (5..86400) without proof from the log that it knows every revocation,
            after which a gateway lets no key in any more.
        trusted_proxies: INVENTIV_TRUSTED_PROXIES; addresses or CIDRs of our own proxies, separated by commas, whose
            X-Forwarded-For is believed.
        metrics_from: INVENTIV_METRICS_FROM; addresses or CIDRs, separated by commas, from which the gateway's /metrics
            may be read.
        upstream_allow: INVENTIV_UPSTREAM_ALLOW; hosts, addresses or CIDRs, each with :port or for any, separated by
            commas, that upstreams may have although they are not public, or speak http.
        host_allow: INVENTIV_HOST_ALLOW; addresses or CIDRs, separated by commas, that enrolled hosts may have although
            they are loopback or link-local.
        drain_deadline_s: INVENTIV_DRAIN_DEADLINE_S, seconds that running answers get when their instance stops.
        drain_s: INVENTIV_DRAIN_S, seconds that a gateway's running answers get when another gateway has taken over.
        engine_dir: INVENTIV_ENGINE_DIR; where `just engine` prepared the real engine.
        log_format: INVENTIV_LOG_FORMAT, "text" or "json".
        queue_wait_s: INVENTIV_QUEUE_WAIT_S, seconds (0..900) that a request waits in the gateway for a worker to have
            room, where its client does not say (x-inventiv-max-wait).
        requests_per_gpu: INVENTIV_REQUESTS_PER_GPU, most requests that one gateway has open per GPU of a worker; the
            others wait in the gateway's queue.
        agent_versions_allowed: INVENTIV_AGENT_VERSIONS_ALLOWED; versions of the agent, separated by commas, that may
            report besides today's, in any build; empty: the one before today's.
        worker_token_ttl_s: INVENTIV_WORKER_TOKEN_TTL_S, seconds (1..31536000) after which a worker gets its next token.
        tunnel_host, tunnel_port: INVENTIV_TUNNEL_HOST, INVENTIV_TUNNEL_PORT; where the relay listens for agents behind
            NAT.
        tunnel_inner_host, tunnel_inner_port: INVENTIV_TUNNEL_INNER_HOST, INVENTIV_TUNNEL_INNER_PORT; where it listens
            for gateways: an address that nobody else can reach.
        tunnel_agent_url: INVENTIV_TUNNEL_AGENT_URL; where agents reach the relay; empty: at api_url, whose edge sends
            /internal/worker/tunnel there.
        tunnel_url: INVENTIV_TUNNEL_URL; where gateways reach the relay; empty: no worker may register with a tunnel.
        hf_token_file: INVENTIV_HF_TOKEN_FILE; holds the token with which machines fetch gated models from Hugging Face,
            where their organisation gave none of its own. Whoever owns such a machine can read it: leave it out where
            organisations bring machines or accounts of their own and shall not have it.
        scaleway_url: INVENTIV_SCALEWAY_URL; where Scaleway's API is; empty: https://api.scaleway.com.
        aws_endpoint_url: INVENTIV_AWS_ENDPOINT_URL; where AWS's APIs are, all of them; empty: AWS's own, by region.
        access_log: INVENTIV_ACCESS_LOG; "off", "stdout" or the path of a file: where the gateway writes a line of JSON
            for each request, without content.
    """

    data_dir: Path
    nats_url: str = f"nats://127.0.0.1:{DEFAULT_NATS_PORT}"
    nats_monitor_url: str = ""
    nats_nkey_file: Path | None = None
    nats_ca_file: Path | None = None
    nats_nodes: int = 0
    nats_replicas: int = 1
    postgres_url: str = ""
    host: str = "127.0.0.1"
    api_port: int = DEFAULT_API_PORT
    gateway_port: int = DEFAULT_GATEWAY_PORT
    api_url: str = f"http://127.0.0.1:{DEFAULT_API_PORT}"
    gateway_url: str = f"http://127.0.0.1:{DEFAULT_GATEWAY_PORT}"
    api_key: str = ""
    secrets_dir: Path
    make_secrets: bool = False
    console_url: str = ""
    smtp_server: str = ""
    smtp_port: int = 465
    smtp_username: str = ""
    smtp_password_file: Path | None = None
    smtp_from_email: str = ""
    smtp_from_name: str = "Inventiv Agents"
    smtp_use_tls: bool = True
    admin_password_file: Path | None = None
    admin_email: str = "admin@inventiv.local"
    admin_username: str = "admin"
    organization_name: str = "Inventiv IT"
    jwt_secret_file: Path | None = None
    min_password_length: Annotated[int, msgspec.Meta(ge=8, le=128)] = 15
    session_ttl_s: int = 43_200
    cookie_secure: bool = False
    heartbeat_interval_s: float = 5.0
    startup_timeout_s: int = 3600
    worker_data_volume_gb: Annotated[int, msgspec.Meta(ge=0, le=5000)] = 0
    worker_stale_s: int = 120
    worker_silent_s: Annotated[float, msgspec.Meta(ge=5, le=3600)] = 30.0
    key_trust_s: Annotated[int, msgspec.Meta(ge=5, le=86_400)] = 600
    trusted_proxies: str = ""
    metrics_from: str = "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
    upstream_allow: str = ""
    host_allow: str = ""
    drain_deadline_s: int = 300
    drain_s: int = 600
    engine_dir: Path = Path(".engine")
    log_format: str = "text"
    queue_wait_s: Annotated[float, msgspec.Meta(ge=0, le=900)] = 30.0
    requests_per_gpu: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 256
    hf_token_file: Path | None = None
    scaleway_url: str = ""
    aws_endpoint_url: str = ""
    access_log: str = "off"
    agent_versions_allowed: str = ""
    worker_token_ttl_s: Annotated[int, msgspec.Meta(ge=1, le=31_536_000)] = 86_400
    tunnel_host: str = "127.0.0.1"
    tunnel_port: int = DEFAULT_TUNNEL_PORT
    tunnel_inner_host: str = "127.0.0.1"
    tunnel_inner_port: int = DEFAULT_TUNNEL_INNER_PORT
    tunnel_agent_url: str = ""
    tunnel_url: str = ""

    @property
    def nats_login(self) -> NatsLogin:
        return NatsLogin(nkey_file=self.nats_nkey_file, ca_file=self.nats_ca_file)

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """Of trusted_proxies; raises ValueError, but not after read_environment."""
        return _networks(self.trusted_proxies)

    @property
    def metrics_networks(self) -> tuple[Network, ...]:
        """Of metrics_from; raises ValueError, but not after read_environment."""
        return _networks(self.metrics_from)

    @property
    def host_networks(self) -> tuple[Network, ...]:
        """Of host_allow; raises ValueError, but not after read_environment."""
        return _networks(self.host_allow)

    @property
    def outbound_rules(self) -> OutboundRules:
        """Of upstream_allow; raises ValueError, but not after read_environment."""
        return rules_of(self.upstream_allow.split(","))


def _networks(listed: str) -> tuple[Network, ...]:
    return networks_of([one.strip() for one in listed.split(",") if one.strip()])


def read_environment(variables: Mapping[str, str] = os.environ) -> Environment:
    """Reads every INVENTIV_* variable.

    Raises:
        ValueError: a value does not fit its type; the message names the variable.
    """
    data_dir = Path(variables.get("INVENTIV_DATA_DIR") or user_data_path("inventiv")).expanduser().resolve()
    given: dict[str, object] = {
        name: value
        for name in Environment.__struct_fields__
        if (value := variables.get(f"INVENTIV_{name.upper()}")) not in {None, ""}
    }
    given["data_dir"] = data_dir
    given.setdefault("secrets_dir", data_dir / "secrets")
    try:
        environment = msgspec.convert(given, Environment, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ValueError(f"An INVENTIV_* variable does not fit: {error}") from error
    for field, parsed in (
        ("trusted_proxies", "proxy_networks"),
        ("metrics_from", "metrics_networks"),
        ("host_allow", "host_networks"),
        ("upstream_allow", "outbound_rules"),
    ):
        try:
            getattr(environment, parsed)
        except ValueError as error:
            raise ValueError(f"An INVENTIV_* variable does not fit: {error} - at `$.{field}`") from error
    return environment


def activated_socket(variables: Mapping[str, str] = os.environ) -> int | None:
    """The descriptor of a listening socket that systemd opened for this process; None when it did not.

    See sd_listen_fds(3): they begin at 3, and the first is ours.
    """
    is_ours = variables.get("LISTEN_PID") == str(os.getpid())
    return FIRST_LISTEN_FD if is_ours and variables.get("LISTEN_FDS", "0") != "0" else None


def surroundings(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of PASSED_ON that are set, for a child process."""
    return {name: value for name in PASSED_ON if (value := variables.get(name))}


def wants_colour(variables: Mapping[str, str] = os.environ) -> bool:
    """False when the person asked for none (NO_COLOR, see no-color.org) or the terminal has none (TERM=dumb)."""
    return not variables.get("NO_COLOR") and variables.get("TERM") != "dumb"


def _path(wanted: type, value: object) -> object:
    if wanted is Path:
        return Path(str(value))
    raise NotImplementedError(wanted)
