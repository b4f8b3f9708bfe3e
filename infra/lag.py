"""How far each read model is, and how far its stream goes: what /metrics shows."""

from collections.abc import Awaitable, Callable, Mapping

from infra.postgres import ReadModels
from projections.checkpoint import list_checkpoints
from projections.registry import PROJECTIONS
from web.services import Progress, ReadModelProgress

Head = Callable[[], Awaitable[int]]


async def read_progress(read: ReadModels, heads: Mapping[str, Head]) -> Progress:
    """Of the read models of this release that have begun.

    The checkpoints are read first, so that a lag is too large by a moment rather than negative.

    Args:
        read: open.
        heads: stream -> how to learn its head.

    Raises:
        OSError: a server does not answer.
    """
    async with read() as connection:
        known = {checkpoint.schema: checkpoint for checkpoint in await list_checkpoints(connection)}
    models = tuple(
        ReadModelProgress(
            name=projection.name,
            stream=projection.stream,
            position=checkpoint.position,
            updated_at=checkpoint.updated_at,
            built_percent=checkpoint.built_percent,
        )
        for projection in PROJECTIONS
        if (checkpoint := known.get(projection.schema)) is not None
    )
    return Progress(heads={stream: await head() for stream, head in heads.items()}, read_models=models)
