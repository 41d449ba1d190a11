"""Documents of other servers: believed only from their own address, and asked for with restraint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.world.loopback import Asked, Loopback, client, guard, reply, run

from threadbridge.activitypub.content_types import is_activity_json, media_type
from threadbridge.errors import AddressRefused, BadAnswer, NetworkError, TimedOut
from threadbridge.net import peers as peers_module
from threadbridge.net.peers import Peers
from threadbridge.net.restraint import REMEMBERED, Budgets, BudgetSpent, Dead
from threadbridge.signatures.knocking import Manner

AS = "https://www.w3.org/ns/activitystreams"
ACTIVITY = "application/activity+json; charset=utf-8"
PEM = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"
Page = dict[str, Any] | bytes | None


def actor(uri: str, **changes: Any) -> dict[str, Any]:
    return {
        "@context": [AS, "https://w3id.org/security/v1"],
        "id": uri,
        "type": "Person",
        "preferredUsername": "alice",
        "name": "Alice",
        "inbox": f"{uri}/inbox",
        "outbox": f"{uri}/outbox",
        "endpoints": {"sharedInbox": f"{uri}/../shared"},
        "publicKey": {"id": f"{uri}#main-key", "owner": uri, "publicKeyPem": PEM},
        **changes,
    }


class Site(Loopback):
    """Serves `pages` by path; a dict is an ActivityPub document, None hangs up, what is missing is a 404."""

    def __init__(self, **options: Any) -> None:
        super().__init__(self._page, **options)
        self.pages: dict[str, Page] = {}

    def _page(self, asked: Asked) -> bytes | None:
        page = self.pages.get(asked.target, reply(404, b"not found"))
        return reply(200, json.dumps(page).encode(), content_type=ACTIVITY) if isinstance(page, dict) else page

    def count(self, path: str) -> int:
        return sum(asked.target == path for asked in self.asked)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def sign(url: str, manner: Manner) -> Mapping[str, str]:
    return {"Signature": f"signed {url}"}


def story(work: Callable[[Site, Peers, Clock], Any], **options: Any) -> None:
    """Run `work` with a site and a Peers that may reach it."""

    async def main() -> None:
        clock = Clock()
        async with Site() as site, client() as this:
            await work(site, Peers(this, sign, monotonic=clock, **options), clock)

    run(main())


# ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_actor_is_fetched_signed_and_read() -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        uri = site.url("/users/1")
        site.pages["/users/1"] = actor(uri, movedTo=site.url("/users/2"), url=site.url("/@alice"))
        peer = await peers.actor(uri)
        assert (peer.uri, peer.inbox, peer.kind, peer.name) == (uri, f"{uri}/inbox", "Person", "Alice")
        assert peer.handle == f"alice@{site.authority}"
        assert (peer.key_id, peer.key_pem) == (f"{uri}#main-key", PEM)
        assert (peer.url, peer.moved_to) == (site.url("/@alice"), site.url("/users/2"))
        asked = site.asked[0]
        assert asked.header("accept") == "application/activity+json, application/ld+json"
        assert asked.header("signature") == f"signed {uri}"

    story(work)


ACCEPTED = [
    "application/activity+json",
    "application/activity+json; charset=utf-8",
    "application/activity+json;charset=UTF-8",
    "Application/Activity+JSON",
    "application/activity+json ; charset=utf-8",
    "application/activity+json;",
    'application/activity+json; profile="x"',
    f'application/ld+json; profile="{AS}"',
    f'application/ld+json;profile="{AS}"',
    f'application/ld+json; charset=utf-8; profile="{AS}"',
    f'application/ld+json; PROFILE="{AS}"; charset=utf-8',
    f'application/ld+json; profile="https://example.org/other {AS}"',
]
REFUSED = [
    "",
    "text/html",
    "text/plain",
    "application/json",
    "application/json; charset=utf-8",
    "application/ld+json",
    "application/ld+json; charset=utf-8",
    'application/ld+json; profile="https://example.org/"',
    f'application/ld+json; profile="{AS}#other"',
    f'application/ld+json; profile="x{AS}"',
    f'application/ld+json; profile="{AS}.evil.example"',
    f"application/ld+json; profile={AS}",
    f"application/ld+json; profile='{AS}'",
    f'application/ld+json; profile="{AS}',
    f'application/ld+json; profile="x"; profile="{AS}"',
    f'application/ld+json; x="; profile={AS}"',
    f'application/json; profile="{AS}"',
    f'text/html; profile="{AS}"',
    "text/html; application/activity+json",
    "text/html, application/activity+json",
    "application/activity+json, text/html",
    "application/activity+json text/html",
    "application/activity+jsonp",
    "application/activity+json+xml",
    "xapplication/activity+json",
    "application/activity json",
    "application/x-activity+json",
    "application/octet-stream",
    "image/png",
    "multipart/form-data; boundary=application/activity+json",
    "application /activity+json",
    "application/ activity+json",
    "/activity+json",
    "application/",
    "application/activity+json; charset",
    "application/activity+json; =utf-8",
    "application/activity+json; a=1; a=2",
    'application/activity+json; a="\\',
    "*/*",
    "application/*",
]


@pytest.mark.parametrize("content_type", ACCEPTED)
def test_a_content_type_that_means_activitypub(content_type: str) -> None:
    assert is_activity_json(content_type)


@pytest.mark.parametrize("content_type", REFUSED)
def test_a_content_type_that_does_not_mean_activitypub(content_type: str) -> None:
    assert not is_activity_json(content_type)


def test_a_long_content_type_is_read_in_linear_time() -> None:
    for text in ("a/b" + ";" * 30_000 + "=", 'a/b; x="' + "\\" * 30_001, "a/b;" + " " * 30_000 + "=", "a" * 30_000):
        assert media_type(text) == ("", {})


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b'{"id": "ID"}', content_type="application/json"),
        reply(200, b'{"id": "ID"}', content_type="application/ld+json"),
        reply(200, b'{"id": "ID"}'),
        reply(200, b"{}", content_type=ACTIVITY),
        reply(200, b"", content_type=ACTIVITY),
        reply(200, b"[]", content_type=ACTIVITY),
        reply(200, b"{not json", content_type=ACTIVITY),
        reply(200, b'{"id": "ID", "id": "ID"}', content_type=ACTIVITY),
        reply(200, b'{"type": "Note"}', content_type=ACTIVITY),
        reply(200, b'{"id": null}', content_type=ACTIVITY),
        reply(200, b'{"id": ["ID"]}', content_type=ACTIVITY),
        reply(200, b'{"id": ""}', content_type=ACTIVITY),
        reply(200, b'{"id": "javascript:x"}', content_type=ACTIVITY),
        reply(200, b'{"id": "http://10.0.0.1/x"}', content_type=ACTIVITY),
        reply(200, b'{"id": "ID", "x": "' + b"y" * 1_000_000 + b'"}', content_type=ACTIVITY),
        reply(201, b'{"id": "ID"}', content_type=ACTIVITY),
        reply(206, b'{"id": "ID"}', content_type=ACTIVITY),
        reply(304, b""),
        reply(401, b'{"id": "ID"}', content_type=ACTIVITY),
    ],
)
def test_what_is_no_document_is_refused(answer: bytes) -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        uri = site.url("/x")
        head, body = answer.split(b"\r\n\r\n", 1)
        body = body.replace(b"ID", uri.encode())
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
        site.pages["/x"] = b"\r\n".join([*lines, b"content-length: %d" % len(body)]) + b"\r\n\r\n" + body
        with pytest.raises(NetworkError):
            await peers.document(uri)

    story(work)


def test_gone_can_be_told_from_other_trouble() -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        for status in (404, 410, 403, 500):
            site.pages["/x"] = reply(status, b"no")
            with pytest.raises(BadAnswer) as refused:
                await peers.document(site.url("/x"))
            assert refused.value.status == status
            if status in (404, 410):
                assert await peers.is_gone(site.url("/x"))
            else:
                with pytest.raises(BadAnswer):
                    await peers.is_gone(site.url("/x"))
        uri = site.url("/x")
        site.pages["/x"] = {"@context": AS, "id": uri, "type": "Tombstone"}
        assert await peers.is_gone(uri)
        site.pages["/x"] = {"@context": AS, "id": uri, "type": "Note"}
        assert not await peers.is_gone(uri)
        site.pages["/x"] = {"@context": AS, "id": site.url("/y"), "type": "Tombstone"}
        site.pages["/y"] = {"@context": AS, "id": site.url("/y"), "type": "Tombstone"}
        with pytest.raises(BadAnswer):
            await peers.is_gone(uri)

    story(work)


def test_a_document_that_names_another_id_is_asked_there_once() -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        note = {"@context": AS, "id": site.url("/notes/1"), "type": "Note"}
        site.pages |= {"/@alice/1": {**note, "content": "alias"}, "/notes/1": {**note, "content": "true"}}
        assert (await peers.document(site.url("/@alice/1")))["content"] == "true"
        # … but who asked for one id is not given another.
        with pytest.raises(BadAnswer, match="something else"):
            await peers.object(site.url("/@alice/1"))
        with pytest.raises(BadAnswer, match="something else"):
            await peers.actor(site.url("/@alice/1"))
        site.asked.clear()
        site.pages |= {f"/loop/{n}": {"id": site.url(f"/loop/{n + 1}")} for n in range(9)}
        with pytest.raises(BadAnswer, match="something else"):
            await peers.document(site.url("/loop/0"))
        assert len(site.asked) == 2

    story(work)


def test_a_server_cannot_speak_for_another() -> None:
    """An upload on evil.example that says it is alice of victim.example, directly and through a redirect."""

    async def main() -> None:
        async with Site() as victim, Site() as evil, client() as this:
            peers = Peers(this, sign)
            alice = victim.url("/users/alice")
            forged = actor(alice, inbox=evil.url("/inbox"))
            evil.pages |= {"/forged": forged, "/redirect": reply(302, location=alice)}
            with pytest.raises(BadAnswer) as refused:
                await peers.document(evil.url("/forged"))
            assert refused.value.status == 404  # asked at its origin, where nobody knows it
            victim.pages["/users/alice"] = actor(alice)
            assert (await peers.document(evil.url("/forged")))["inbox"] == f"{alice}/inbox"
            assert (await peers.document(evil.url("/redirect")))["id"] == alice
            # An open redirect at the victim does not lend its name.
            victim.pages["/open"] = reply(302, location=evil.url("/mine"))
            evil.pages["/mine"] = actor(victim.url("/open"), inbox=evil.url("/inbox"))
            with pytest.raises(BadAnswer):
                await peers.document(victim.url("/open"))

    run(main())


def test_private_addresses_are_not_asked_for_documents() -> None:
    async def main() -> None:
        async with client(guard("127.0.0.0/8")) as this:
            peers = Peers(this, sign)
            for ask in (peers.document, peers.actor, peers.object, peers.by_key, peers.is_gone):
                with pytest.raises(AddressRefused):
                    await ask("http://10.0.0.1/users/1#main-key")

    run(main())


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_in_the_actor_is_found() -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        uri = site.url("/users/1")
        second = {"id": f"{uri}#second", "owner": uri, "publicKeyPem": "second"}
        first = {"id": f"{uri}#main-key", "owner": uri, "publicKeyPem": PEM}
        site.pages["/users/1"] = actor(uri, publicKey=[first, second])
        peer = await peers.by_key(f"{uri}#second")
        assert (peer.uri, peer.key_id, peer.key_pem) == (uri, f"{uri}#second", "second")
        assert len(site.asked) == 1
        with pytest.raises(BadAnswer, match="does not list"):
            await peers.by_key(f"{uri}#third")
        with pytest.raises(BadAnswer, match="does not list"):
            await peers.by_key(uri)

    story(work)


def test_a_key_behind_a_stub_actor_is_found() -> None:
    """GoToSocial: the key id has no fragment, and unsigned requests get a stub with the actor's own id."""

    async def work(site: Site, peers: Peers, _: Clock) -> None:
        uri, key_id = site.url("/users/x"), site.url("/users/x/main-key")
        key = {"id": key_id, "owner": uri, "publicKeyPem": PEM}
        stub = {"@context": [AS], "id": uri, "type": "Person", "preferredUsername": "x", "publicKey": key}
        site.pages |= {"/users/x/main-key": stub, "/users/x": actor(uri, publicKey=key)}
        peer = await peers.by_key(key_id)
        assert (peer.uri, peer.key_id, peer.inbox) == (uri, key_id, f"{uri}/inbox")
        # The stub alone proves nothing: the actor must list the key.
        site.pages["/users/x"] = actor(uri)
        with pytest.raises(BadAnswer, match="does not list"):
            await peers.by_key(key_id)

    story(work)


