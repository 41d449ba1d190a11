"""One populated bridge for all verifiers, and everything that it serves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.peers.populated import House, populated


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Read only: tests that change something make their own bridge."""
    with populated(tmp_path_factory.mktemp("populated") / "with a space") as running:
        yield running
