"""A bridge with everything on it that a bridge can hold, under its real kind of address, and somebody who follows it.

The ids are `https://bridge.example/…`, as in production, while the sockets are on loopback: what is asked for is sent
to the loopback port with the `Host` of the id, as a proxy in front would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.peers import judgement
from tests.peers.captured import Captured
from tests.rig import LOOPBACK, BackgroundLoop, Bridge, Served, Stranger, eventually, free_socket, public_keys

from threadbridge.config import Config
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account
from threadbridge.domain.source import MediaKind, SourcePoll
from threadbridge.services import Services, open_ground, open_services
from threadbridge.storage import accounts, posts
from threadbridge.storage.posts import MediaRow, NewAttachment, PostContent
from threadbridge.storage.store import Tx
from threadbridge.web.app import create_app

BASE = "https://bridge.example"
HOST = "bridge.example"
LONG_AGO = datetime(2024, 5, 1, 12, tzinfo=UTC)


@dataclass
class Watcher(Stranger):
    """A stranger who keeps every request as it was on the wire."""

    captured: list[Captured] = field(default_factory=list)

    def watching(self) -> ASGIApp:
        app = self.create_app()

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            body = b""
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            query = scope["query_string"].decode()
            self.captured.append(
                Captured(
                    scope["method"],
                    scope["raw_path"].decode() + (f"?{query}" if query else ""),
                    [(name.decode().lower(), value.decode("latin-1")) for name, value in scope["headers"]],
                    body,
                    datetime.now(UTC),
                )
            )
            told = False

            async def again() -> Message:
                nonlocal told
                if told:
                    return await receive()
                told = True
                return {"type": "http.request", "body": body, "more_body": False}

            await app(scope, again, send)

        return watched


@dataclass
class House:
    """The populated bridge. `posts` are ids (addresses) by what is special about them."""

    bridge: Bridge
    port: int
    account: Account
    quiet: Account
    posts: dict[str, str]
    watcher: Watcher
    client: httpx2.Client
    follows: list[dict[str, Any]] = field(default_factory=list)
    """The Follows as they were sent."""

    def get(self, url: str, accept: str = "application/activity+json", **headers: str) -> httpx2.Response:
        """GET of one of our addresses; never follows a redirect, since no canonical address may need it."""
        assert url.startswith(f"{BASE}/"), url
        at = f"http://127.0.0.1:{self.port}{url.removeprefix(BASE)}"
        sent = {"Host": HOST, "Accept": accept, **headers}
        return self.client.get(at, headers=sent, follow_redirects=False)

    def knock(self, stranger: Stranger, url: str, activity: dict[str, Any], **bent: Any) -> httpx2.Response:
        """POST of an activity, signed for the public address, sent to where it really is."""
        body = orjson.dumps(activity)
        headers = stranger.signed(url, body, **bent)
        at = f"http://127.0.0.1:{self.port}{url.removeprefix(BASE)}"
        return httpx2.post(at, content=body, headers=headers, trust_env=False)

    @property
    def uri(self) -> str:
        return self.bridge.ground.ids.actor(self.account.id)


def picture(number: int) -> MediaRow:
    """A row of a picture; its bytes are of no interest here."""
    digest = hashlib.sha256(f"picture {number}".encode()).hexdigest()
    return MediaRow(digest, "image/jpeg", 1000 + number, 1080, 1350, None, "LEHV6nWB2yk8pyo0adR*.7kCMdnj")


VIDEO = MediaRow(hashlib.sha256(b"video").hexdigest(), "video/mp4", 5000, 720, 1280, 12.5, None)
SOUND = MediaRow(hashlib.sha256(b"sound").hexdigest(), "audio/mp4", 900, None, None, 3.0, None)


def attached(
    row: MediaRow, kind: MediaKind = "image", alt: str = 'Alt text with "quotes" & <angles>'
) -> NewAttachment:
    return NewAttachment(kind, alt, row.sha256, row.sha256)


def content(text: str, **given: Any) -> PostContent:
    return PostContent(**{"kind": "post", "language": "en", "published": datetime.now(UTC), "text": text, **given})


Kind = tuple[PostContent, list[NewAttachment]]


def every_kind() -> dict[str, Kind]:
    """A post for everything that a source post can have; threads, quotes and edits are made of these."""
    soon, over = datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) - timedelta(days=1)
    address = "https://www.threads.com/@alice/post/abc"
    return {
        "text": (content("Hello, world <3 & more\n\nSecond paragraph\nwith a line break"), []),
        "no_language": (content("Καλημέρα 👋🏽 مرحبا", language=None), []),
        "hashtags": (
            content("Cats #Cats and #猫 #2024 #straße", tags=("Cats", "猫", "straße"), topic="Street Photography"),
            [],
        ),
        "mentions": (content("Hi @alice and @quiet.one, and @somebody at Threads"), []),
        "address": (content("See https://example.org/" + "a/very/long/path" * 5 + "?a=1&b=2#c, then"), []),
        "six_pictures": (
            content("Six", original_url=address),
            [attached(picture(number)) for number in range(6)],
        ),
        "twenty_pictures": (
            content("Twenty", original_url=address),
            [attached(picture(number), alt="ö" * 1000) for number in range(20)],
        ),
        "video": (content("Moving"), [attached(VIDEO, "video")]),
        "sound": (content(""), [attached(SOUND, "audio", "")]),
        "missing_picture": (content("Lost"), [NewAttachment("image", "", "k", None, "the file is not there")]),
        "poll": (content("Which?", poll=SourcePoll(("A & B", "C"), (3, 5), soon)), []),
        "poll_over": (content("Which was it?", poll=SourcePoll(("A", "B"), (0, 0), over)), []),
        "poll_unknown": (content("Which?", poll=SourcePoll(("A", "B"), None, soon)), []),
        "quote_elsewhere": (content("This!", quoted_url="https://www.threads.com/@b/post/q"), []),
        "repost": (content("", kind="repost", repost_url="https://www.threads.com/@b/post/r"), []),
        "reply_elsewhere": (content("No.", kind="reply", parent_url="https://www.threads.com/@b/post/p"), []),
        "spoiler": (content("The butler did it", spoilers=((4, 10),), sensitive=True), []),
        "sensitive_picture": (content("Look", sensitive=True), [attached(picture(0))]),
        "long_text": (content("Read on", long_text="All of it. \n\n" + "Wörter " * 1500), []),
        "location": (content("Here", location="Café <Zürich>"), []),
        "link": (content("News", link="https://news.example/a?b=c&d=e"), []),
        "original": (content("From there", original_url=address), []),
        "future": (content("From tomorrow", published=soon), []),
        "markup": (content("<script>alert(1)</script> [x](javascript:alert(1)) \u202e"), []),
    }  # fmt: skip


def populate(tx: Tx, services: Services, account: Account, quiet: Account) -> dict[str, int]:
    """Every kind of post, said aloud where it is new; and three pages of history that is not."""
    ids = services.ids
    made: dict[str, int] = {}
    for row in (*(picture(number) for number in range(20)), VIDEO, SOUND):
        posts.add_media(tx, row)

    def say(name: str, what: PostContent, media: list[NewAttachment] | None = None) -> int:
        made[name] = posts.add(tx, account.id, what, media or [], silent=False)
        outbox.publish(tx, ids, account, made[name])
        return made[name]

    for number in range(45):
        what = content(f"History {number}", published=LONG_AGO + timedelta(days=number // 2))
        made[f"history_{number}"] = posts.add(tx, account.id, what, [], silent=True)
    for name, (what, media) in every_kind().items():
        say(name, what, media)
    say(
        "quote_of_own",
        content("As I said", quoted_id=made["text"], quoted_url="https://www.threads.com/@alice/post/1"),
    )
    say("thread_1", content("1/3"))
    say("thread_2", content("2/3", parent_id=made["thread_1"], kind="reply"))
    say("thread_3", content("3/3", parent_id=made["thread_2"], kind="reply"))
    say("edited", content("Before"))
    say("deleted", content("Soon gone"))
    posts.pin(tx, account.id, made["text"])
    posts.pin(tx, account.id, made["poll"])
    made["of_quiet"] = posts.add(tx, quiet.id, content("I say little"), [], silent=True)
    accounts.touch(tx, account.id)
    accounts.touch(tx, quiet.id)
    return made


def change(tx: Tx, services: Services, account: Account, made: dict[str, int]) -> None:
    """Edit one post and delete another. What has not left yet would not be told at all (it is replaced)."""
    posts.revise(
        tx, account.id, made["edited"], content("After", published=tx.now), [attached(picture(3))],
        updated=tx.now + timedelta(seconds=1),
    )  # fmt: skip
    outbox.revise(tx, services.ids, account, made["edited"])
    posts.bury(tx, account.id, made["deleted"])
    outbox.retract(tx, services.ids, account, made["deleted"])
    accounts.touch(tx, account.id)


def serve(loop: BackgroundLoop, name: str, key: int) -> tuple[Watcher, Served]:
    from tests.rig import a_key

    sock = free_socket()
    watcher = Watcher(f"http://127.0.0.1:{sock.getsockname()[1]}", name, a_key(key))
    return watcher, Served(loop, watcher.watching(), sock)


@contextmanager
def populated(folder: Path) -> Iterator[House]:
    """The populated bridge, running: a stranger follows, then everything is said, heard, liked and answered."""
    sock = free_socket()
    port = sock.getsockname()[1]
    config = Config(base_url=BASE, data_dir=folder, allowed_private_networks=LOOPBACK, poll_seconds=0.2)
    loop = BackgroundLoop()
    ground = open_ground(config)

    async def opened() -> Services:
        return open_services(ground)

    services = loop.run(opened())
    bridge = Bridge(loop, ground, services, BASE)
    served = [Served(loop, create_app(services), sock)]
    leave = judgement.keys_from(partial(public_keys, ground))
    try:
        avatar = picture(19)
        ground.store.transact_now(posts.add_media, avatar)
        account = bridge.account(
            "alice", name="Alice ✨", bio="Bio with https://example.org, #tag & <b>", joined_at=LONG_AGO,
            source_url="https://www.threads.com/@alice",
        )  # fmt: skip
        quiet = bridge.account("quiet.one")
        ground.store.transact_now(
            accounts.update_profile, account.id, name=account.name, bio=account.bio,
            source_url=account.source_url, avatar=avatar.sha256,
        )  # fmt: skip
        watcher, one = serve(loop, "bob", 1)
        other, two = serve(loop, "carol", 2)
        served += [one, two]
        bridge.start_worker()
        house = House(bridge, port, account, quiet, {}, watcher, httpx2.Client(trust_env=False, timeout=30))
        inbox = f"{house.uri}/inbox"
        for stranger in (watcher, other):
            follow = stranger.activity("Follow", house.uri)
            house.follows.append(follow)
            assert house.knock(stranger, inbox, follow).status_code == 202
            eventually(partial(stranger.of_kind, "Accept"))
        made = ground.store.transact_now(populate, services, account, quiet)
        house.posts = {
            name: ground.ids.post(quiet.id if name == "of_quiet" else account.id, number)
            for name, number in made.items()
        }
        eventually(lambda: not bridge.count("jobs", kind="fan_out"), 30)
        eventually(lambda: not bridge.count("deliveries", state="waiting"), 30)
        ground.store.transact_now(change, services, account, made)
        for activity in (
            watcher.activity("Like", house.posts["text"]),
            watcher.activity("Announce", house.posts["text"]),
            watcher.activity("Create", watcher.note(house.posts["text"])),
        ):
            assert house.knock(watcher, inbox, activity).status_code == 202
        assert house.knock(other, inbox, other.activity("Like", house.posts["text"])).status_code == 202
        eventually(lambda: watcher.of_kind("Delete") and watcher.of_kind("Update"), 30)
        eventually(lambda: not bridge.count("deliveries", state="waiting"), 30)
        yield house
        house.client.close()
    finally:
        bridge.stop_worker()
        for running in reversed(served):
            running.stop()
        loop.run(services.aclose())
        leave()
        ground.close()
        loop.close()
