"""The agent's program: `python agent.pyz` is the agent; `engine` and `exec` are the children that it starts itself.

python agent.pyz                             the agent, told everything by its environment
python agent.pyz engine --model M --port P   a simulated engine
python agent.pyz exec PID COMMAND...         COMMAND, tied to the life of process PID
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 ended in good order, 1 a fault, 2 not set up rightly."""
    # Imports stand in the branches: each child starts in milliseconds, without what only the others need.
    match list(sys.argv[1:] if arguments is None else arguments):
        case []:
            return _agent()
        case ["engine", *rest]:
            from agent.simulated_engine import main as engine  # noqa: PLC0415 - see above

            return engine(rest)
        case ["exec", pid, *command] if command and pid.isdecimal():
            from agent.child import become  # noqa: PLC0415 - see above

            become(int(pid), command)
        case _:
            print(__doc__, file=sys.stderr)
    return 2


def _agent() -> int:
    import asyncio  # noqa: PLC0415 - see main
    import os  # noqa: PLC0415 - see main

    from agent.loop import run  # noqa: PLC0415 - see main
    from agent.settings import SettingsError, settings_from  # noqa: PLC0415 - see main

    try:
        return asyncio.run(run(settings_from(os.environ)))
    except SettingsError as error:
        print(f"agent: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"agent: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
