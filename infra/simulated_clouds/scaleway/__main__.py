"""python -m infra.simulated_clouds.scaleway --folder DIR [--port N] [--speed X] [--json]"""

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from infra.simulated_clouds.scaleway import DEFAULT_PORT, DEFAULT_SPEED
from infra.simulated_clouds.scaleway.serving import Card, serve


def main() -> int:
    """Returns the exit status: 0 stopped, 1 the port or the folder cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.simulated_clouds.scaleway", description="A simulated Scaleway."
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    parser.add_argument("--speed", type=float, default=DEFAULT_SPEED, help="simulated seconds in a real one")
    parser.add_argument("--folder", type=Path, required=True, help="for its account and its machines")
    parser.add_argument("--json", action="store_true", help="say where it is as one line of JSON")
    wish = parser.parse_args()

    def show(card: Card) -> None:
        lines = [f"{name}  {value}" for name, value in msgspec.structs.asdict(card).items()]
        print(msgspec.json.encode(card).decode() if wish.json else "\n".join(lines), flush=True)

    try:
        asyncio.run(serve(port=wish.port, speed=wish.speed, folder=wish.folder.absolute(), show=show))
    except OSError as error:
        print(f"simulated Scaleway: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
