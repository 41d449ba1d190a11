"""What docs/mutation.md explains is still there: an explanation of code that has changed explains nothing."""

from __future__ import annotations

import pytest
from tests.mutation.__main__ import EXPLAINED, ROOT, TARGETS, Tally
from tests.mutation.mutants import Source

LINES = EXPLAINED.read_text().splitlines()


@pytest.mark.parametrize("name", TARGETS)
def test_each_explained_survivor_is_a_fault_that_is_tried(name: str) -> None:
    tried = {
        Tally(name).line(mutant) for mutant in Source(ROOT / "src" / "threadbridge" / f"{name}.py", name).mutants
    }
    explained = [line for line in LINES if line.startswith(f"{name} ")]
    assert set(explained) <= tried, "docs/mutation.md explains what is no longer in the code"
    assert len(explained) == len(set(explained))


def test_every_module_stands_in_the_table_and_has_tests() -> None:
    for name, files in TARGETS.items():
        assert any(line.startswith(f"| `{name}` |") for line in LINES), name
        assert all((ROOT / file).is_file() for file in files), name
