"""The web room's world, for the slice of the matrix that runs with every test run."""

from tests.web.conftest import world

__all__ = ["world"]
