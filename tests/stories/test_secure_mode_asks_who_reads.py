"""In secure mode whoever reads ActivityPub says who they are; pages, keys and what two such servers need to meet stay
open, and what one reader was given is given to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.rig import AS, Bridge, Served, Stranger, a_key, free_socket, running_bridge

from threadbridge.domain.accounts import AccountState
from threadbridge.federation import enforcement
from threadbridge.signatures import schemes
from threadbridge.signatures.keys import signing_key
from threadbridge.storage import accounts, blocks
from threadbridge.storage.blocks import Entry
from threadbridge.web import actors
from threadbridge.web.app import create_app
from threadbridge.web.hot import HotDocuments
from threadbridge.web.secure import Readers
from threadbridge.web.senders import Senders

ACCEPT = {"Accept": "application/activity+json"}


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    with running_bridge(tmp_path, worker=False, secure_mode=True) as running:
        yield running


def read(stranger: Stranger, url: str, **bent: Any) -> httpx2.Response:
    """A signed GET."""
    headers = stranger.signed(url, b"", method="get", covered=("(request-target)", "host", "date"), **bent)
    for name in ("digest", "content-type"):
        del headers[name]
    return httpx2.get(url, headers={**headers, **ACCEPT}, trust_env=False)


def guarded(bridge: Bridge) -> list[str]:
    """Every document of an account, by the table of routes itself: a new one is in it by itself."""
    account = bridge.account()
    post = bridge.post(account).rsplit("/", 1)[1]
    hot = HotDocuments(bridge.ground.store)
    readers = Readers(bridge.services, Senders(bridge.services))
    paths = [route.path for route in actors.routes(bridge.services, hot, readers) if "{account" in route.path]
    filled = [path.replace("{account:number}", str(account.id)).replace("{post:number}", post) for path in paths]
    known = [path for path in filled if "{" not in path]
    assert len(known) >= 10
    return [*known, f"/ap/users/{account.id}/outbox?page=true", f"/@{account.handle}"]


def test_nothing_of_an_account_is_read_unsigned(bridge: Bridge) -> None:
    paths, before = guarded(bridge), bridge.everything()
    for path in paths:
        answer = bridge.get(path)
        if answer.status_code == 200:
            # Only the stub of the actor.
            assert path.removeprefix("/ap/users/").isdigit(), path
            assert "outbox" not in answer.json()
            continue
        assert answer.status_code == 401, path
        assert answer.json() == {"error": "Request not signed"}
        assert answer.headers["accept-signature"] == 'sig1=("@method" "@target-uri");created'
        assert 'headers="(request-target) host date"' in answer.headers["www-authenticate"]
        assert answer.headers["cache-control"] == "no-store"
    assert bridge.everything() == before


def test_a_signed_request_reads_everything_and_nobody_reads_over_its_shoulder(
    bridge: Bridge, stranger: Stranger
) -> None:
    for path in guarded(bridge):
        # (Pagination of some collections ends where nothing is; the signature is what matters here.)
        answer = read(stranger, bridge.base + path)
        assert answer.status_code in (200, 404), (path, answer.text)
        if answer.status_code == 200:
            assert answer.headers["cache-control"].startswith("private")
            assert answer.headers["vary"] == "Accept, Signature, Signature-Input"
        # It is ready now, by the same address: still nothing for those who do not sign, and for bad signatures.
        after = bridge.get(path)
        assert after.status_code == 401 or "inbox" not in after.json(), path
        forged = read(stranger, bridge.base + path, key=a_key(2))
        assert forged.status_code == 401, path
        assert bridge.get(path, **{"If-None-Match": answer.headers.get("etag", "*")}).status_code in (200, 401)


def test_the_stub_has_the_keys_and_nothing_else(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account(bio="A secret of some sort")
    uri = bridge.ground.ids.actor(account.id)
    whole = read(stranger, uri).json()
    stub = bridge.get(uri)
    assert stub.headers["cache-control"].startswith("private")
    assert stub.headers["vary"] == "Accept, Signature, Signature-Input"
    shown = stub.json()
    assert set(shown) <= {"@context", "id", "type", "preferredUsername", "publicKey", "assertionMethod", "proof"}
    assert (shown["id"], shown["publicKey"]) == (whole["id"], whole["publicKey"])
    assert shown.get("assertionMethod") == whole.get("assertionMethod")
    assert "secret" not in stub.text


def test_what_strangers_need_to_meet_us_stays_open(bridge: Bridge) -> None:
    account = bridge.account()
    bridge.post(account)
    for path in (
        f"/.well-known/webfinger?resource=acct:alice@{bridge.authority}",
        "/.well-known/host-meta",
        "/.well-known/nodeinfo",
        "/nodeinfo/2.0",
        "/actor",
        "/actor/outbox",
        "/livez",
    ):
        answer = bridge.get(path)
        assert answer.status_code == 200, path
        assert "private" not in answer.headers.get("cache-control", ""), path
    assert "inbox" in bridge.get("/actor").json()
    for path in ("/", "/about", "/@alice", "/@alice/1"):
        assert bridge.get(path, accept="text/html").status_code == 200, path


def test_two_servers_in_secure_mode_can_meet(bridge: Bridge, tmp_path: Path) -> None:
    """Each needs the other's key to verify the request for its own: the servers' own actors break the circle."""
    with running_bridge(tmp_path / "other", worker=False, secure_mode=True) as other:
        account = other.account("carol")
        uri = other.ground.ids.actor(account.id)
        met = bridge.loop.run(bridge.services.peers.actor(uri))
        assert (met.uri, met.key_id) == (uri, other.ground.ids.key(account.id))
        assert bridge.loop.run(bridge.services.peers.by_key(met.key_id)).uri == uri


def test_blocked_servers_and_people_do_not_read(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    uri = bridge.post(account)
    assert read(stranger, uri).status_code == 200

    def rule(kind: Any, subject: str, by: str = blocks.OPERATOR, account_id: int | None = None) -> None:
        bridge.ground.store.transact_now(
            enforcement.add_rules, by, [Entry(kind, subject, "suspend")], account_id=account_id
        )

    rule("actor", stranger.uri, blocks.owner(account.id), account.id)
    refused = read(stranger, uri)
    assert (refused.status_code, refused.headers["cache-control"]) == (403, "no-store")
    # An owner's rule is about what is theirs.
    other = bridge.account("carol")
    assert read(stranger, bridge.ground.ids.actor(other.id)).status_code == 200
    rule("domain", urlsplit(stranger.base).netloc)
    assert read(stranger, bridge.ground.ids.actor(other.id)).status_code == 403
    # Somebody who is not blocked reads the same document meanwhile.
    sock = free_socket()
    friend = Stranger(f"http://localhost:{sock.getsockname()[1]}", name="dora")
    served = Served(bridge.loop, friend.create_app(), sock)
    assert read(friend, uri).status_code == 200
    assert read(stranger, uri).status_code == 403
    served.stop()
    # Who only reads, or may not, is in no database.
    assert bridge.count("peers") == bridge.count("seen_activities") == 0


def test_a_query_may_be_signed_or_left_out(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    page = f"{bridge.ground.ids.actor(account.id)}/outbox?page=true"
    # The stranger signs the path alone, as Fedify does; our own peers sign the query as well.
    assert read(stranger, page).status_code == 200
    key = signing_key(stranger.key_id, stranger.key.private_pem)
    for scheme in ("cavage", "rfc9421"):
        whole = schemes.sign(
            scheme, key, method="GET", url=page, body=None, date=datetime.now(UTC), content_type=None
        )
        assert httpx2.get(page, headers={**whole, **ACCEPT}, trust_env=False).status_code == 200
        # Another page than the one that was signed for.
        other = httpx2.get(page.replace("true", "1"), headers={**whole, **ACCEPT}, trust_env=False)
        assert other.status_code == 401


def test_a_deleted_account_is_gone_for_everybody(bridge: Bridge, stranger: Stranger) -> None:
    account = bridge.account()
    uri = bridge.ground.ids.actor(account.id)
    bridge.ground.store.transact_now(accounts.set_state, account.id, AccountState.GONE, "test")
    assert bridge.get(uri).status_code == 410
    assert read(stranger, uri).status_code == 410


def test_without_secure_mode_a_broken_signature_is_not_looked_at(tmp_path: Path) -> None:
    with running_bridge(tmp_path, worker=False) as bridge:
        account = bridge.account()
        uri = bridge.ground.ids.actor(account.id)
        for broken in ("", "nonsense", 'keyId="https://nobody.example/key",headers="date",signature="AAAA"'):
            answer = bridge.get(uri, signature=broken, **{"signature-input": broken})
            assert answer.status_code == 200
            assert AS in answer.text
            assert answer.headers["cache-control"].startswith("public")
            assert answer.headers["vary"] == "Accept"


def test_the_shortcut_for_ready_documents_finds_nothing_that_is_for_readers(
    bridge: Bridge, stranger: Stranger
) -> None:
    """`Front.at_once` looks at the address alone."""
    account = bridge.account()
    uri = bridge.ground.ids.actor(account.id)
    front = create_app(bridge.services)
    headers = stranger.signed(uri, b"", method="get", covered=("(request-target)", "host", "date"))

    async def ask(**given: str) -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=front)) as client:
            return await client.get(uri, headers={**given, **ACCEPT})

    assert "inbox" in bridge.loop.run(ask(**headers)).json()
    assert "inbox" not in bridge.loop.run(ask()).json()
    host = [(b"host", bridge.authority.encode())]
    assert front.at_once(b"GET", urlsplit(uri).path.encode(), host) is None
    # (What is for everybody is found there.)
    assert bridge.loop.run(ask_for(front, f"{bridge.base}/actor")) == 200
    assert front.at_once(b"GET", b"/actor", host) is not None


async def ask_for(front: Any, url: str) -> int:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=front)) as client:
        return (await client.get(url, headers=ACCEPT)).status_code
