"""What can be rented, and the models that the catalogue starts with (SPEC 9.5). Prices are the seed's list prices.

Only active providers are offered: `local` needs no account; the clouds become active with their adapters.
"""

import msgspec

from domain.ids import ModelId, derived_id
from domain.model import ListModel


class InstanceType(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int
    ram_gb: int
    price_eur_micros_per_hour: int


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


def _type(code: str, gpus: int, vram_gb: int, cpus: int, ram_gb: int, eur_micros: int) -> InstanceType:
    return InstanceType(
        code=code,
        gpu_count=gpus,
        vram_per_gpu_gb=vram_gb,
        cpu_count=cpus,
        ram_gb=ram_gb,
        price_eur_micros_per_hour=eur_micros,
    )


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
        is_active=False,
        zones=(
            Zone(code="fr-par-1", region="fr-par", is_active=True),
            Zone(
                code="fr-par-2", region="fr-par", is_active=True, instance_types=tuple(t.code for t in _SCALEWAY_TYPES)
            ),
            Zone(code="nl-ams-1", region="nl-ams", is_active=True),
        ),
        instance_types=_SCALEWAY_TYPES,
    ),
    Provider(code="ovh", name="OVH", is_active=False),
)


def find_provider(code: str) -> Provider | None:
    """An active provider, or None."""
    return next((p for p in PROVIDERS if p.code == code and p.is_active), None)


def model_id_of(code: str) -> ModelId:
    """The catalogue gives each model code one id, so that seeding twice lists it once."""
    return ModelId(derived_id("catalogue", f"model/{code}"))


def _model(code: str, vram_gb: int, context: int, disk_gb: int) -> ListModel:
    name = code.rsplit("/", maxsplit=1)[-1].replace("-", " ")
    return ListModel(code=code, name=name, required_vram_gb=vram_gb, context_length=context, data_volume_gb=disk_gb)


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
