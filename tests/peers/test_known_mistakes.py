"""The forty mistakes with which new servers fail to be understood, each by its name: what is asserted is that it is
not made here. Ranked by how often, and how silently, they kill."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
import pytest
from tests.peers import mastodon, signed
from tests.peers.captured import Captured
from tests.peers.populated import BASE, HOST, House, Watcher, attached, content, picture
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket, running_bridge

from threadbridge.delivery.retry import Answer, judge
from threadbridge.domain.accounts import handle_from_source
from threadbridge.errors import AddressRefused
from threadbridge.net.guard import Guard
from threadbridge.services import open_ground
from threadbridge.signatures import schemes
from threadbridge.signatures.keys import signing_key
from threadbridge.storage import accounts, keys, posts
from threadbridge.storage.store import Tx
from threadbridge.web import senders

AS = "https://www.w3.org/ns/activitystreams"
ACTIVITY = "application/activity+json; charset=utf-8"
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@contextmanager
def scene(folder: Path, *, worker: bool = True) -> Iterator[tuple[Bridge, Watcher, str, str]]:
    """A small bridge to be changed: bridge, stranger, the actor and one of its posts."""
    with running_bridge(folder, worker=worker) as bridge:
        sock = free_socket()
        stranger = Watcher(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, stranger.watching(), sock)
        account = bridge.account()
        try:
            yield bridge, stranger, bridge.ground.ids.actor(account.id), bridge.post(account)
        finally:
            served.stop()


def sent(house: House, kind: str | None = None) -> list[dict[str, Any]]:
    """The activities that arrived at the follower's."""
    found = [orjson.loads(request.body) for request in house.watcher.captured if request.method == "POST"]
    return [activity for activity in found if kind in (None, activity["type"])]


def deliveries(house: House) -> list[Captured]:
    return [request for request in house.watcher.captured if request.method == "POST"]


def actor(house: House) -> dict[str, Any]:
    document: dict[str, Any] = house.get(house.uri).json()
    return document


def notes(house: House) -> list[dict[str, Any]]:
    return [house.get(uri).json() for name, uri in house.posts.items() if name != "deleted"]


def answers_in(bridge: Bridge, kind: str) -> int:
    return bridge.count("activities", kind=kind)


# ── 1 to 10 ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_01_the_content_type_is_exact(house: House) -> None:
    assert {house.get(url).headers["content-type"] for url in (house.uri, house.posts["text"])} == {ACTIVITY}


def test_02_webfinger_names_the_very_id(house: House) -> None:
    jrd = house.get(f"{BASE}/.well-known/webfinger?resource=acct:alice@{HOST}").json()
    assert [link["href"] for link in jrd["links"] if link["rel"] == "self"] == [actor(house)["id"]]


def test_03_the_key_belongs_to_the_actor(house: House) -> None:
    key = actor(house)["publicKey"]
    assert (key["id"], key["owner"]) == (f"{house.uri}#main-key", house.uri)


def test_04_the_digest_is_of_the_bytes_that_were_sent(house: House) -> None:
    for request in deliveries(house):
        signed.check_digest(request)


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("https://m.example:443/inbox", "m.example", "/inbox"),
        ("http://m.example:80/inbox", "m.example", "/inbox"),
        ("https://m.example:8443/inbox", "m.example:8443", "/inbox"),
        ("https://M.example/a%2Fb/%C3%A9", "m.example", "/a%2Fb/%C3%A9"),
        ("https://m.example", "m.example", "/"),
    ],
)
def test_05_the_signing_string_is_what_is_on_the_wire(url: str, host: str, target: str) -> None:
    key = signing_key(f"{BASE}/ap/users/1#main-key", a_key().private_pem)
    headers = schemes.sign(
        "cavage", key, method="POST", url=url, body=b"{}", date=NOW, content_type="application/activity+json"
    )
    assert headers["Host"] == host
    lower = [(name.lower(), value) for name, value in headers.items()]
    mastodon.check_request(Captured("POST", target, lower, b"{}", NOW), a_key().public_pem, host)


def test_06_the_accept_holds_the_whole_follow_with_its_own_id(house: House) -> None:
    follow = {name: value for name, value in house.follows[0].items() if name != "@context"}
    assert [accept["object"] for accept in sent(house, "Accept")] == [follow]


