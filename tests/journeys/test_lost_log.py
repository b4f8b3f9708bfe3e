"""NATS loses its disk: nothing starts on the empty log, one command brings it back, and the platform goes on."""

import shutil

import pytest

from infra.cli.output import ExitCode
from tests.journeys.platform import MODEL, Platform, until

pytestmark = pytest.mark.journey


def test_a_wiped_nats_is_noticed_restored_and_goes_on(own_platform: Platform) -> None:
    own_platform.start()
    instance_id = own_platform.json("deploy", MODEL)["instances"][0]["id"]
    own_platform.stop()
    assert own_platform.inventiv("events", "verify").code == ExitCode.OK
    for store in own_platform.data_dir.glob("nats/**/store"):
        shutil.rmtree(store)

    refused = own_platform.inventiv("up")
    assert refused.code == ExitCode.FAILED
    assert "EVENTS ends at 0" in refused.err
    assert "inventiv events restore" in refused.err

    done = own_platform.json("events", "restore")
    assert done["done"]["events_restored"] == done["plan"]["events_kept"] > 0
    assert own_platform.json("events", "verify")["damaged"] is False
    own_platform.start()
    (view,) = own_platform.json("instance", "ls")["instances"]
    assert view["id"] == instance_id
    until(lambda: own_platform.json("instance", "ls")["instances"][0]["status"] == "ready", "the instance is ready")
    assert own_platform.json("events", "verify")["damaged"] is False
