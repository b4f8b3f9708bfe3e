"""How the matrix takes the code's wall down: each condition on a tenant becomes true, and nothing else changes."""

import pytest

from tests.rights.walls import without_tenant


@pytest.mark.parametrize(
    "condition",
    [
        "organization_id = %s",
        "d.organization_id = %(organization)s",
        "organization_id = %(organization)s::text",
        "organization_id IN (%(organization)s, %(platform)s)",
        "consumer_organization_id = %s",
        "%(organization)s IN (organization_id, consumer_organization_id)",
        "m.user_id = %(user)s",
        "owner = %(owner)s",
        "user_id = ANY(%s)",
        "%s = organization_id",
    ],
)
def test_a_condition_on_a_tenant_becomes_true_and_keeps_its_parameters(condition: str) -> None:
    query = f"SELECT * FROM t WHERE {condition} AND id = %(id)s ORDER BY id LIMIT %s"
    assert without_tenant(query) == query.replace(condition, f"({condition} OR true)")


@pytest.mark.parametrize(
    "condition",
    [
        "id = %s",
        "m.organization_id = o.id",
        "code = %(code)s",
        "position = ANY(%s)",
        "organization_id <> %s",
        "type IN (%s, %s)",
    ],
)
def test_any_other_condition_stays(condition: str) -> None:
    assert without_tenant(f"SELECT * FROM t WHERE {condition}") == f"SELECT * FROM t WHERE {condition}"
