"""Looks for canaries in everything that a platform leaves behind, in the forms in which text likes to hide.

    files of the data folder (streams, tables' pages, logs, snapshots) + tables as text + replies, exports, metrics

Homes of secrets are left out, and named: a secret has to be somewhere.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

HOMES = ("secrets", "inbox")
"""Folders where secrets and mails are meant to be: the secret files (0600), and the embedded inbox of `inventiv up`."""
CHUNK_BYTES = 8 * 1024 * 1024


def forms_of(canary: str) -> frozenset[bytes]:
    """As it is, percent-encoded, in hex, in UTF-16, and in base64 wherever it may begin within a longer text."""
    raw = canary.encode()
    # The first and last characters of each base64 form depend on the neighbours, so they are cut off.
    based = [b64encode(b"\0" * shift + raw)[4 * (shift > 0) : -4].rstrip(b"=") for shift in range(3)]
    forms = {raw, quote(canary).encode(), raw.hex().encode(), canary.encode("utf-16-le"), *based}
    return frozenset(form for form in forms if len(form) >= 8)


class Scanner:
    """Finds any form of any canary; `found` maps a canary to the places where it lay."""

    def __init__(self, canaries: Iterable[str]) -> None:
        self._forms = {form: canary for canary in canaries for form in forms_of(canary)}
        self._longest = max(map(len, self._forms))
        self.found: dict[str, set[str]] = {}
        self.bytes_read = 0

    def look(self, data: bytes, place: str) -> None:
        self.bytes_read += len(data)
        for form, canary in self._forms.items():
            if form in data:
                self.found.setdefault(canary, set()).add(place)

    def look_into(self, path: Path, place: str) -> None:
        """A file, in chunks that overlap by the longest form."""
        with path.open("rb") as file:
            tail = b""
            while chunk := file.read(CHUNK_BYTES):
                self.look(tail + chunk, place)
                tail = chunk[-self._longest :]


def scan_files(scanner: Scanner, data_dir: Path) -> int:
    """Every file below the data folder but those of HOMES; returns how many."""
    files = 0
    for path in sorted(data_dir.rglob("*")):
        relative = path.relative_to(data_dir)
        if relative.parts[0] in HOMES or not path.is_file():
            continue
        files += 1
        scanner.look_into(path, str(relative))
    return files


def scan_tables(scanner: Scanner, postgres_url: str) -> int:
    """Every row of every table as text, which also undoes Postgres' own compression; returns how many tables."""
    with psycopg.connect(postgres_url) as connection:
        names = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in names:
            for data in _rows(connection, schema, table):
                scanner.look(data, f"table {schema}.{table}")
    return len(names)


def _rows(connection: psycopg.Connection, schema: str, table: str) -> Iterator[bytes]:
    """As COPY prints them; bytea comes in hex, so its content is looked at as bytes, too."""
    query = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(schema, table))
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for row in copy:
            text = bytes(row)
            yield text
            for column in text.rstrip(b"\n").split(b"\t"):
                if column.startswith(b"\\\\x"):
                    yield bytes.fromhex(column[3:].decode())


def scan_texts(scanner: Scanner, texts: Mapping[str, bytes]) -> None:
    for place, data in texts.items():
        scanner.look(data, place)
