"""Which signature a server takes for its documents is learnt once, and known after a restart, for thirty days."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from starlette.responses import Response
from tests.rig import Bridge, Served, free_socket
from tests.stories.crowd import Crowd

from threadbridge.services import open_services
from threadbridge.signatures import knocking
from threadbridge.signatures.demands import Demand
from threadbridge.signatures.knocking import Manner
from threadbridge.storage import decisions, hosts, schema
from threadbridge.storage.hosts import Taken
from threadbridge.storage.store import Tx


@dataclass
class Strict(Crowd):
    """Answers GETs that are signed by RFC 9421; says 401 to the draft."""

    asked: list[str] = field(default_factory=list)

    def create_app(self) -> Any:
        inner = super().create_app()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["method"] == "GET":
                new = b"signature-input" in dict(scope["headers"])
                self.asked.append("rfc9421" if new else "cavage")
                if not new:
                    await Response(b"no", 401)(scope, receive, send)
                    return
            await inner(scope, receive, send)

        return app


def like(bridge: Bridge, people: Strict, name: str, post: str) -> list[str]:
    """Somebody unknown likes; how their document was asked for."""
    before = len(people.asked)
    assert people.says(name, f"{bridge.base}/ap/inbox", "Like", post).status_code == 202
    return people.asked[before:]


def row(bridge: Bridge) -> Any:
    return bridge.ground.store.read_now(lambda tx: tx.execute(schema.hosts.select()).one())


def as_another_process(bridge: Bridge, people: Strict, name: str) -> list[str]:
    """How a document is asked for by a process that has nothing but the database."""
    before = len(people.asked)

    async def ask() -> None:
        services = open_services(bridge.ground)
        await services.peers.actor(people.person(name))
        await services.aclose()

    bridge.loop.run(ask())
    return people.asked[before:]


def test_it_is_learnt_written_down_known_after_a_restart_and_forgotten(bridge: Bridge) -> None:
    sock = free_socket()
    people = Strict(f"http://127.0.0.1:{sock.getsockname()[1]}")
    served = Served(bridge.loop, people.create_app(), sock)
    post = bridge.post(bridge.account())
    assert like(bridge, people, "bob", post) == ["cavage", "rfc9421"]
    assert like(bridge, people, "eve", post) == ["rfc9421"]
    kept = row(bridge)
    assert (kept.get_manner, kept.get_asked, kept.get_evidence) == ("rfc9421", None, "cavage: 401; rfc9421: 200")
    # Learnt by what we asked, not by what we sent.
    assert kept.scheme is None
    found = bridge.ground.store.read_now(decisions.page)
    assert [one.reason for _, one in found if one.kind == "signature"] == ["documents: cavage: 401; rfc9421: 200"]
    assert as_another_process(bridge, people, "mia") == ["rfc9421"]

    def age(tx: Tx) -> None:
        tx.execute(schema.hosts.update().values(get_at=kept.get_at - timedelta(days=31)))

    bridge.ground.store.transact_now(age)
    assert as_another_process(bridge, people, "zoe") == ["cavage", "rfc9421"]
    assert row(bridge).get_at >= kept.get_at
    served.stop()


@pytest.mark.parametrize(
    "manner",
    [
        Manner(),
        Manner("rfc9421"),
        Manner(with_query=False),
        Manner("rfc9421", Demand("sig1", ("@method", "@authority"), tag="x")),
    ],
    ids=str,
)
def test_every_manner_is_remembered_as_it_is(bridge: Bridge, manner: Manner) -> None:
    store = bridge.ground.store
    store.transact_now(hosts.remember_for_documents, "h.example", Taken(*manner.kept, "seen"))
    taken = store.read_now(hosts.taken_of_documents, "h.example")
    assert taken is not None
    assert knocking.remembered(taken.scheme, taken.asked) == manner
    assert store.read_now(hosts.taken_of_documents, "other.example") is None
