"""A deployment's plan for a person: where, whether the model fits, what it costs, and what stands in the way.

With --json the API's own document. On a terminal the places are a table on stdout, the rest are lines; before a
question all of it goes to stderr, so that stdout stays what a script wants.
"""

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

from infra.cli.calling import refusal
from infra.cli.output import paint, print_fields, print_json, print_table

_PLACES = {
    "zone": "ZONE",
    "instance_type": "TYPE",
    "gpus": "GPUS",
    "stock": "STOCK",
    "price": "EUR/H",
    "fit": "FITS",
    "sequences": "SEQUENCES",
}
_FIELDS = {
    "what": "Model",
    "provider": "Provider",
    "vram": "VRAM",
    "context": "Context",
    "disk": "Disk",
    "cost": "Costs",
    "missing": "Missing",
}
_FITS = {"fits": "yes", "shorter_context": "shorter context", "does_not_fit": "no"}


def show_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    """On stdout.

    Raises:
        CommandError: it would be refused; the plan was shown before.
    """
    if as_json:
        print_json(plan)
        return
    _print_plan(plan)
    if plan["refusal"]:
        raise refusal(400, plan["refusal"]["error"], plan["refusal"]["message"])


def tell_plan(plan: Mapping[str, Any]) -> None:
    """On stderr, before a question."""
    with contextlib.redirect_stdout(sys.stderr):
        _print_plan(plan)


def _print_plan(plan: Mapping[str, Any]) -> None:
    print_fields(_facts(plan), _FIELDS)
    print()
    print_table([_place(place) for place in plan["places"]], _PLACES, empty="")
    memory = plan["places"][0]["memory"]
    if memory and memory["verdict"] != "fits":
        print(f"\n{paint('!', 'yellow')} {memory['reason']}")
        if plan["suggestions"]:
            print("It fits, cheapest first:")
            print_table([_suggestion(one) for one in plan["suggestions"]], {"provider": "PROVIDER", **_BRIEF}, empty="")


_BRIEF = {name: _PLACES[name] for name in ("zone", "instance_type", "gpus", "stock", "price")}


def _facts(plan: Mapping[str, Any]) -> dict[str, Any]:
    memory = plan["places"][0]["memory"]
    return {
        "what": f"{plan['instances']} x {plan['model']} ({plan['engine']})",
        "provider": plan["provider"],
        "vram": _vram(memory) if memory else None,
        "context": _context(memory) if memory else None,
        "disk": f"{plan['disk_gb']} GB" if plan["disk_gb"] else None,
        "cost": _cost(plan),
        "missing": ", ".join(plan["credentials_missing"]),
    }


def _vram(memory: Mapping[str, Any]) -> str:
    if memory["is_estimate"]:
        return f"{memory['weights_gb']:g} of {memory['total_gb']:g} GB, an estimate: the model's config is not known"
    parts = (
        f"weights {memory['weights_gb']:g} + overhead {memory['overhead_gb']:g} of {memory['usable_gb']:g} GB usable"
    )
    return (
        f"{parts}; KV cache {memory['kv_gb_per_sequence']:g} GB a sequence; tensor parallel {memory['tensor_parallel']}"
    )


def _context(memory: Mapping[str, Any]) -> str:
    longest = memory["longest_context_tokens"]
    return f"{memory['context_tokens']} tokens" + ("" if longest is None else f"; one sequence may have {longest} here")


def _cost(plan: Mapping[str, Any]) -> str:
    if plan["cost_per_hour"] is None:
        return "unknown; say it with --price"
    hour, day, month = (plan[f"cost_per_{span}"] for span in ("hour", "day", "month"))
    cost = f"{hour:g} EUR an hour, {day:g} a day, {month:g} a month (720 h)"
    most = plan["cost_per_hour_at_most"]
    return cost if most == hour else f"{cost}; {'unknown' if most is None else f'{most:g} EUR'} an hour at the dearest"


def _place(place: Mapping[str, Any]) -> dict[str, Any]:
    memory = place["memory"] or {}
    return {
        **_suggestion(place),
        "fit": _FITS.get(memory.get("verdict", ""), "-"),
        "sequences": memory.get("concurrent_sequences"),
    }


def _suggestion(one: Mapping[str, Any]) -> dict[str, Any]:
    price = one["cost_per_hour"]
    gpus = f"{one['gpu_count']} x {one['vram_per_gpu_gb']} GB"
    return {**one, "gpus": gpus, "price": None if price is None else f"{price:g}"}
