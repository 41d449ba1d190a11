"""What is asked for while the same work is being done is done afterwards, and not a week later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket
from tests.stories.test_a_follower_moves import Newcomer, move

from threadbridge.domain.accounts import ProfileField
from threadbridge.storage import profiles, schema
from threadbridge.storage.store import Tx


@dataclass
class Slow:
    """A home page that links back. While the first look at it waits for its answer, something happens."""

    base: str
    us: str
    meanwhile: list[Callable[[], None]] = field(default_factory=list)

    def create_app(self) -> Starlette:
        async def page(request: Request) -> Response:
            if self.meanwhile:
                await asyncio.to_thread(self.meanwhile.pop())
            return Response(f'<a rel="me" href="{self.us}">me</a>', media_type="text/html")

        return Starlette(routes=[Route("/{path:path}", page)])


@contextmanager
def serving(bridge: Bridge, make: Callable[[str], Any]) -> Iterator[Any]:
    sock = free_socket()
    somebody = make(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, somebody.create_app(), sock)
    yield somebody
    served.stop()


def lease_of(bridge: Bridge, kind: str) -> Any:
    (row,) = bridge.ground.store.read_now(
        lambda tx: list(tx.execute(schema.jobs.select().where(schema.jobs.c.kind == kind)))
    )
    return row.leased_until


def test_fields_edited_during_a_check_are_checked(bridge: Bridge) -> None:
    account = bridge.account()
    store, ours = bridge.ground.store, bridge.ground.ids.profile("alice")
    held: list[Any] = []

    def fields() -> list[ProfileField]:
        return list(store.read_now(profiles.of_account, account.id).fields)

    with serving(bridge, lambda base: Slow(base, ours)) as site:

        def edit() -> None:
            held.append(lease_of(bridge, "check_links"))
            store.transact_now(
                profiles.set_fields, account.id, [("Old", f"{site.base}/old"), ("New", f"{site.base}/new")]
            )

        site.meanwhile.append(edit)
        store.transact_now(profiles.set_fields, account.id, [("Old", f"{site.base}/old")])
        eventually(lambda: len(fields()) == 2 and all(one.verified_at for one in fields()))
    assert held[0] is not None, "the check was under way"


def test_a_second_target_of_a_move_is_looked_at_when_the_first_is_wrong(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    actor, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    stranger.post(inbox, stranger.activity("Follow", actor))

    class Gate(Newcomer):
        """Answers for its actor only when the old account has named another one."""

        def create_app(self) -> Any:
            inner = super().create_app()

            async def app(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "http" and waiting:
                    await asyncio.to_thread(waiting.pop())
                await inner(scope, receive, send)

            return app

    waiting: list[Callable[[], object]] = []
    with (
        serving(bridge, lambda base: Gate(base, name="wrong", key=a_key(2))) as wrong,
        serving(bridge, lambda base: Newcomer(base, name="right", key=a_key(2))) as right,
    ):
        right.former = (stranger.uri,)
        waiting.append(lambda: stranger.post(inbox, move(stranger, right.uri)))
        assert stranger.post(inbox, move(stranger, wrong.uri)).status_code == 202
        eventually(lambda: bridge.count("followers", carried_to=right.uri))
        assert bridge.count("followers", carried_to=wrong.uri) == 0
        assert not waiting


def test_a_rule_lifted_while_it_is_enforced_is_lifted_for_everybody(bridge: Bridge, stranger: Stranger) -> None:
    """The job is held, and past those whom the change is about, when the change comes."""
    from threadbridge.federation import enforcement
    from threadbridge.storage import jobs
    from threadbridge.storage.blocks import Entry

    store = bridge.ground.store
    entry = Entry("domain", "nowhere.example", "suspend")

    def hold(tx: Tx) -> jobs.Job:
        enforcement.ask(tx, [entry])
        (job,) = jobs.take(tx, [enforcement.ENFORCE], 60.0, 1)
        jobs.progress(tx, job, {**job.arguments, "after": "https://z.example"})
        return job

    job = store.transact_now(hold)
    store.transact_now(enforcement.ask, [entry])
    assert bridge.count("jobs", kind=enforcement.ENFORCE) == 1

    def end(tx: Tx) -> str:
        jobs.finish(tx, job)
        (new,) = jobs.take(tx, [enforcement.ENFORCE], 60.0, 1)
        jobs.finish(tx, new)
        return str(new.arguments["after"])

    assert store.transact_now(end) == ""