def test_07_a_repeated_follow_is_answered_again(tmp_path: Path) -> None:
    with scene(tmp_path, worker=False) as (bridge, stranger, me, _):
        for _ in range(2):
            stranger.post(f"{me}/inbox", stranger.activity("Follow", me))
        assert answers_in(bridge, "Accept") == 2


def test_08_the_date_is_of_the_attempt_and_not_of_the_queue(tmp_path: Path) -> None:
    with scene(tmp_path, worker=False) as (bridge, stranger, me, _):
        stranger.post(f"{me}/inbox", stranger.activity("Follow", me))
        time.sleep(2.1)
        begun = datetime.now(UTC).replace(microsecond=0)
        bridge.start_worker()
        eventually(lambda: stranger.requests)
        assert parsedate_to_datetime(stranger.requests[0][0]["date"]) >= begun


def test_09_gets_are_signed(house: House) -> None:
    fetches = [request for request in house.watcher.captured if request.method == "GET"]
    assert fetches
    assert all(request.header("signature") for request in fetches)


def test_10_no_key_waits_for_a_signature(house: House) -> None:
    for url in (f"{BASE}/actor", house.uri):
        assert house.get(url).status_code == 200
        assert house.get(url, Signature='keyId="https://x.example/k",signature="AAAA"').status_code == 200


# ── 11 to 20 ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_11_the_context_is_activitystreams_to_the_letter(house: House) -> None:
    served = [house.get(url).json() for url in (house.uri, f"{BASE}/actor", house.posts["text"])]
    for document in (*served, *sent(house)):
        context = document["@context"]
        assert (context if isinstance(context, str) else context[0]) == AS


def test_12_everything_of_an_actor_is_on_one_host(house: House) -> None:
    me = actor(house)
    everything = [me[name] for name in ("id", "inbox", "outbox", "followers", "following", "featured", "url")]
    everything += [me["publicKey"]["id"], me["endpoints"]["sharedInbox"], me["icon"]["url"]]
    assert {urlsplit(url).netloc for url in everything} == {HOST}


def test_13_a_new_follower_is_not_flooded_with_history(tmp_path: Path) -> None:
    with scene(tmp_path) as (_bridge, stranger, me, _):
        stranger.post(f"{me}/inbox", stranger.activity("Follow", me))
        eventually(lambda: stranger.of_kind("Accept"))
        time.sleep(0.5)
        assert [activity["type"] for activity in stranger.received] == ["Accept"]


def test_14_posts_are_addressed_to_the_public_and_copied_to_followers(house: House) -> None:
    for note in notes(house):
        assert note["to"] == [f"{AS}#Public"]
        assert note["cc"][0] == f"{note['attributedTo']}/followers"


def test_15_the_key_survives_a_restart(tmp_path: Path) -> None:
    with scene(tmp_path, worker=False) as (bridge, _, me, _):
        before = bridge.get(me).json()["publicKey"], bridge.get("/actor").json()["publicKey"]
        config = bridge.ground.config
    again = open_ground(config)
    pems = [again.store.read_now(keys.public_key, who) for who in (1, None)]
    again.close()
    assert pems == [key["publicKeyPem"] for key in before]


def test_16_every_activity_has_an_id_of_its_own_on_our_host(house: House) -> None:
    ids = [activity["id"] for activity in sent(house)]
    assert len(set(ids)) == len(ids)
    assert all(uri.startswith(f"{BASE}/") for uri in ids)


def test_17_the_signature_header_can_be_split_naively(house: House) -> None:
    for request in house.watcher.captured:
        assert re.fullmatch(
            r'keyId="[^", ]+",algorithm="rsa-sha256",headers="[^",]+",signature="[A-Za-z0-9+/=]+"',
            request.header("signature") or "",
        )


def test_18_a_proxy_in_front_breaks_no_signature(house: House) -> None:
    stranger = house.watcher
    body = orjson.dumps(stranger.activity("Like", house.posts["video"]))
    headers = stranger.signed(f"{house.uri}/inbox", body)
    forwarded = {"X-Forwarded-Host": "inner.example", "X-Forwarded-Proto": "http", "X-Forwarded-For": "10.0.0.1"}
    at = f"http://127.0.0.1:{house.port}{urlsplit(house.uri).path}/inbox"
    assert httpx2.post(at, content=body, headers={**headers, **forwarded}, trust_env=False).status_code == 202


