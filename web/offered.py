"""What offerings and shares look like at the REST edge: prices, moments, public identifiers, who set which flag.

Prices are whole EUR millionths per million tokens, as they are kept: no price is rounded on its way to a bill.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, ConfigDict

from domain import offering as law
from domain.activation import Flag
from projections.flags import FlagChanges
from web.shapes import Body, Reply


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the calendar") from None


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
"""With its offset from UTC."""


class Price(Body):
    """EUR millionths per million tokens; both count."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    input_eur_micros_per_million: int = 0
    output_eur_micros_per_million: int = 0

    @property
    def spoken(self) -> law.Price:
        """As commands have it."""
        return law.Price(**self.model_dump())


class FlagSetting(Reply):
    """Who set or cleared a flag last, and when; null while nobody did."""

    flag: Flag
    by: str | None
    at: datetime | None


def flag_settings(flags: FlagChanges) -> list[FlagSetting]:
    return [
        FlagSetting(flag="technical", by=flags.technical_by or None, at=flags.technical_at),
        FlagSetting(flag="economic", by=flags.economic_by or None, at=flags.economic_at),
    ]


def identifier(slug: str, code: str) -> str:
    """An offering's public name, as clients of the gateway say it."""
    return f"{slug}/{code}"
