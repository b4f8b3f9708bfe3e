"""`python -m tests.bench.revocation [--quick]`: prints how long revoked keys live; the last line is one JSON object.

Exit code 1 when the goal is missed, or the control shows that it could not have been.
"""

import argparse
import asyncio
import sys

from tests.bench.revocation.measuring import GOAL_S, as_json, measure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer keys")
    found = asyncio.run(measure(parser.parse_args().quick))
    for name, value in found.items():
        print(f"{name:30} {value:10.4f}")
    print(as_json(found))
    return 0 if found["revocation_p99_s"] < GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
