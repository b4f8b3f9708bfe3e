"""Where a server may be rented, and what it costs there: one line of a wish that may have several."""

import msgspec


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One zone and type of the wish's provider; sizes in GB, price in millionths of a euro."""

    zone: str
    instance_type: str
    gpu_count: int
    vram_per_gpu_gb: int
    price_eur_micros_per_hour: int
