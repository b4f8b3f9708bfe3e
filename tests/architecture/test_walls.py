"""Row security is the second wall: who may step over it is written here, with the reason, and nobody else does.

Within such a read the tenant's own condition in the query is the only wall. A new line of this table is a decision: say
why no scope of the caller would do, and keep the read to what it names.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.architecture.test_house import ROOMS, ROOT

MAY_SEE_EVERYTHING: Mapping[str, tuple[int, str]] = {
    "infra/audit/reading.py": (1, "the auditor's tools read the whole log"),
    "infra/person_traces.py": (1, "looks for a forgotten person in every row there is"),
    "infra/processes/handlers.py": (1, "handlers work for all organisations"),
    "web/api/access.py": (2, "offerings of others, by an id that a query on the public ones or on own shares gave"),
    "web/api/audit.py": (1, "all=true, for platform administrators"),
    "web/api/events.py": (1, "all=true and organization=, for platform administrators"),
    "web/api/invitations.py": (3, "the token is the proof; and whether an address belongs to a member already"),
    "web/api/members.py": (1, "names of the members whom a scoped query gave"),
    "web/api/models.py": (1, "whether anybody uses a model of the platform, for its administrators"),
    "web/api/operations.py": (1, "the platform's own accounts at providers, for platform administrators"),
    "web/api/organization_limits.py": (1, "any organisation's limits, for platform administrators"),
    "web/api/organizations.py": (1, "any organisation's plan, for platform administrators"),
    "web/api/password_reset.py": (1, "the link's token is the proof; nobody is signed in"),
    "web/api/settings.py": (1, "the platform's own settings, which everybody lives by"),
    "web/api/shares.py": (2, "the other party, by the slug or id that was named, or that an own share gave"),
    "web/api/users.py": (4, "user administration, for platform administrators"),
    "web/worker_reports.py": (1, "a worker belongs to no organisation; its token is the proof"),
    "web/audit_query.py": (2, "all=true, for platform administrators; and whom a name means, by its digest"),
    "web/audit_rows.py": (1, "names of the actors whom a scoped query gave"),
    "web/auth.py": (2, "whose credential it is, is the question"),
    "web/reset_requests.py": (1, "nobody is signed in; only the address's digest finds the row"),
    "web/sign_in.py": (1, "nobody is signed in; only the name's digest finds the row"),
    "web/user_search.py": (1, "user administration, for platform administrators"),
}
"""File -> how often it says EVERYTHING, and why it must."""


def _python_files() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def _steps_over(tree: ast.Module) -> int:
    """How often it names EVERYTHING, or makes a scope that is the same."""
    return sum(
        (isinstance(node, ast.Name) and node.id == "EVERYTHING" and isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.Attribute) and node.attr == "EVERYTHING")
        or (isinstance(node, ast.keyword) and node.arg == "everything" and _is_scope(tree, node))
        for node in ast.walk(tree)
    )


def _is_scope(tree: ast.Module, keyword: ast.keyword) -> bool:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and keyword in node.keywords)
    return any(isinstance(call.func, ast.Name) and call.func.id == "Scope" for call in calls)


def test_only_these_files_read_past_row_security() -> None:
    found = Counter({name: count for name, tree in _python_files() if (count := _steps_over(tree))})
    del found["projections/projection.py"]  # where it is defined
    assert dict(found) == {name: count for name, (count, _) in MAY_SEE_EVERYTHING.items()}


def test_every_exception_has_its_reason() -> None:
    assert all(len(reason) > 10 for _, reason in MAY_SEE_EVERYTHING.values())


def test_a_new_exception_would_be_seen() -> None:
    """The control: each spelling counts."""
    assert _steps_over(ast.parse("read('x', scope=EVERYTHING)")) == 1
    assert _steps_over(ast.parse("projection.EVERYTHING")) == 1
    assert _steps_over(ast.parse("Scope(everything=True)")) == 1
    assert _steps_over(ast.parse("from projections.projection import EVERYTHING\nf(everything=True)")) == 0


def test_nobody_but_the_reader_takes_a_role() -> None:
    """A second way to a reader's connection would be a way around its role."""
    makers = [
        name for name, tree in _python_files() if "taking" in {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    ]
    assert makers == ["infra/postgres.py"]
    assert Path(ROOT / "infra/row_security.py").exists()