@pytest.mark.parametrize("role", ["owner", "controller"])
@pytest.mark.parametrize("listing", ["whole", "by id", "fragment"])
def test_a_bare_key_is_found(role: str, listing: str) -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        uri = site.url("/users/1")
        key_id = site.url("/keys/1") + ("#main" if listing == "fragment" else "")
        bare = {"@context": "https://w3id.org/security/v1", "id": key_id, role: uri, "publicKeyPem": PEM}
        key = {"id": key_id, "owner": uri, "publicKeyPem": PEM}
        site.pages |= {
            "/keys/1": bare,
            "/users/1": actor(uri, publicKey=[key_id] if listing == "by id" else key),
        }
        peer = await peers.by_key(key_id)
        assert (peer.uri, peer.key_id, peer.key_pem) == (uri, key_id, PEM)

    story(work)


def test_a_bare_key_must_be_listed_by_its_owner() -> None:
    async def work(site: Site, peers: Peers, clock: Clock) -> None:
        uri, key_id = site.url("/users/1"), site.url("/keys/1")
        bare = {"id": key_id, "owner": uri, "publicKeyPem": "evil"}
        good = {"id": key_id, "owner": uri, "publicKeyPem": PEM}
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (bare, actor(uri)),  # not listed
            (bare, actor(uri, publicKey=good)),  # listed with another PEM
            ({**bare, "id": site.url("/keys/2")}, actor(uri, publicKey=[key_id])),  # another key's document
            ({**bare, "owner": site.url("/users/2")}, actor(uri, publicKey=[key_id])),  # somebody else's
            ({**bare, "owner": None}, actor(uri, publicKey=[key_id])),
            (bare, {**actor(uri, publicKey=[key_id]), "id": site.url("/users/9")}),
        ]
        for key_document, owner in cases:
            clock.now += 90_000
            site.pages |= {"/keys/1": key_document, "/users/1": owner}
            with pytest.raises(BadAnswer):
                await peers.by_key(key_id)

    story(work)


