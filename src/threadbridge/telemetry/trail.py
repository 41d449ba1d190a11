"""One id from the source post to the receipt, and from a request to the answer that it causes.

    with trail.begin():              a read of an account, a request at the door
        …                            every line of the log says it; so does what is written down meanwhile
    with trail.follow(job.trail):    another process goes on with what was written down

Rule: ids are made here, of randomness, and taken from no stranger (a header that names one would let others write
into our log). They have the form of a trace id of W3C Trace Context, so that a trace and the log have the same name.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

_trail: ContextVar[str | None] = ContextVar("trail", default=None)


def process() -> str:
    """A name that no other process has."""
    return _name(os.getpid())


@lru_cache(maxsize=1)
def _name(_number: int) -> str:
    return os.urandom(6).hex()


def new() -> str:
    """A new id: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def current() -> str | None:
    """The id of what is being done; None outside of anything that has one."""
    return _trail.get()


class Following:
    """The block is done under an id. (A class, since this runs for every request.)"""

    __slots__ = ("_token", "_trail")

    def __init__(self, trail: str | None) -> None:
        self._trail = trail

    def __enter__(self) -> str | None:
        self._token = _trail.set(self._trail)
        return self._trail

    def __exit__(self, *_: object) -> None:
        _trail.reset(self._token)


def begin() -> Following:
    """Do something under a new id."""
    return Following(new())


def follow(trail: str | None) -> Following:
    """Go on under the id under which something was written down; under none if it was before there were ids."""
    return Following(trail)


def go_on(trail: str | None) -> None:
    """The same for all that is left of the present context."""
    _trail.set(trail)


def mark(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog: a line says under which id it was written, unless it names one itself."""
    held = _trail.get()
    if held is not None:
        event.setdefault("trail", held)
    return event
