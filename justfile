# What one can do here. `just` alone lists it; every recipe runs through uv, so nothing else need be installed.

run := "uv run --no-progress"

# list the recipes
default:
    @just --list --unsorted

# run the platform here: embedded NATS and Postgres, all roles, a simulated engine
up *args:
    {{run}} inventiv up {{args}}

# all tests, offline
test *args:
    {{run}} pytest {{args}}

# what CI checks besides the tests: formatting, lint, types, import contracts, generated files
check: lint types contracts generated agent-version

lint:
    {{run}} ruff format --check
    {{run}} ruff check

types:
    {{run}} mypy

contracts:
    {{run}} lint-imports

# generated files must be what their generators write
generated:
    {{run}} python -m web.openapi --check
    {{run}} python -m infra.event_catalogue --check
    {{run}} python -m infra.deploy.nats_permissions --check

# the agent's version: get, bump [VERSION], or check that an agent that changed has a new one
agent-version *args="check":
    {{run}} python -m infra.agent_version {{args}}

# write the generated files anew: OpenAPI, event catalogue, NATS permissions
generate:
    {{run}} python -m web.openapi
    {{run}} python -m infra.event_catalogue
    {{run}} python -m infra.deploy.nats_permissions

# format and repair what can be repaired
fix:
    {{run}} ruff format
    {{run}} ruff check --fix

# prepare the real engine for machines without a GPU: vLLM and a tiny random model, in .engine (3.5 GB)
engine:
    {{run}} python -m infra.engine.prepare

# the journey with the real engine, and the official clients' requests to it directly and through the gateway
journey-engine:
    {{run}} pytest tests/journeys/test_real_engine.py tests/gateway/differential/test_real_vllm.py -q

# ratios against baselines measured in the same run; the last line is one JSON object
bench:
    {{run}} python -m tests.bench

# every law of a provider on every adapter (local, scaleway, aws, bare_metal), offline; the last line is one JSON object
conformance *clouds:
    {{run}} python -m tests.infra.providers.conformance {{clouds}}

# the eventsourcing library's own test cases on our persistence module, one node and three; last line is one JSON object
conformance-events *args:
    {{run}} python -m tests.conformance {{args}}

# seeded worlds in virtual time: the control plane against a provider with every fault; last line is one JSON object
simulate *args:
    {{run}} python -m tests.simulation {{args}}

# the control plane is killed before and after every call it makes, in every flow; --quick; last line is one JSON object
kill-matrix *args:
    {{run}} python -m tests.simulation.kill {{args}}

# what 200 instances cost one control plane on one core; --quick; the last line is one JSON object
bench-fleet *args:
    {{run}} python -m tests.bench.fleet {{args}}

# every fault we can produce, each with its control; --quick for a small one; the last line is one JSON object
chaos-events *args:
    {{run}} python -m tests.chaos {{args}}

# the event log beside the eventsourcing library on Postgres; --quick for a small one; the last line is one JSON object
bench-events *args:
    {{run}} python -m tests.bench.events {{args}}

# the gateway under every fault we can produce, each with its control; --quick for a small one; last line is one JSON object
chaos-gateway *args:
    {{run}} python -m tests.chaos.gateway {{args}}

# CPU per request and chunk beside vllm-router, nginx and LiteLLM, prepared in .bench; --quick; last line is one JSON object
bench-gateway *args:
    {{run}} python -m tests.bench.gateway {{args}}

# every route x every role x own, foreign and absent object, with both walls and with each alone; last line is one JSON object
rights-matrix *args:
    {{run}} python -m tests.rights {{args}}

# requests made from the OpenAPI and against it, on a whole platform; --quick for fewer; the last line is one JSON object
fuzz-api *args:
    {{run}} --group qa python -m tests.fuzz {{args}}

# planted secrets and personal data are looked for everywhere; how fast a revocation holds; the last line is one JSON object
canaries *args:
    {{run}} python -m tests.canaries {{args}}

# record a sample of every event type and schema that has none yet
histories:
    {{run}} python -m tests.histories.record

# pin every dependency, transitive ones too, to what resolves today (names and versions, no addresses)
pins:
    {{run}} python -m infra.pins
