"""Places at which a process dies on purpose: between any two steps of publishing, addressing, claiming, sending and
settling.

Rule: nothing of the product knows about it. A `Death` is called in the child process before the program starts; it
wraps the functions that lie on both sides of the place and ends the process as SIGKILL would: no cleaning up, nothing
flushed, no transaction ended.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from sqlalchemy import Engine, event

from threadbridge.storage.store import Store

DEAD = 77
"""The exit status of a process that died where it should."""


@dataclass(frozen=True)
class Death:
    """Die at the `nth` call of `function` ("module:name" or "module:Class.name", below threadbridge), `when` it
    begins ("before"), has returned ("after"), when its transaction is about to be committed ("uncommitted"), or has
    been ("committed"). `only`: calls with this word among their arguments."""

    function: str
    when: str
    nth: int = 1
    only: str | None = None

    def __str__(self) -> str:
        return f"{self.when} {self.function.rpartition(':')[2]}" + (f"({self.only})" if self.only else "")

    def __call__(self) -> None:
        module, _, name = self.function.partition(":")
        owner: Any = importlib.import_module(f"threadbridge.{module}")
        *parents, last = name.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        watched = _Watched(self)
        setattr(owner, last, watched.around(getattr(owner, last)))
        if self.when == "uncommitted":
            event.listen(Engine, "commit", lambda connection: watched.now())
        if self.when == "committed":
            told = Store._tell

            def tell(store: Store, touched: set[int]) -> None:
                watched.now()
                told(store, touched)

            Store._tell = tell  # type: ignore[method-assign, assignment]
            transacted = Store.transact_now

            def transact(store: Store, *args: Any, **kwargs: Any) -> Any:
                result = transacted(store, *args, **kwargs)
                watched.now()
                return result

            Store.transact_now = transact  # type: ignore[method-assign, assignment]


class _Watched:
    def __init__(self, death: Death) -> None:
        self._death = death
        self._calls = 0
        self._due = False

    def now(self) -> None:
        if self._due:
            os._exit(DEAD)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        death = self._death

        def counts(args: tuple[Any, ...]) -> bool:
            self._calls += death.only is None or death.only in args
            return self._calls >= death.nth

        if _is_async(function):

            @wraps(function)
            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                self._due = counts(args)
                if death.when == "before":
                    self.now()
                result = await function(*args, **kwargs)
                if death.when == "after":
                    self.now()
                return result

            return asynchronous

        @wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            due = counts(args)
            if death.when == "before" and due:
                os._exit(DEAD)
            result = function(*args, **kwargs)
            # Only now: a commit of something else that happens meanwhile is not the one that is meant.
            self._due = due and bool(result is None or result)
            if death.when == "after":
                self.now()
            return result

        return plain


def _is_async(function: Callable[..., Any]) -> bool:
    import asyncio

    return asyncio.iscoroutinefunction(function)


PUBLISHING = (
    Death("storage.ledger:add_activity", "before"),
    Death("storage.ledger:add_activity", "after"),
    Death("storage.jobs:add", "after", only="fan_out"),
    Death("storage.jobs:add", "uncommitted", only="fan_out"),
    Death("storage.jobs:add", "committed", only="fan_out"),
)
WORKING = (
    # fan-out
    Death("storage.jobs:take", "uncommitted"),
    Death("storage.jobs:take", "committed"),
    Death("delivery.fanout:step", "before"),
    Death("storage.ledger:add_deliveries", "after"),
    Death("delivery.fanout:step", "uncommitted"),
    Death("delivery.fanout:step", "committed"),
    # claim
    Death("storage.turns:take", "before"),
    Death("storage.turns:take", "after"),
    Death("storage.turns:take", "uncommitted"),
    Death("storage.turns:take", "committed"),
    # send
    Death("net.client:Client.post", "before", nth=3),
    Death("net.client:Client.post", "after"),
    Death("net.client:Client.post", "after", nth=5),
    # settle
    Death("storage.ledger:settle", "before"),
    Death("storage.ledger:settle", "after"),
    Death("storage.ledger:settle", "uncommitted"),
    Death("storage.ledger:settle", "committed"),
)