def test_key_and_actor_are_on_one_server() -> None:
    async def main() -> None:
        async with Site() as victim, Site() as evil, client() as this:
            alice, key_id = victim.url("/users/alice"), evil.url("/key")
            # Even a victim that lists the foreign key (an edit field that was not checked) does not lend its name.
            key = {"id": key_id, "owner": alice, "publicKeyPem": PEM}
            for listed in ([key, {**key, "id": f"{key_id}-2"}, {**key, "id": f"{key_id}-3"}], [f"{key_id}"]):
                peers = Peers(this, sign)
                victim.pages["/users/alice"] = actor(alice, publicKey=listed)
                evil.pages |= {"/key": key, "/key-2": actor(alice), "/key-3": reply(302, location=alice)}
                for name in ("/key", "/key-2", "/key-3"):
                    with pytest.raises(BadAnswer):
                        await peers.by_key(evil.url(name))

    run(main())


@pytest.mark.parametrize(
    "key_id", ["acct:alice@h.example", "", "ftp://h.example/k", "https://u@h.example/k", "x" * 5000]
)
def test_a_key_id_that_is_no_address_is_refused(key_id: str) -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        with pytest.raises(NetworkError):
            await peers.by_key(key_id)

    story(work)


# ── restraint ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dead_key_is_asked_once_and_then_ever_more_rarely() -> None:
    async def work(site: Site, peers: Peers, clock: Clock) -> None:
        site.pages["/users/1"] = reply(410, b"gone")
        key_id = site.url("/users/1#main-key")

        async def ask() -> int:
            before = len(site.asked)
            with pytest.raises(BadAnswer) as refused:
                await peers.by_key(key_id)
            assert refused.value.status == 410
            return len(site.asked) - before

        assert [await ask() for _ in range(100)] == [1] + [0] * 99
        for wait in (300, 600, 1200, 2400, 4800, 9600, 19_200, 21_600, 21_600):
            clock.now += wait - 1
            assert await ask() == 0, wait
            clock.now += 2
            assert await ask() == 1, wait
        clock.now += 21_601
        site.pages["/users/1"] = actor(site.url("/users/1"))
        assert (await peers.by_key(key_id)).key_id == key_id
        site.pages["/users/1"] = reply(410, b"gone")
        assert await ask() == 1
        clock.now += 301
        assert await ask() == 1

    story(work)


