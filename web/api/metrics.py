"""How far the read models lag behind their streams, and what was refused, in the text format that Prometheus reads.

Figures alone, of the platform as a whole: nothing here tells one organisation from another, so nobody need sign in.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Mapping

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse

from domain.ports import Clock
from web.auth import Served, public
from web.denials import Counts, Denials
from web.services import Progress

router = APIRouter(tags=["system"], dependencies=[Depends(public)])

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics", response_class=PlainTextResponse)
async def platform_metrics(request: Request, services: Served) -> PlainTextResponse:
    """Heads of the streams; position, lag and age of each read model; refused attempts.

    503 while a server behind does not answer.
    """
    denials: Denials = request.app.state.denials
    text = rendered(await services.progress(), services.clock) + refusals(denials.counts)
    return PlainTextResponse(text, media_type=CONTENT_TYPE)


def refusals(counts: Counts) -> str:
    """Refused attempts by what became of them: recorded in the audit log or left out of it, or of nobody known."""
    name = "inventiv_denied_attempts_total"
    results = {"recorded": counts.recorded, "left_out": counts.left_out, "stranger": counts.strangers}
    lines = [f"# HELP {name} Refused attempts since this process began.", f"# TYPE {name} counter"]
    return "\n".join([*lines, *(f'{name}{{result="{result}"}} {count}' for result, count in results.items())]) + "\n"


def rendered(progress: Progress, clock: Clock) -> str:
    models = progress.read_models
    now = clock()
    gauges: Mapping[str, tuple[str, Iterable[tuple[str, str, float]]]] = {
        "inventiv_log_head": (
            "Position of the stream's newest message.",
            [("stream", stream, head) for stream, head in progress.heads.items()],
        ),
        "inventiv_projection_position": (
            "Position up to which the read model has read its stream.",
            [("projection", model.name, model.position) for model in models],
        ),
        "inventiv_projection_lag_events": (
            "Messages of its stream that the read model has yet to read.",
            [("projection", m.name, max(0, progress.heads.get(m.stream, 0) - m.position)) for m in models],
        ),
        "inventiv_projection_updated_seconds": (
            "Seconds since the read model last moved; of interest while it lags.",
            [("projection", m.name, max(0.0, round((now - m.updated_at).total_seconds(), 3))) for m in models],
        ),
        "inventiv_projection_built_percent": (
            "Below 100, a new read model is still being built and is not shown.",
            [("projection", model.name, model.built_percent) for model in models],
        ),
    }
    lines = []
    for name, (words, values) in gauges.items():
        lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{{label}="{value}"}} {figure}' for label, value, figure in values]
    return "\n".join(lines) + "\n"
