import pytest

from domain.disk import billions_of_weights, default_disk_gb, recommended_disk_gb


@pytest.mark.parametrize(
    ("code", "billions"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5),
        ("Qwen/Qwen2.5-72B-Instruct", 72),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 56),
        ("google/gemma-2-9b-it", 9),
        ("meta-llama/Llama-3.1-8B-Instruct", 8),
        ("microsoft/Phi-3-mini-4k-instruct", None),
        ("mock-echo-model", None),
        ("owner/72Bit", None),
    ],
)
def test_the_number_of_weights_is_read_from_the_name(code: str, billions: float | None) -> None:
    assert billions_of_weights(code) == billions


@pytest.mark.parametrize(
    ("size", "disk_gb"),
    [
        ("0.5B", 50),
        ("0.6B", 50),
        ("1B", 70),
        ("1.5B", 70),
        ("2B", 70),
        ("3B", 200),
        ("7B", 100),
        ("8B", 100),
        ("12B", 120),
        ("14B", 120),
        ("24B", 180),
        ("32B", 180),
        ("70B", 450),
        ("72B", 450),
        ("405B", 200),
        ("unknown", 200),
    ],
)
def test_each_class_of_sizes_has_its_disk(size: str, disk_gb: int) -> None:
    assert default_disk_gb(f"owner/name-{size}", provider_gb=None) == disk_gb


def test_the_operator_speaks_first_then_the_model_then_the_provider_then_the_name() -> None:
    assert recommended_disk_gb("a-8B", stored_gb=300, provider_gb=150, forced_gb=70) == 70
    assert recommended_disk_gb("a-8B", stored_gb=300, provider_gb=150) == 300
    assert recommended_disk_gb("a-8B", stored_gb=0, provider_gb=150) == 150
    assert recommended_disk_gb("a-8B", stored_gb=0, provider_gb=None) == 100
