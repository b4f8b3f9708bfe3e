"""How an organisation's limits are shown, to its members and to the platform's administrators."""

from typing import Annotated

from pydantic import Field

from web.shapes import Reply

Limit = Annotated[int | None, Field(description="null: no limit.")]


class Limits(Reply):
    """Of an organisation, over all its keys; spend in EUR millionths within a calendar month, UTC."""

    requests_per_minute: Limit
    tokens_per_minute: Limit
    concurrency: Limit
    spend_limit_eur_micros_per_month: Limit
    max_completion_tokens: Limit
