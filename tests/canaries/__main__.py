"""Plants secrets and personal data all over a platform, uses and breaks it, then looks where they ended up.

    50 secrets + 50 personal data ──sign-ins, keys, mails, refusals, kill -9──> logs, tables, streams, metrics, exports

None may be found. Two controls show that the search finds: a canary written into a log, and one into an event. Then the
time from a key's revocation to the gateway's refusal is measured under load (tests/bench/revocation). `just canaries`.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from infra.processes.running import read_platform
from tests.bench.revocation.measuring import measure
from tests.canaries.plant import Planted, plant
from tests.canaries.scan import Scanner, scan_files, scan_tables, scan_texts
from tests.journeys.platform import Platform, running

SHOWN_FINDINGS = 20


def exports(platform: Platform) -> dict[str, bytes]:
    """What one can take out of a platform, and what it tells of itself."""
    asked = {
        "metrics of the API": "/metrics",
        "audit log as CSV": "/audit/export?format=csv&all=true",
        "audit log as JSON lines": "/audit/export?format=jsonl&all=true",
        "action logs": "/action_logs?limit=1000",
        "live catalogue of events": "/events?all=true&limit=500",
    }
    texts = {}
    for name, path in asked.items():
        reply = platform.rest("GET", path)
        assert reply.status_code == 200, (path, reply.text[:300])
        texts[name] = reply.content
    for command in ("events", "audit"):
        file = platform.data_dir.parent / f"{command}.jsonl"
        ran = platform.inventiv(command, "export", str(file), timeout_s=120)
        assert ran.code == 0, ran
        texts[f"{command} export"] = file.read_bytes()
    texts["`up` itself"] = platform.log.encode()
    return texts


def scanned(platform: Platform, planted: Planted, texts: dict[str, bytes]) -> tuple[Scanner, dict[str, int]]:
    """Everything that the platform left behind, while its stores run and after it was killed."""
    scanner = Scanner(planted.everything)
    written = read_platform(platform.data_dir)
    assert written is not None
    tables = scan_tables(scanner, written.postgres_url)
    scan_texts(scanner, texts)
    platform.stop(signal.SIGINT)
    files = scan_files(scanner, platform.data_dir)
    return scanner, {"tables": tables, "files": files, "megabytes": scanner.bytes_read // 1_000_000}


def controls(folder: Path, planted: Planted) -> int:
    """Canaries that do lie about, in a log's words and inside an event's JSON: 2 when the search finds both."""
    place = folder / "control"
    (place / "logs").mkdir(parents=True)
    one, other = planted.secrets[0], planted.personal[0]
    (place / "logs" / "web.log").write_text(f"level=info event=oops key={one}\n")
    (place / "stream.blk").write_bytes(b"\x16\x9e" + json.dumps({"data": {"name": other}}).encode() + b"\x00")
    scanner = Scanner(planted.everything)
    scan_files(scanner, place)
    return len(scanner.found)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="fewer revocations")
    quick = arguments.parse_args().quick
    with tempfile.TemporaryDirectory(prefix="inventiv-canaries-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # root's Postgres runs as another account, which has to walk through
        place = folder / "platform"
        place.mkdir()
        with running(place) as platform:
            planted = plant(platform)
            scanner, seen = scanned(platform, planted, exports(platform))
        found_by_control = controls(folder, planted)
    for canary, places in list(scanner.found.items())[:SHOWN_FINDINGS]:
        print(f"{planted.kind_of(canary)}: {', '.join(sorted(places)[:5])}", file=sys.stderr)
    revocation = asyncio.run(measure(quick))
    figures = {
        "planted": len(planted.everything),
        "secrets": len(planted.secrets),
        "personal": len(planted.personal),
        "found": len(scanner.found),
        "found_by_control": found_by_control,
        **seen,
        **revocation,
    }
    print(json.dumps(figures))
    return 0 if not scanner.found and found_by_control == 2 else 1


if __name__ == "__main__":
    sys.exit(main())
