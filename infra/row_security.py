"""Postgres' own tenant wall: two roles, a policy on each table of each read model, and how a reader takes its role.

    scope of a caller ──> SET LOCAL ROLE inventiv_tenant, its organisation, its user ──> rows by the projection's rule
    EVERYTHING        ──> SET LOCAL ROLE inventiv_platform                           ──> all rows

A query that forgot its tenant then answers with nothing of anybody else's. The roles cannot log in: a reader's
connection takes one for a transaction. The surprising rule: the owner of the tables is not held to the policies, so the
writers (projectors, rebuilds, restores) work as before, and a reader that took no role would see everything; hence
nobody but infra/postgres.py begins a reader's transaction.
"""

from hashlib import sha256

import psycopg
from psycopg import sql
from psycopg.rows import scalar_row

from projections import checkpoint
from projections.projection import (
    ORGANIZATION_SETTING,
    THEIR_ORGANIZATION,
    USER_SETTING,
    Connection,
    Projection,
    Scope,
)

TENANT = "inventiv_tenant"
PLATFORM = "inventiv_platform"
ROLES = (TENANT, PLATFORM)
POLICIES_VERSION = 1
"""Raised when what `protect` does changes: the schemas of an existing data folder are then protected anew."""

FINGERPRINT_LETTERS = 32
POSTGRES_16 = 160_000
"""As libpq numbers versions."""
_CURE = (
    "an administrator of Postgres can make them: "
    f"CREATE ROLE {TENANT} NOLOGIN; CREATE ROLE {PLATFORM} NOLOGIN; GRANT {TENANT}, {PLATFORM} TO <our login>;"
)


class RolesMissingError(RuntimeError):
    """The roles are not there and our login may not make or take them; a person has to act."""


async def ensure_roles(connection: Connection) -> None:
    """Makes the two roles, and lets our login take them; call it under a lock of your own.

    Raises:
        RolesMissingError: see the class; with the cure.
        psycopg.errors.UniqueViolation: another database of this server just made them; try again.
    """
    found = await _memberships(connection)
    try:
        for role in ROLES:
            if role not in found:
                await connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(role)))
            if not found.get(role):
                await connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise RolesMissingError(f"the roles {TENANT} and {PLATFORM} are needed for row security; {_CURE}") from error


async def _memberships(connection: Connection) -> dict[str, bool]:
    """Role -> whether our login may take it; without those that do not exist.

    Since Postgres 16 one can be a role's member and still not allowed to take it; that right has a name of its own.
    """
    right = "SET" if connection.info.server_version >= POSTGRES_16 else "MEMBER"
    async with connection.cursor() as cursor:
        await cursor.execute(
            "SELECT rolname, pg_has_role(current_user, oid, %s) FROM pg_roles WHERE rolname = ANY(%s)",
            (right, list(ROLES)),
        )
        return {str(name): bool(member) for name, member in await cursor.fetchall()}


async def protect(connection: Connection, projection: Projection) -> None:
    """Puts the policies on the tables of an existing schema, unless these very ones are there already.

    Which ones are there is written in the schema's comment, so it moves along when a rebuilt schema is renamed.

    Raises:
        RolesMissingError: see the class.
    """
    wanted = fingerprint(projection)
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", (projection.schema,))
        if await cursor.fetchone() == wanted:
            return
    await ensure_roles(connection)
    for table, has_tenant in (await _tables(connection, projection)).items():
        own = f"organization_id = {THEIR_ORGANIZATION}" if has_tenant else "false"
        await _protect_table(connection, projection, table, projection.visible.get(table, own))
    await _grant(connection, projection)
    comment = sql.SQL("COMMENT ON SCHEMA {} IS {}")
    await connection.execute(comment.format(sql.Identifier(projection.schema), sql.Literal(wanted)))


def fingerprint(projection: Projection) -> str:
    """Of what `protect` makes of it; its tables cannot change without a new version."""
    conditions = "\n".join(f"{table}: {condition}" for table, condition in sorted(projection.visible.items()))
    return f"row security {POLICIES_VERSION} {sha256(conditions.encode()).hexdigest()[:FINGERPRINT_LETTERS]}"


async def _tables(connection: Connection, projection: Projection) -> dict[str, bool]:
    """Every table that really is in the schema -> whether it has a column `organization_id`."""
    async with connection.cursor() as cursor:
        await cursor.execute(
            """
            SELECT c.relname, EXISTS (
                SELECT FROM pg_attribute AS a
                WHERE a.attrelid = c.oid AND a.attname = 'organization_id' AND NOT a.attisdropped
            ) FROM pg_class AS c WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p') ORDER BY 1
            """,
            (projection.schema,),
        )
        return {str(name): bool(has_tenant) for name, has_tenant in await cursor.fetchall()}


async def _protect_table(connection: Connection, projection: Projection, table: str, condition: str) -> None:
    """The condition's names are looked up here and now, in the projection's own schema."""
    at = sql.Identifier(projection.schema, table)
    await connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(projection.schema)))
    await connection.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(at))
    for role, rows in ((TENANT, condition), (PLATFORM, "true")):
        names = {
            "policy": sql.Identifier(role),
            "table": at,
            "role": sql.Identifier(role),
            "rows": sql.SQL(rows),
        }
        await connection.execute(sql.SQL("DROP POLICY IF EXISTS {policy} ON {table}").format(**names))
        policy = sql.SQL("CREATE POLICY {policy} ON {table} FOR SELECT TO {role} USING ({rows})")
        await connection.execute(policy.format(**names))


async def _grant(connection: Connection, projection: Projection) -> None:
    """What both roles may read: the rows that their policies leave, and how far each read model is."""
    roles = sql.SQL(", ").join(map(sql.Identifier, ROLES))
    schemas = {"own": sql.Identifier(projection.schema), "platform": sql.Identifier(checkpoint.SCHEMA)}
    for statement in (
        "GRANT USAGE ON SCHEMA {own}, {platform} TO {roles}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA {own} TO {roles}",
        "GRANT SELECT ON {platform}.checkpoints TO {roles}",
    ):
        await connection.execute(sql.SQL(statement).format(roles=roles, **schemas))


def taking(scope: Scope) -> sql.Composed:
    """What a reader says right after BEGIN: statements that take no parameters, hence quoted literals.

    LOCAL: with the transaction's end it is all forgotten, before the connection goes to its next borrower.
    """
    if scope.everything:
        return sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(PLATFORM))
    return sql.SQL("SET LOCAL ROLE {role}; SET LOCAL {organization} TO {of}; SET LOCAL {user} TO {who}").format(
        role=sql.Identifier(TENANT),
        organization=sql.SQL(ORGANIZATION_SETTING),
        of=sql.Literal(scope.organization),
        user=sql.SQL(USER_SETTING),
        who=sql.Literal(scope.user),
    )
