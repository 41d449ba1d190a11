"""A request as it arrived somewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Captured:
    """Header names lower case, `target` path and query, `at` the wall clock."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    at: datetime

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None
