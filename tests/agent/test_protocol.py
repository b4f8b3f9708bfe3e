"""The wire stays readable for last month's agent and for next month's."""

from typing import Any

import msgspec

from agent.protocol import AgentInfo, Heartbeat, HeartbeatReply, Metadata, RegisterReply, RegisterRequest

INFO = AgentInfo("1.0.0", "2026-11-21", "ab" * 32)


def registration() -> RegisterRequest:
    return RegisterRequest(
        instance_id="i",
        worker_id="w",
        model_id="m",
        vllm_port=8000,
        health_port=8080,
        ip_address="127.8.1.2",
        base_url="http://127.8.1.2:8000",
        agent_url="http://127.8.1.2:8080",
        agent_info=INFO,
    )


def heartbeat() -> Heartbeat:
    return Heartbeat(
        instance_id="i",
        worker_id="w",
        status="ready",
        model_id="m",
        engine_up=True,
        model_loaded=True,
        warmed_up=True,
        queue_depth=0,
        ip_address="127.8.1.2",
        agent_info=INFO,
    )


def as_json(value: msgspec.Struct) -> dict[str, Any]:
    return dict(msgspec.json.decode(msgspec.json.encode(value)))


def test_a_registration_survives_the_wire() -> None:
    assert msgspec.json.decode(msgspec.json.encode(registration()), type=RegisterRequest) == registration()


def test_a_heartbeat_survives_the_wire() -> None:
    assert msgspec.json.decode(msgspec.json.encode(heartbeat()), type=Heartbeat) == heartbeat()


def test_a_heartbeat_says_null_where_there_is_no_gpu() -> None:
    sent = as_json(heartbeat())
    assert sent["gpu_utilization"] is None
    assert sent["metadata"]["gpus"] == []
    assert sent["metadata"]["vllm"] == {
        "requests_waiting": 0,
        "requests_running": 0,
        "queue_depth": 0,
        "kv_cache_usage": None,
    }


def test_an_older_agents_heartbeat_without_samples_is_read() -> None:
    sent = as_json(heartbeat())
    for added_later in ("metadata", "gpu_utilization", "gpu_mem_used_mb"):
        del sent[added_later]
    assert msgspec.convert(sent, Heartbeat).metadata == Metadata()


def test_an_older_agents_engine_load_says_nothing_of_its_cache() -> None:
    sent = as_json(heartbeat())
    del sent["metadata"]["vllm"]["kv_cache_usage"]
    assert msgspec.convert(sent, Heartbeat).metadata.vllm.kv_cache_usage is None


def test_fields_of_a_newer_peer_are_ignored() -> None:
    assert (
        msgspec.json.decode(b'{"status":"ok","desired":"drain","mood":"good"}', type=HeartbeatReply).desired == "drain"
    )


def test_a_reply_without_a_wish_means_run_on() -> None:
    assert msgspec.json.decode(b"{}", type=HeartbeatReply).desired == "run"


def test_a_registration_reply_needs_nothing_but_the_token() -> None:
    reply = msgspec.json.decode(b'{"worker_token":"wk_a_b"}', type=RegisterReply)
    assert (reply.worker_token, reply.heartbeat_interval_s) == ("wk_a_b", 0.0)
