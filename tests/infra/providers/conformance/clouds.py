"""Which providers the suite knows. A further one joins by one entry; its double is opened fresh for every case."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

from tests.infra.providers.conformance.aws_double import aws_double
from tests.infra.providers.conformance.bare_metal_double import bare_metal_double
from tests.infra.providers.conformance.double import Double
from tests.infra.providers.conformance.local_double import local_double
from tests.infra.providers.conformance.scaleway_double import scaleway_double

OpenDouble: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Double]]

CLOUDS: dict[str, OpenDouble] = {
    "local": local_double,
    "scaleway": scaleway_double,
    "bare_metal": bare_metal_double,
    "aws": aws_double,
}