def test_trouble_on_the_way_is_forgotten_after_five_minutes_each_time() -> None:
    async def work(site: Site, peers: Peers, clock: Clock) -> None:
        for page in (reply(503, b""), None, reply(500, b"")):
            site.pages["/users/1"] = page
            for asked in (1, 0, 0):
                before = len(site.asked)
                with pytest.raises(NetworkError):
                    await peers.by_key(site.url("/users/1#main-key"))
                assert len(site.asked) - before == asked
            clock.now += 301

    story(work)


def test_a_wrong_key_id_does_not_silence_the_right_one() -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        uri, key_id = site.url("/users/1"), site.url("/keys/1")
        bare = {"id": key_id, "owner": uri, "publicKeyPem": PEM}
        site.pages |= {"/users/1": actor(uri), "/users/2": actor(site.url("/users/2"))}
        with pytest.raises(BadAnswer):
            await peers.by_key(f"{uri}#forged")
        assert (await peers.by_key(f"{uri}#main-key")).uri == uri
        site.pages |= {"/keys/1": bare, "/users/1": actor(uri, publicKey=[key_id])}
        with pytest.raises(BadAnswer):
            await peers.by_key(f"{key_id}#forged")
        assert (await peers.by_key(key_id)).uri == uri
        site.asked.clear()
        with pytest.raises(BadAnswer):
            await peers.by_key(f"{uri}#forged")
        assert site.asked == []

    story(work)