def test_19_an_inbox_answers_within_five_seconds_even_when_the_senders_server_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert senders.FETCH_SECONDS < 5
    monkeypatch.setattr(senders, "FETCH_SECONDS", 0.5)
    with running_bridge(tmp_path, worker=False) as bridge, silent_server() as base:
        me = bridge.ground.ids.actor(bridge.account().id)
        stranger = Stranger(base)
        began = time.monotonic()
        assert stranger.post(f"{me}/inbox", stranger.activity("Follow", me)).status_code == 401
        assert time.monotonic() - began < 3


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def take() -> None:
            try:
                while True:
                    held.append(listening.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in held:
            connection.close()


def test_20_the_same_activity_has_its_effect_once(tmp_path: Path) -> None:
    with scene(tmp_path, worker=False) as (bridge, stranger, me, post):
        for activity in (stranger.activity("Like", post), stranger.activity("Follow", me)):
            for where in (f"{me}/inbox", f"{bridge.base}/ap/inbox", f"{me}/inbox"):
                assert stranger.post(where, activity).status_code == 202
        assert answers_in(bridge, "Accept") == 1
        assert bridge.get(f"{post}/likes").json()["totalItems"] == 1


# ── 21 to 30 ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_21_the_farewell_of_somebody_unknown_fetches_no_key(tmp_path: Path) -> None:
    with scene(tmp_path, worker=False) as (bridge, stranger, _, _):
        assert stranger.post(f"{bridge.base}/ap/inbox", stranger.activity("Delete", stranger.uri)).status_code == 202
        assert stranger.fetched == []


def test_22_what_is_deleted_is_410_and_its_id_is_never_used_again(tmp_path: Path) -> None:
    with scene(tmp_path, worker=False) as (bridge, _, _me, post):

        def delete(tx: Tx) -> None:
            posts.bury(tx, 1, int(post.rpartition("/")[2]))
            accounts.touch(tx, 1)

        bridge.ground.store.transact_now(delete)
        account = bridge.ground.store.read_now(accounts.by_id, 1)
        assert account is not None
        assert bridge.post(account, "The next") != post
        answer = bridge.get(post)
        assert (answer.status_code, answer.json()["type"]) == (410, "Tombstone")


def test_23_a_changed_key_is_fetched_once_and_not_with_every_forgery(tmp_path: Path) -> None:
    with scene(tmp_path, worker=False) as (_bridge, stranger, me, post):
        assert stranger.post(f"{me}/inbox", stranger.activity("Follow", me)).status_code == 202
        stranger.key = a_key(3)
        assert stranger.post(f"{me}/inbox", stranger.activity("Like", post)).status_code == 202
        before = len(stranger.fetched)
        for _ in range(5):
            assert stranger.post(f"{me}/inbox", stranger.activity("Announce", post), key=a_key(4)).status_code == 401
        assert len(stranger.fetched) - before <= 1


def test_24_posts_are_notes(house: House) -> None:
    assert {note["type"] for note in notes(house)} == {"Note", "Question"}


def test_25_media_are_at_home_with_a_type_and_no_date_of_expiry(house: House) -> None:
    items = [item for note in notes(house) for item in note["attachment"]]
    assert len(items) > 20
    for item in items:
        assert re.fullmatch(rf"{BASE}/media/[0-9a-f]{{64}}\.[a-z0-9]+", item["url"])
        assert "/" in item["mediaType"]


def test_26_in_reply_to_is_one_id_of_ours_or_nothing(house: House) -> None:
    parents = [note["inReplyTo"] for note in notes(house)]
    assert {house.posts["thread_1"], house.posts["thread_2"]} <= set(parents)
    assert all(parent is None or parent in house.posts.values() for parent in parents)


def test_27_who_is_mentioned_is_tagged_by_id_and_addressed(house: House) -> None:
    note = house.get(house.posts["mentions"]).json()
    hrefs = {tag["href"] for tag in note["tag"] if tag["type"] == "Mention"}
    assert hrefs == {f"{BASE}/ap/users/1", f"{BASE}/ap/users/2"}
    assert hrefs <= set(note["cc"])


@pytest.mark.parametrize("name", ["Alice", ".alice", "alice.", "a..b", "_a_", "a.b_c", "Ünïcode", "...", "a" * 30])
def test_28_every_handle_matches_the_patterns_of_all(name: str) -> None:
    handle = handle_from_source(name)
    assert handle == handle.lower()
    assert re.fullmatch(r"[a-z0-9_]+([.-]+[a-z0-9_]+)*", handle)
    assert re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", handle)


def test_29_handle_and_ids_are_on_the_same_host(house: House) -> None:
    jrd = house.get(f"{BASE}/.well-known/webfinger?resource={house.uri}").json()
    assert jrd["subject"].rpartition("@")[2] == urlsplit(house.uri).netloc == HOST


def test_30_who_asks_for_xrd_finds_people(house: House) -> None:
    both = "application/xrd+xml,application/jrd+json"
    assert house.get(f"{BASE}/.well-known/host-meta", both).status_code == 200
    assert house.get(f"{BASE}/.well-known/webfinger?resource=acct:alice@{HOST}", both).status_code == 200


# ── 31 to 40 ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_31_no_id_redirects(house: House) -> None:
    me = actor(house)
    urls = [me["id"], me["outbox"], me["followers"], me["following"], me["featured"], me["featuredTags"], me["url"]]
    assert {house.get(url).status_code for url in (*urls, f"{BASE}/actor", house.posts["text"])} == {200}


def test_32_the_longest_activity_is_below_sixty_kib(tmp_path: Path) -> None:
    """Ten thousand characters of Japanese, full of links, and sixteen pictures with long descriptions; answered by
    people whose server has long addresses."""
    with scene(tmp_path, worker=False) as (bridge, stranger, me, _):
        worst = {
            "script": content("長" * 500, long_text="文" * 10_000, original_url="https://www.threads.com/@a/post/1"),
            "links": content("x", long_text="https://a.example/b " * 500),
            "pictures": content("😀" * 500, topic="見出し"),
            "tags": content(" ".join(f"#t{number}" for number in range(120))),
        }

        def add(tx: Tx, name: str) -> int:
            rows = [picture(number) for number in range(20)]
            for row in rows:
                posts.add_media(tx, row)
            media = [attached(row, alt="😀" * 1000) for row in rows] if name in ("pictures", "script") else []
            return posts.add(tx, 1, worst[name], media, silent=True)

        for name in worst:
            uri = bridge.ground.ids.post(1, bridge.ground.store.transact_now(add, name))
            answers = 30 if name == "script" else 0
            for number in range(answers):
                answer = {**stranger.note(uri), "id": f"{stranger.base}/notes/{number}/{'x' * 400}"}
                assert stranger.post(f"{me}/inbox", stranger.activity("Create", answer)).status_code == 202
            eventually(partial(replies_are, bridge, uri, answers))
            body = bridge.get(f"{uri}/activity")
            assert len(body.content) < 60 * 1024, name
            said = body.json()["object"]
            mastodon.check_markup(said["content"])
            assert len(said["attachment"]) in (0, 16)
            assert said["replies"]["totalItems"] == answers
            if name == "script":
                assert said["content"].count("文") >= 4000
                assert "https://www.threads.com/@a/post/1".removeprefix("https://www.") in said["content"]


def replies_are(bridge: Bridge, uri: str, number: int) -> bool:
    return bool(bridge.get(f"{uri}/replies").json()["totalItems"] == number)


def test_33_an_edit_is_later_than_the_post(house: House) -> None:
    update = sent(house, "Update")[0]["object"]
    assert update["updated"] > update["published"]
    assert "updated" not in house.get(house.posts["text"]).json()


def test_34_retries_are_patient_and_refusals_are_final() -> None:
    def due(answer: Answer, attempts: int, spread: float = 0.0) -> timedelta | None:
        outcome = judge(answer, kind="Create", attempts=attempts, created_at=NOW, now=NOW, spread=spread)
        return outcome.due_at - NOW if outcome.due_at else None

    waits = [due(Answer(503), attempts) or timedelta() for attempts in range(6)]
    assert waits == sorted(waits)
    assert waits[0] >= timedelta(seconds=10)
    assert waits[5] >= timedelta(hours=1)
    assert due(Answer(503), 0, 1.0) != due(Answer(503), 0, -1.0)
    assert (due(Answer(429, retry_after="7200"), 0) or timedelta()) >= timedelta(hours=2)
    refused = judge(Answer(403), kind="Create", attempts=9, created_at=NOW, now=NOW, spread=0, previous=403)
    assert refused.state == "refused"
    assert judge(Answer(410), kind="Create", attempts=0, created_at=NOW, now=NOW, spread=0).state == "gone"


def test_35_activity_and_object_have_the_same_recipients(house: House) -> None:
    for activity in sent(house, "Create") + sent(house, "Update"):
        assert (activity["to"], activity["cc"]) == (activity["object"]["to"], activity["object"]["cc"])


def test_36_no_inbox_has_a_query_and_a_query_is_signed_as_it_is_sent(house: House) -> None:
    me = actor(house)
    assert "?" not in me["inbox"] + me["endpoints"]["sharedInbox"]
    key = signing_key(f"{BASE}/actor#main-key", a_key().private_pem)
    headers = schemes.sign(
        "cavage", key, method="GET", url="https://m.example/u?a=1&b=%20", body=None, date=NOW, content_type=None
    )
    lower = [(name.lower(), value) for name, value in headers.items()]
    mastodon.check_request(Captured("GET", "/u?a=1&b=%20", lower, b"", NOW), a_key().public_pem, "m.example")


def test_37_collections_have_a_first_page_a_total_and_ordered_items(house: House) -> None:
    for name in ("outbox", "followers", "following"):
        head = house.get(f"{house.uri}/{name}").json()
        assert isinstance(head["totalItems"], int)
        assert isinstance(house.get(head["first"]).json()["orderedItems"], list)


def test_38_quote_keys_are_only_where_the_quote_is_approved(house: House) -> None:
    quoting = [note for note in notes(house) if {"quote", "quoteUri", "quoteUrl", "_misskey_quote"} & note.keys()]
    assert [note["id"] for note in quoting] == [house.posts["quote_of_own"]]


def test_39_what_must_be_text_is_text(house: House) -> None:
    for me in (actor(house), house.get(f"{BASE}/actor").json(), house.get(f"{BASE}/ap/users/2").json()):
        assert isinstance(me["name"], str)
        assert me["name"]
        assert isinstance(me["summary"], str)
        assert me.get("icon", {"url": ""})["url"] is not None
        assert isinstance(me.get("attachment", []), list)


@pytest.mark.parametrize(
    "key_id",
    [
        "http://10.0.0.1/users/x#main-key", "http://169.254.169.254/latest#main-key", "http://[::1]/users/x#main-key",
        "http://[::ffff:10.0.0.1]/x#main-key", "http://0x7f.1/x#main-key", "file:///etc/passwd#main-key",
        "OWN#main-key", "http://user:pass@127.0.0.1/x#main-key",
    ],
)  # fmt: skip
def test_40_a_key_id_leads_neither_inside_nor_back_to_us(tmp_path: Path, key_id: str) -> None:
    with scene(tmp_path, worker=False) as (bridge, stranger, me, _):
        before = bridge.everything()
        answer = stranger.post(
            f"{me}/inbox", stranger.activity("Follow", me), key_id=key_id.replace("OWN", f"{bridge.base}/ap/users/1")
        )
        assert 400 <= answer.status_code < 500
        assert bridge.everything() == before


def test_40_public_hosts_are_not_refused_for_speaking_ipv6() -> None:
    def resolved(*addresses: str) -> list[str]:
        guard = Guard(lookup=lambda _host, _port: list(addresses))
        found = asyncio.run(guard.resolve("m.example", 443))
        return [str(address) for address in found]

    assert resolved("2606:4700::1111") == ["2606:4700::1111"]
    with pytest.raises(AddressRefused):
        resolved("fd00::1")


# ── and the honourable mentions ──────────────────────────────────────────────────────────────────────────────────


def test_a_get_with_a_signature_that_proves_nothing_is_answered(house: House) -> None:
    for broken in ("x", 'keyId="",headers=""', f'keyId="{BASE}/actor#main-key",headers="date",signature="AAAA"'):
        assert house.get(house.posts["text"], Signature=broken).status_code == 200


def test_negotiated_addresses_say_so(house: House) -> None:
    assert house.get(f"{BASE}/@alice").headers["vary"] == house.get(f"{BASE}/@alice", "text/html").headers["vary"]


def test_nobody_is_addressed_in_secret(house: House) -> None:
    assert all(not {"bto", "bcc"} & {*activity, *activity["object"]} for activity in sent(house))


def test_no_ld_signature_is_there_that_could_fail(house: House) -> None:
    assert all("signature" not in activity for activity in sent(house))


def test_no_attachment_is_a_link(house: House) -> None:
    assert all("href" not in item and item["type"] != "Link" for note in notes(house) for item in note["attachment"])
