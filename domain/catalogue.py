"""What can be rented, and the models that the catalogue starts with (SPEC 9.5). Prices are the seed's list prices.

Only active providers are offered. `bare_metal` lists nothing here: its types are the hosts that an organisation
enrolled. The surprising rule: a price may be unknown (None), and that is no price of zero. AWS bills in dollars, by
each account's own contract; whoever rents there says what an hour costs, or nothing is rented.
"""

import msgspec

from domain.ids import ModelId, derived_id
from domain.model import ListModel
from domain.seed_shapes import seed_shape


class InstanceType(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of machine. Memory in GB as its maker names it: 80 GB of an H100 are at least 80 x 10^9 bytes.

    Attributes:
        price_eur_micros_per_hour: None when nobody knows it in EUR.
        is_diskless: takes no volumes at its creation (SPEC 4.2); its provider makes a small one, which is grown.
    """

    code: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int
    ram_gb: int
    price_eur_micros_per_hour: int | None
    is_diskless: bool = False

    @property
    def vram_gb(self) -> int:
        """Of all its GPUs together."""
        return self.gpu_count * self.vram_per_gpu_gb


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    region: str
    is_active: bool
    instance_types: tuple[str, ...] = ()


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    name: str
    is_active: bool
    zones: tuple[Zone, ...] = ()
    instance_types: tuple[InstanceType, ...] = ()

    def zone(self, code: str) -> Zone | None:
        return next((z for z in self.zones if z.code == code and z.is_active), None)

    def instance_type(self, code: str) -> InstanceType | None:
        return next((t for t in self.instance_types if t.code == code), None)


def _type(code: str, gpus: int, vram_gb: int, cpus: int, ram_gb: int, eur_micros: int | None = None) -> InstanceType:
    return InstanceType(
        code=code,
        gpu_count=gpus,
        vram_per_gpu_gb=vram_gb,
        cpu_count=cpus,
        ram_gb=ram_gb,
        price_eur_micros_per_hour=eur_micros,
        is_diskless=code.startswith(_DISKLESS),
    )


_DISKLESS = ("L4-", "L40S-", "RENDER-")
"""Scaleway's types that take no volumes at creation (SPEC 4.2 step 4)."""
_LOCAL_TYPES = (_type("mock-local-instance", 1, 2, 4, 8, 0),)
_SCALEWAY_TYPES = (
    _type("B300-SXM-8-288G", 8, 288, 224, 3840, 60_000_000),
    _type("H100-SXM-8-80G", 8, 80, 128, 960, 23_028_000),
    _type("H100-SXM-4-80G", 4, 80, 64, 480, 11_610_000),
    _type("H100-SXM-2-80G", 2, 80, 32, 240, 6_018_000),
    _type("H100-2-80G", 2, 80, 48, 480, 5_460_000),
    _type("H100-1-80G", 1, 80, 24, 240, 2_730_000),
    _type("L40S-8-48G", 8, 48, 64, 768, 11_199_400),
    _type("L40S-4-48G", 4, 48, 32, 384, 5_599_700),
    _type("L40S-2-48G", 2, 48, 16, 192, 2_799_800),
    _type("L40S-1-48G", 1, 48, 8, 96, 1_399_900),
    _type("L4-8-24G", 8, 24, 64, 384, 6_000_000),
    _type("L4-4-24G", 4, 24, 32, 192, 3_000_000),
    _type("L4-2-24G", 2, 24, 16, 96, 1_500_000),
    _type("L4-1-24G", 1, 24, 8, 48, 750_000),
    _type("RENDER-S", 1, 16, 10, 42, 1_221_000),
)

_AWS_TYPES = (
    _type("g4dn.xlarge", 1, 16, 4, 16),
    _type("g4dn.2xlarge", 1, 16, 8, 32),
    _type("g4dn.4xlarge", 1, 16, 16, 64),
    _type("g4dn.8xlarge", 1, 16, 32, 128),
    _type("g4dn.12xlarge", 4, 16, 48, 192),
    _type("g4dn.16xlarge", 1, 16, 64, 256),
    _type("g4dn.metal", 8, 16, 96, 384),
    _type("g5.xlarge", 1, 24, 4, 16),
    _type("g5.2xlarge", 1, 24, 8, 32),
    _type("g5.4xlarge", 1, 24, 16, 64),
    _type("g5.8xlarge", 1, 24, 32, 128),
    _type("g5.12xlarge", 4, 24, 48, 192),
    _type("g5.16xlarge", 1, 24, 64, 256),
    _type("g5.24xlarge", 4, 24, 96, 384),
    _type("g5.48xlarge", 8, 24, 192, 768),
    _type("g6.xlarge", 1, 24, 4, 16),
    _type("g6.2xlarge", 1, 24, 8, 32),
    _type("g6.4xlarge", 1, 24, 16, 64),
    _type("g6.8xlarge", 1, 24, 32, 128),
    _type("g6.12xlarge", 4, 24, 48, 192),
    _type("g6.16xlarge", 1, 24, 64, 256),
    _type("g6.24xlarge", 4, 24, 96, 384),
    _type("g6.48xlarge", 8, 24, 192, 768),
    _type("g6e.xlarge", 1, 48, 4, 32),
    _type("g6e.2xlarge", 1, 48, 8, 64),
    _type("g6e.4xlarge", 1, 48, 16, 128),
    _type("g6e.8xlarge", 1, 48, 32, 256),
    _type("g6e.12xlarge", 4, 48, 48, 384),
    _type("g6e.16xlarge", 1, 48, 64, 512),
    _type("g6e.24xlarge", 4, 48, 96, 768),
    _type("g6e.48xlarge", 8, 48, 192, 1536),
    _type("p4d.24xlarge", 8, 40, 96, 1152),
    _type("p5.4xlarge", 1, 80, 16, 256),
    _type("p5.48xlarge", 8, 80, 192, 2048),
)
"""T4 16 GB, A10G 24, L4 24, L40S 48, A100 40, H100 80: what EC2's DescribeInstanceTypes says of each."""


def _aws_zone(code: str, *families: str) -> Zone:
    offered = tuple(t.code for t in _AWS_TYPES if t.code.split(".", maxsplit=1)[0] in families)
    return Zone(code=code, region=code[:-1], is_active=True, instance_types=offered)


_AWS_ZONES = (
    _aws_zone("eu-west-3a", "g4dn", "g5"),
    _aws_zone("eu-west-3b", "g4dn", "g5", "g6"),
    _aws_zone("eu-west-3c", "g4dn", "g5", "g6"),
    *(_aws_zone(f"eu-central-1{letter}", "g4dn", "g5", "g6", "g6e", "p4d") for letter in "abc"),
    *(_aws_zone(f"us-east-1{letter}", "g4dn", "g5", "g6", "g6e", "p4d", "p5") for letter in "abcd"),
    _aws_zone("us-east-1e", "p5"),
    _aws_zone("us-east-1f", "g4dn", "g5", "g6", "p5"),
)
"""As DescribeInstanceTypeOfferings said once. Accounts may map the letters otherwise; a catalogue sync tells theirs."""

PROVIDERS = (
    Provider(
        code="local",
        name="This machine",
        is_active=True,
        zones=(Zone(code="local", region="local", is_active=True, instance_types=("mock-local-instance",)),),
        instance_types=_LOCAL_TYPES,
    ),
    Provider(
        code="scaleway",
        name="Scaleway",
        is_active=True,
        zones=(
            Zone(code="fr-par-1", region="fr-par", is_active=True),
            Zone(
                code="fr-par-2", region="fr-par", is_active=True, instance_types=tuple(t.code for t in _SCALEWAY_TYPES)
            ),
            Zone(code="nl-ams-1", region="nl-ams", is_active=True),
        ),
        instance_types=_SCALEWAY_TYPES,
    ),
    Provider(code="aws", name="AWS", is_active=True, zones=_AWS_ZONES, instance_types=_AWS_TYPES),
    Provider(code="bare_metal", name="Your own machines", is_active=True),
    Provider(code="ovh", name="OVH", is_active=False),
)


HUGGING_FACE = Provider(code="huggingface", name="Hugging Face", is_active=False)
"""Rents out nothing: gated models, such as Llama, are fetched from it with an organisation's token."""


def find_provider(code: str) -> Provider | None:
    """An active provider, or None."""
    return next((p for p in PROVIDERS if p.code == code and p.is_active), None)


def model_id_of(code: str) -> ModelId:
    """The catalogue gives each model code one id, so that seeding twice lists it once."""
    return ModelId(derived_id("catalogue", f"model/{code}"))


def _model(code: str, vram_gb: int, context: int, disk_gb: int) -> ListModel:
    name = code.rsplit("/", maxsplit=1)[-1].replace("-", " ")
    return ListModel(
        code=code,
        name=name,
        required_vram_gb=vram_gb,
        context_length=context,
        data_volume_gb=disk_gb,
        shape=seed_shape(code),
    )


TINY_MODEL = "inventiv/tiny-random-llama"
"""Two layers of random weights, made on the spot by `just engine`: noise as text, real as protocol, no GPU needed."""

SEED_MODELS = (
    _model("mock-echo-model", 0, 2048, 0),
    _model(TINY_MODEL, 0, 1024, 0),
    _model("meta-llama/Meta-Llama-3-8B-Instruct", 16, 8192, 200),
    _model("meta-llama/Meta-Llama-3-70B-Instruct", 160, 8192, 1000),
    _model("meta-llama/Llama-3.1-8B-Instruct", 16, 131072, 200),
    _model("meta-llama/Llama-3.1-70B-Instruct", 160, 131072, 1200),
    _model("mistralai/Mistral-7B-Instruct-v0.2", 16, 32768, 200),
    _model("mistralai/Mixtral-8x7B-Instruct-v0.1", 48, 32768, 400),
    _model("mistralai/Mixtral-8x22B-Instruct-v0.1", 96, 65536, 800),
    _model("Qwen/Qwen2.5-0.5B-Instruct", 2, 2048, 50),
    _model("Qwen/Qwen2.5-7B-Instruct", 16, 32768, 200),
    _model("Qwen/Qwen2.5-14B-Instruct", 28, 32768, 300),
    _model("Qwen/Qwen2.5-32B-Instruct", 64, 32768, 500),
    _model("Qwen/Qwen2.5-72B-Instruct", 160, 32768, 1200),
    _model("google/gemma-2-9b-it", 20, 8192, 200),
    _model("google/gemma-2-27b-it", 48, 8192, 500),
    _model("microsoft/Phi-3-mini-4k-instruct", 8, 4096, 80),
    _model("microsoft/Phi-3-medium-4k-instruct", 28, 4096, 200),
)
