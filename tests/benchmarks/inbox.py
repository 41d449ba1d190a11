"""Signed POSTs to the inboxes. 202 is said after the durable commit of the effect, so accepted is processed; the
rows are counted at the end all the same.

Senders are many, with a key id each, and were met before; for Follow every sender is new to the process and its
Accept has to arrive at the sender's own host, which the same process does beside receiving. A Delete of an actor that
we never met is refused any work: that is what most deletions are.
"""

from __future__ import annotations

import time
import urllib.request

from sqlalchemy import func, select
from tests.benchmarks import load, senders
from tests.benchmarks.limits import COMMIT, POST_ROUTE, VERIFY
from tests.benchmarks.scene import Figure, Scene, populated
from tests.benchmarks.senders import Person

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

COUNT = 4000
SPEAKERS = 500
FOLLOWS = 2000
WAIT_SECONDS = 120.0


def measure() -> list[Figure]:
    port = load.free_port()
    speakers = senders.people(SPEAKERS, port)
    followers = senders.people(SPEAKERS + FOLLOWS, port)[SPEAKERS:]
    found: list[Figure] = []
    with populated() as scene:
        with scene.ground() as ground:
            ground.store.transact_now(senders.met, [*speakers, *followers])
        requests = {kind: _requests(scene, speakers, kind) for kind in ("Like", "Create", "Delete")}
        with scene.serving("--no-worker") as server:
            load.once_each(scene.port, [_request(scene, one, "Like", -1) for one in speakers])
            for kind, limit in (("Like", VERIFY), ("Create", COMMIT), ("Delete", POST_ROUTE)):
                what = "Delete of an unknown actor" if kind == "Delete" else kind
                rate = load.once_each(scene.port, requests[kind])
                found.append((f"POST inbox, {what}", rate, "/s", limit))
            found.append(("inbox, peak memory of the server", server.peak(), "MB", None))
        with scene.ground() as ground:
            counted = ground.store.read_now(_counted)
        assert counted == (COUNT + SPEAKERS, COUNT), counted
        found += _follows(scene, followers, port)
    return found


def _follows(scene: Scene, followers: list[Person], port: int) -> list[Figure]:
    """Accepted per second, and from the first Follow to the last Accept at its sender."""
    requests = [_request(scene, one, "Follow", number) for number, one in enumerate(followers)]
    with (
        load.process(["-m", "tests.benchmarks.sink", str(port)], port, core=load.LOAD_CORE),
        scene.serving() as server,
    ):
        started = time.perf_counter()
        accepted = load.once_each(scene.port, requests)
        while (arrived := _arrived(port)) < FOLLOWS and time.perf_counter() - started < WAIT_SECONDS:
            time.sleep(0.05)
        lasted = time.perf_counter() - started
        peak = server.peak()
    assert arrived >= FOLLOWS, f"{arrived} of {FOLLOWS} Accepts arrived"
    with scene.ground() as ground:
        assert ground.store.read_now(_followers) == FOLLOWS
    return [
        ("POST inbox, Follow", accepted, "/s", COMMIT),
        ("POST inbox, Follow to its Accept at the sender", FOLLOWS / lasted, "/s", "RSA-2048 signatures"),
        ("follows, peak memory of server and worker", peak, "MB", None),
    ]


def _requests(scene: Scene, speakers: list[Person], kind: str) -> list[bytes]:
    return [_request(scene, speakers[number % SPEAKERS], kind, number) for number in range(COUNT)]


def _request(scene: Scene, person: Person, kind: str, number: int) -> bytes:
    actor = f"{scene.base}/ap/users/{scene.account.id}"
    # Each person likes a post once: rounds of everybody, one post further each.
    post = f"{actor}/posts/{number // SPEAKERS % 199 + 2}"
    if kind == "Delete":
        stranger = Person(f"http://{person.host}/users/unknown{number}", person.host, person.key_number)
        return senders.posted(stranger, scene.base, senders.activity(stranger, kind, number, stranger.uri))
    about = {"Like": post, "Follow": actor, "Create": senders.answer(person, number, post)}[kind]
    # As Mastodon does: what is meant for one account goes to its own inbox, what is public to the shared one.
    inbox = "/ap/inbox" if kind == "Create" else f"/ap/users/{scene.account.id}/inbox"
    return senders.posted(person, scene.base, senders.activity(person, kind, number, about), inbox)


def _arrived(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return int(answer.read())


def _counted(tx: Tx) -> tuple[int, int]:
    """(likes, answers) that had their effect, as the figures on the posts say."""
    p = schema.posts
    likes = tx.execute(select(func.sum(p.c.likes_count))).scalar_one()
    answers = tx.execute(select(func.sum(p.c.replies_count))).scalar_one()
    return int(likes), int(answers)


def _followers(tx: Tx) -> int:
    a, f = schema.accounts, schema.followers
    rows = tx.execute(select(func.count()).select_from(f).where(f.c.ended_at.is_(None))).scalar_one()
    assert rows == tx.execute(select(a.c.followers_count)).scalar_one()
    return int(rows)