def test_many_who_ask_for_one_document_share_one_request() -> None:
    async def main() -> None:
        async with Loopback(lambda asked: later) as server, client() as this:
            uri = server.url("/users/1")

            async def later(writer: asyncio.StreamWriter) -> None:
                await asyncio.sleep(0.1)
                writer.write(reply(200, json.dumps(actor(uri)).encode(), content_type=ACTIVITY))

            peers = Peers(this, sign)
            impatient = asyncio.create_task(peers.by_key(f"{uri}#main-key"))
            await asyncio.sleep(0.02)
            others = asyncio.gather(*(peers.by_key(f"{uri}#main-key") for _ in range(50)))
            await asyncio.sleep(0.02)
            impatient.cancel()  # it was the first; the others do not suffer
            assert {peer.uri for peer in await others} == {uri}
            assert len(server.asked) == 1
            await peers.document(uri)
            assert len(server.asked) == 2

    run(main())


def test_a_key_takes_no_longer_than_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "KEY_DEADLINE", 0.2)

    async def main() -> None:
        async def silence(writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(5)

        async with Loopback(lambda asked: silence) as server, client() as this:
            peers = Peers(this, sign)
            for _ in range(3):
                with pytest.raises(TimedOut):
                    await peers.by_key(server.url("/users/1#main-key"))
            assert len(server.asked) == 1

    run(main())


def test_one_host_is_asked_thirty_times_a_minute() -> None:
    async def work(site: Site, peers: Peers, clock: Clock) -> None:
        refused = []
        for number in range(60):
            with pytest.raises(NetworkError) as error:
                await peers.by_key(site.url(f"/users/{number}#main-key"))
            refused.append(isinstance(error.value, BudgetSpent))
        assert refused == [False] * 30 + [True] * 30
        assert len(site.asked) == 30
        clock.now += 61
        site.pages["/users/59"] = actor(site.url("/users/59"))
        assert (await peers.by_key(site.url("/users/59#main-key"))).uri == site.url("/users/59")  # not called dead

    story(work)


def test_redirects_count_against_the_host_they_lead_to() -> None:
    async def main() -> None:
        async with Site() as victim, client() as this:
            peers = Peers(this, sign, requests_per_minute=5)
            for number in range(10):
                async with Site() as evil:
                    evil.pages["/k"] = reply(302, location=victim.url(f"/{number}"))
                    with pytest.raises(NetworkError):
                        await peers.by_key(evil.url("/k"))
            assert len(victim.asked) == 5

    run(main())


def test_what_is_asked_apart_takes_nothing_from_the_rest() -> None:
    async def main() -> None:
        async with Site() as site, client() as this:
            peers = Peers(this, sign, requests_per_minute=5)
            brought = peers.apart(3)
            refused = []
            for number in range(10):
                with pytest.raises(NetworkError) as error:
                    await brought.by_key(site.url(f"/junk/{number}#key"))
                refused.append(isinstance(error.value, BudgetSpent))
            assert refused == [False] * 3 + [True] * 7
            site.pages["/users/1"] = actor(site.url("/users/1"))
            assert (await peers.by_key(site.url("/users/1#main-key"))).uri == site.url("/users/1")
            # What was not there is known to both.
            with pytest.raises(BadAnswer, match="404"):
                await peers.by_key(site.url("/junk/0#key"))
            assert len(site.asked) == 4

    run(main())


def test_one_host_leads_to_others_so_often_in_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """By naming them, by redirects, by ids; what it has of its own is asked for all the same."""
    monkeypatch.setattr(peers_module, "LED_PER_DAY", 6)

    async def main() -> None:
        async with Site() as evil, Site() as victim, client() as this:
            clock = Clock()
            peers = Peers(this, sign, requests_per_minute=1000, monotonic=clock)
            for number in range(10):
                evil.pages[f"/r{number}"] = reply(302, location=victim.url(f"/redirected/{number}"))
                evil.pages[f"/i{number}"] = {"id": victim.url(f"/by-id/{number}")}
                for where in (victim.url(f"/named/{number}"), evil.url(f"/r{number}"), evil.url(f"/i{number}")):
                    with pytest.raises(NetworkError):
                        await peers.unhurried(where, led_by=evil.authority)
            assert len(victim.asked) == 6
            evil.pages["/own"] = {"id": evil.url("/own")}
            assert await peers.unhurried(evil.url("/own"), led_by=evil.authority) == evil.pages["/own"]
            clock.now += 24 * 3600 + 1
            with pytest.raises(BadAnswer, match="404"):
                await peers.unhurried(victim.url("/named/99"), led_by=evil.authority)

    run(main())


def test_memories_are_bounded() -> None:
    budgets, dead, clock = Budgets(1, Clock()), Dead(Clock()), Clock()
    for number in range(REMEMBERED + 500):
        budgets.spend(f"h{number}.example")
        dead.failed(f"https://h.example/{number}", BadAnswer("no", status=404), lasting=True)
    assert len(budgets._hosts) == len(dead._failures) == REMEMBERED
    with pytest.raises(BudgetSpent):
        budgets.spend(f"h{REMEMBERED}.example")
    with pytest.raises(BadAnswer):
        dead.check(f"https://h.example/{REMEMBERED}")
    dead.check("https://h.example/0")
    assert clock.now == 1000.0


# ── WebFinger ────────────────────────────────────────────────────────────────────────────────────────────────────


def jrd(subject: str, *links: dict[str, Any], content_type: str = "application/jrd+json; charset=utf-8") -> bytes:
    return reply(200, json.dumps({"subject": subject, "links": list(links)}).encode(), content_type=content_type)


def test_webfinger_finds_the_actor() -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        uri = site.url("/users/1")
        profile = {"rel": "http://webfinger.net/rel/profile-page", "type": "text/html", "href": site.url("/@alice")}
        atom = {"rel": "self", "type": "application/atom+xml", "href": site.url("/feed")}
        for type_ in ("application/activity+json", f'application/ld+json; profile="{AS}"'):
            link = {"rel": "self", "type": type_, "href": uri}
            path = f"/.well-known/webfinger?resource=acct%3Aalice%40127.0.0.1%3A{site.port}"
            for content_type in ("application/jrd+json; charset=utf-8", "application/json"):
                site.pages[path] = jrd(f"acct:Alice@{site.authority}", profile, atom, link, content_type=content_type)
                for handle in (f"@alice@{site.authority}", f"alice@{site.authority}", f"acct:alice@{site.authority}"):
                    assert await peers.webfinger(handle) == uri
        assert site.asked[0].header("signature") is None

    story(work)


def test_webfinger_refuses_what_it_cannot_believe() -> None:
    async def work(site: Site, peers: Peers, _: Clock) -> None:
        link = {"rel": "self", "type": "application/activity+json", "href": site.url("/users/1")}
        path = f"/.well-known/webfinger?resource=acct%3Aalice%40127.0.0.1%3A{site.port}"
        subject = f"acct:alice@{site.authority}"
        for page in (
            reply(404, b""),
            jrd(subject),
            jrd(subject, {**link, "href": "http://10.0.0.1/users/1"}),
            jrd(subject, {**link, "href": "javascript:x"}),
            jrd(subject, {**link, "type": "text/html"}),
            jrd(subject, {**link, "rel": "other"}),
            jrd(subject, link, content_type="text/html"),
            jrd("", link),
            jrd(f"acct:bob@{site.authority}", link),
            reply(200, b"{", content_type="application/jrd+json"),
            reply(302, location="http://10.0.0.1/"),
        ):
            site.pages[path] = page
            with pytest.raises(NetworkError):
                await peers.webfinger(f"alice@{site.authority}")
        for handle in ("alice", "@", "alice@", "@alice@h/x", "a@b@c", "alice@ho st"):
            with pytest.raises(BadAnswer, match="A handle looks like"):
                await peers.webfinger(handle)

    story(work)


def test_webfinger_confirms_a_subject_on_another_host() -> None:
    async def main() -> None:
        async with Site() as home, Site() as ap, client() as this:
            peers = Peers(this, sign, requests_per_minute=1000)
            link = {"rel": "self", "type": "application/activity+json", "href": ap.url("/users/1")}
            of = "/.well-known/webfinger?resource=acct%3Aalice%40127.0.0.1%3A{}".format
            ap.pages[of(ap.port)] = jrd(f"acct:alice@{home.authority}", link)
            home.pages[of(home.port)] = jrd(f"acct:alice@{home.authority}", link)
            assert await peers.webfinger(f"alice@{ap.authority}") == ap.url("/users/1")
            for answer in (
                reply(404, b""),
                jrd(f"acct:alice@{home.authority}", {**link, "href": home.url("/users/1")}),
                jrd(f"acct:alice@{ap.authority}", link),
            ):
                home.pages[of(home.port)] = answer
                with pytest.raises(BadAnswer):
                    await peers.webfinger(f"alice@{ap.authority}")

    run(main())
