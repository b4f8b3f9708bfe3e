"""The part of the matrix that every test run asks: a few routes of each kind, so that it takes seconds."""

SLICE = (
    "GET /healthz",
    "GET /auth/me",
    "GET /organizations",
    "PUT /organizations/current",
    "GET /organizations/current/members",
    "GET /api_keys",
    "PUT /api_keys/{key_id}",
    "GET /instances/{instance_id}",
    "DELETE /instances/{instance_id}",
    "GET /deployments",
    "GET /events",
    "GET /usage",
    "GET /users",
    "POST /parked/{parked_id}/skip",
)
