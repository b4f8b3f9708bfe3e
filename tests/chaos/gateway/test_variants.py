"""Each control takes out what it says, and nothing in the production code knows of it."""

import subprocess
import sys

import pytest

from tests.chaos.gateway.variants import VARIANTS, command

CHANGED = {
    "no_journal": "from gateway.meter import Meter; name = Meter.__init__.__module__",
    "first_come": "from gateway import exchange as of; name = of.Waiting.__module__",
    "no_pause": "from gateway import exchange as of; name = of.Exchange.client_slow.__module__",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_takes_the_place_of_what_the_gateway_uses(variant: str) -> None:
    change = f"from tests.chaos.gateway.variants import VARIANTS; VARIANTS[{variant!r}](); {CHANGED[variant]}"
    # a process of its own, since the change is for good
    ran = subprocess.run([sys.executable, "-c", f"{change}; print(name)"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "tests.chaos.gateway.variants"


def test_a_variant_is_a_process_of_its_own() -> None:
    assert command("no_pause")[1:] == ("-m", "tests.chaos.gateway.variants", "no_pause")
