"""Every law on every provider's adapter, at once: `just conformance [CLOUD ...]`. The last line is one JSON object.

{"clouds": [...], "cases": ..., "passed": {cloud: n}, "failed": {cloud: [case, ...]}, "skipped": {cloud: [case, ...]}}
"""

import asyncio
import sys

import msgspec

from tests.infra.providers.conformance.suite import CASES, CLOUDS, Verdict, judge


async def _judge_all(names: list[str]) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    for name in names:
        verdicts[name] = await judge(CLOUDS[name])
        _tell(name, verdicts[name])
    return verdicts


def _tell(name: str, verdict: Verdict) -> None:
    print(f"{name}: {len(verdict.passed)} passed, {len(verdict.failed)} failed, {len(verdict.skipped)} skipped")
    for case, reason in verdict.failed.items():
        print(f"  FAILED {case}: {reason}")
    for case, reason in verdict.skipped.items():
        print(f"  skipped {case}: {reason}")


def main(arguments: list[str]) -> int:
    unknown = [name for name in arguments if name not in CLOUDS]
    if unknown:
        print(f"There is no cloud {unknown[0]!r} here; there are {', '.join(CLOUDS)}.", file=sys.stderr)
        return 2
    verdicts = asyncio.run(_judge_all(arguments or list(CLOUDS)))
    figures = {
        "clouds": list(verdicts),
        "cases": len(CASES),
        "passed": {name: len(verdict.passed) for name, verdict in verdicts.items()},
        "failed": {name: list(verdict.failed) for name, verdict in verdicts.items()},
        "skipped": {name: list(verdict.skipped) for name, verdict in verdicts.items()},
    }
    print(msgspec.json.encode(figures).decode())
    return 1 if any(verdict.failed for verdict in verdicts.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
