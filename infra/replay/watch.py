"""How long work tells of its progress, without knowing who listens: infra/cli/progress.py is one who does."""

from collections.abc import Callable
from contextlib import AbstractContextManager

Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(what is done, how much of it there is) -> a context that lends `advance(n)`."""
