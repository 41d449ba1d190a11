"""A rule about `@user@host` is about the person who bore that name, whatever they call themselves afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket, running_bridge
from tests.stories.neighbours import domain, kept, lift, rule, strangers

from threadbridge.federation import admission, enforcement
from threadbridge.storage import schema
from threadbridge.storage.store import Tx


class Renamed(Stranger):
    """Answers WebFinger, and may call itself something else at the same id."""

    alias: str = ""
    asked: int = 0

    def actor(self) -> dict[str, Any]:
        return {**super().actor(), **({"preferredUsername": self.alias} if self.alias else {})}

    def create_app(self) -> Starlette:
        async def webfinger(request: Request) -> Response:
            self.asked += 1
            links = [{"rel": "self", "type": "application/activity+json", "href": self.uri}]
            return JSONResponse({"subject": request.query_params["resource"], "links": links})

        app = super().create_app()
        app.router.routes.insert(0, Route("/.well-known/webfinger", webfinger))
        return app


@pytest.fixture
def bob(place: Bridge) -> Iterator[Renamed]:
    sock = free_socket()
    one = Renamed(f"http://127.0.0.1:{sock.getsockname()[1]}", name="bob", key=a_key(1))
    served = Served(place.loop, one.create_app(), sock)
    yield one
    served.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder: Path = tmp_path_factory.mktemp("handles")
    with running_bridge(folder, secure_mode=True) as running:
        yield running


def handle(one: Stranger) -> str:
    return f"@{one.name}@{domain(one)}"


def read(bridge: Bridge, who: Stranger, uri: str) -> int:
    headers = who.signed(uri, b"", covered=("(request-target)", "host", "date"), method="get")
    headers.pop("content-type")
    return bridge.get(uri, **headers).status_code


def test_a_new_name_does_not_help(place: Bridge, bob: Renamed) -> None:
    mine, other = place.account("renaming"), place.account("renaming_other")
    post, inbox = place.post(mine), f"{place.base}/ap/inbox"
    assert bob.post(inbox, bob.activity("Like", post)).status_code == 202
    rule(place, "suspend", handle(bob), "actor", owner=mine.id)
    assert place.count("blocks", actor_uri=bob.uri) == 1
    assert place.count("reactions", parked="suspended") == 1
    before = kept(place)
    assert bob.post(inbox, bob.activity("Create", bob.note(post))).status_code == 202
    assert kept(place) == before
    # Renamed: heard, and nothing else changes.
    bob.alias = "rob"
    assert bob.post(inbox, bob.activity("Update", bob.actor())).status_code == 202
    assert place.count("peers", handle=f"rob@{domain(bob)}") == 1
    before = kept(place)
    assert bob.post(inbox, bob.activity("Create", bob.note(post))).status_code == 202
    assert bob.post(inbox, bob.activity("Like", post)).status_code == 202
    assert kept(place) == before
    assert read(place, bob, post) == 403
    assert read(place, bob, place.ground.ids.actor(other.id)) == 200
    assert bob.post(inbox, bob.activity("Create", bob.note(place.post(other)))).status_code == 202
    lift(place, handle(bob), "actor", owner=mine.id)
    assert place.count("reactions", parked="suspended") == 0
    assert read(place, bob, post) == 200
    assert bob.post(inbox, bob.activity("Create", bob.note(post))).status_code == 202
    assert place.count("replies", account_id=mine.id) == 1


def test_somebody_unmet_is_looked_up_when_the_rule_is_made(place: Bridge, bob: Renamed) -> None:
    post, inbox = place.post(place.account("unmet")), f"{place.base}/ap/inbox"
    rule(place, "suspend", handle(bob), "actor")
    eventually(lambda: place.count("blocks", actor_uri=bob.uri) == 1)
    assert place.count("jobs", kind=enforcement.NAME) == 0
    eventually(lambda: place.count("jobs", kind=enforcement.ENFORCE) == 0)
    assert bob.asked
    bob.alias = "innocent"
    before = kept(place)
    assert bob.post(inbox, bob.activity("Like", post)).status_code == 403
    assert kept(place) == before
    assert not bob.fetched, "not even asked for the key"
    lift(place, handle(bob), "actor")
    assert bob.post(inbox, bob.activity("Like", post)).status_code == 202


def test_who_cannot_be_looked_up_is_recognised_when_they_speak(place: Bridge) -> None:
    # A server that answers no WebFinger.
    with strangers(place, "mallory") as (mallory,):
        post, inbox = place.post(place.account("spoken")), f"{place.base}/ap/inbox"
        store = place.ground.store
        rule(place, "suspend", handle(mallory), "actor")
        eventually(lambda: place.count("jobs", kind=enforcement.NAME) == 0)
        assert place.count("blocks", actor_uri=mallory.uri) == 0
        # In secure mode by the handle of whoever reads, met or not.
        assert read(place, mallory, post) == 403
        before = kept(place)
        assert mallory.post(inbox, mallory.activity("Like", post)).status_code == 403
        assert kept(place) == before
        assert place.count("blocks", actor_uri=mallory.uri) == 1
        assert store.read_now(admission.refusal_of, mallory.uri) == "actor suspended by the operator"
        # Whose name it was is known from then on.
        renamed = {**mallory.actor(), "preferredUsername": "molly"}
        mallory.post(inbox, mallory.activity("Update", renamed))
        assert kept(place) == before
        lift(place, handle(mallory), "actor")
        assert mallory.post(inbox, mallory.activity("Like", post)).status_code == 202


def test_an_update_is_judged_by_both_names(place: Bridge) -> None:
    with strangers(place, "bob") as (bob,):
        post, inbox = place.post(place.account("names")), f"{place.base}/ap/inbox"
        assert bob.post(inbox, bob.activity("Like", post)).status_code == 202
        # Into a name that is suspended.
        spam = f"@spam@{domain(bob)}"
        rule(place, "suspend", spam, "actor")
        eventually(lambda: place.count("jobs", kind=enforcement.NAME) == 0)
        renamed = {**bob.actor(), "preferredUsername": "spam"}
        before = kept(place)
        assert bob.post(inbox, bob.activity("Update", renamed)).status_code == 403
        assert kept(place) == before
        assert place.count("peers", handle=f"bob@{domain(bob)}") == 1
        lift(place, spam, "actor")
        # Out of one, as if it had been made by an older version, which looked nothing up.
        rule(place, "suspend", handle(bob), "actor")

        def forget(tx: Tx) -> None:
            tx.execute(update(schema.blocks).values(actor_uri=None))

        place.ground.store.transact_now(forget)
        before = kept(place)
        assert bob.post(inbox, bob.activity("Update", renamed)).status_code == 403
        assert kept(place) == before
        assert place.count("blocks", actor_uri=bob.uri) == 1
        lift(place, handle(bob), "actor")
        assert bob.post(inbox, bob.activity("Update", renamed)).status_code == 202
        assert place.count("peers", handle=f"spam@{domain(bob)}") == 1
