"""Makes a key for each identity on NATS: `python -m infra.deploy.nats_keys <folder>`.

    <folder>/web.nk, gateway.nk ...   seeds, mode 0600: each goes to its service alone (INVENTIV_NATS_NKEY_FILE)
    <folder>/nkeys.conf               public keys, for the servers

Existing seeds stay, so it may be run again; to replace one, delete its file first.
"""

import sys
from pathlib import Path

from infra.events.nkeys import NkeyError, UserKey, new_seed
from infra.events.permissions import PERMISSIONS
from infra.secret_files import SecretFileError, secret_file


def make_keys(folder: Path) -> Path:
    """Makes what is missing; returns the file of public keys.

    Raises:
        SecretFileError, NkeyError: a seed's file is readable by others, or holds something else.
    """
    keys = {name: UserKey(secret_file(folder / f"{name}.nk", new_seed).decode().strip()) for name in PERMISSIONS}
    public = folder / "nkeys.conf"
    lines = (f'{name.upper()}_NKEY: "{key.public}"\n' for name, key in keys.items())
    public.write_text("# Public keys of the identities; the seeds stay away from the servers.\n" + "".join(lines))
    return public


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m infra.deploy.nats_keys <folder for the seeds>", file=sys.stderr)
        return 2
    try:
        public = make_keys(Path(arguments[0]))
    except (SecretFileError, NkeyError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(public.read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
