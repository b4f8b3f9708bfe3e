"""A real vLLM on this machine's processor: the same journey, with real tokens. Prepare it with `just engine`."""

import openai
import pytest

from domain.catalogue import TINY_MODEL
from infra.engine.locate import prepared_engine
from infra.engine.recipe import DEFAULT_FOLDER
from tests.journeys.platform import ROOT, Platform, until

pytestmark = pytest.mark.journey

STARTUP_S = 180
"""19 s on two idle cores; much more where the tests of others run beside it."""


@pytest.mark.timeout(STARTUP_S + 120)
@pytest.mark.skipif(
    prepared_engine(ROOT / DEFAULT_FOLDER) is None, reason="the real engine is not prepared; run `just engine`"
)
def test_a_real_model_is_deployed_and_streams_real_tokens(platform: Platform) -> None:
    deployed = platform.json(
        "deploy", TINY_MODEL, "--engine", "vllm", "--timeout", str(STARTUP_S), timeout_s=STARTUP_S + 10
    )
    instance_id = deployed["instances"][0]["id"]
    url = f"{platform.card['gateway_url']}/v1"
    with openai.OpenAI(base_url=url, api_key=platform.key, max_retries=0, timeout=60) as client:
        until(lambda: TINY_MODEL in [model.id for model in client.models.list()], "the gateway lists it")
        with client.chat.completions.create(
            model=TINY_MODEL,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            chunks = list(stream)
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16
    story = [event["type"] for event in platform.json("events", "show", "instance", instance_id)["events"]]
    assert [t for t in story if t in {"EngineAnswered", "ModelLoaded", "EngineWarmedUp", "InstanceReady"}] == [
        "EngineAnswered",
        "ModelLoaded",
        "EngineWarmedUp",
        "InstanceReady",
    ]
    ended = platform.json("instance", "stop", instance_id, "--wait", timeout_s=120)
    assert ended["status"] == "terminated"
