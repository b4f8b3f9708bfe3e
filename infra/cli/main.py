"""The command `inventiv`: which word leads to which file, and how a failure becomes words and an exit code.

    inventiv <noun> [<verb>] ...  ──>  infra/cli/<file>.py  ──>  one call  ──>  text or JSON

Only the file of the noun that was asked for is imported (all of them for --help), so that a read-only command starts
within 0.4 s. Read output.py for what scripts may rely on.
"""

import importlib
import sys

import typer

from infra.cli.output import CommandError, ExitCode, paint, print_json, say

NOUNS = {
    "up": "up",
    "serve": "serve",
    "migrate": "migrate",
    "status": "status",
    "doctor": "doctor",
    "model": "models",
    "offering": "offerings",
    "share": "shares",
    "access": "access",
    "deploy": "deploy",
    "deployment": "deployments",
    "upstream": "upstreams",
    "instance": "instances",
    "gateway": "gateway",
    "org": "organizations",
    "member": "members",
    "invite": "invitations",
    "user": "users",
    "password": "password",
    "key": "keys",
    "provider": "providers",
    "reconcile": "reconcile",
    "catalog": "catalog",
    "host": "hosts",
    "setting": "settings",
    "chat": "chat",
    "events": "events",
    "audit": "audit",
    "vault": "vault",
    "inbox": "inbox",
    "simulate-cloud": "simulate_cloud",
}
"""First word of a command -> its file here. The order is that of --help."""


def main() -> None:
    """Entry point; ends the process. The parser's own ends: 2 for wrong usage, 130 for Ctrl-C."""
    arguments = sys.argv[1:]
    try:
        if not _serves(arguments):
            build_app(arguments)(args=arguments, prog_name="inventiv")
    except CommandError as error:
        sys.exit(_fail(error, as_json="--json" in arguments))
    except KeyboardInterrupt:  # while a command was still being imported
        sys.exit(ExitCode.INTERRUPTED)


def build_app(arguments: list[str]) -> typer.Typer:
    """An app with the noun that the command line begins with; with all of them when it begins otherwise."""
    app = typer.Typer(
        name="inventiv",
        help="Runs language models on demand, behind one OpenAI-compatible gateway. Begin with `inventiv up`.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_no_noun)
    noun = arguments[0] if arguments else ""
    for file in [NOUNS[noun]] if noun in NOUNS else NOUNS.values():
        importlib.import_module(f"infra.cli.{file}").register(app)
    return app


def _serves(arguments: list[str]) -> bool:
    """Runs a role until its end when that is all that was asked; anything else is for the parser.

    The parser reads one word with pydantic, whose 9 MB a process would keep that may live for months.
    """
    if len(arguments) != 2 or arguments[0] != "serve":
        return False
    serving = importlib.import_module("infra.cli.serve")
    if arguments[1] not in list(serving.RoleName):
        return False
    serving.serve(serving.RoleName(arguments[1]))
    return True


def _no_noun() -> None:
    """Keeps `inventiv <noun>` a group even when only one noun is registered."""


def _fail(error: CommandError, *, as_json: bool) -> int:
    say(f"{paint('✗', 'red', stderr=True)} {error.message}")
    if error.cure:
        say(f"  {error.cure}")
    if as_json:
        print_json({"error": error.code, "message": error.message, "exit_code": int(error.exit_code)})
    return error.exit_code


if __name__ == "__main__":
    main()
