"""Answers at any depth under our posts are found: up from a post that mentions us, and around those that are held, in
the shapes of the servers that exist, within limits, and never inside the request that made us look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.rig import PUBLIC, Bridge, Stranger, eventually
from tests.stories.neighbours import rule
from tests.stories.test_nobody_speaks_for_another_server import mallory

from threadbridge.federation import reply, thread
from threadbridge.storage import jobs, mentions
from threadbridge.storage.store import Tx

__all__ = ["mallory"]

Build = Callable[[Stranger, str, list[str]], dict[str, Any]]


@pytest.fixture
def inbox(bridge: Bridge) -> str:
    return f"{bridge.base}/ap/inbox"


def look(bridge: Bridge, post: str) -> None:
    """Look around a post now, rather than in two minutes."""
    number = int(post.rsplit("/", 1)[1])

    def ask(tx: Tx) -> None:
        jobs.add(tx, reply.LOOK, str(number), {"account": 1, "post": number})

    eventually(lambda: bridge.count("jobs", kind=reply.LOOK))
    bridge.ground.store.transact_now(ask)
    eventually(lambda: not bridge.count("jobs", kind=reply.LOOK))


def held(bridge: Bridge) -> int:
    return bridge.count("replies", deleted_at=None)


def chain(who: Stranger, parent: str, length: int) -> list[dict[str, Any]]:
    """Posts of one person, each answering the one before."""
    made = []
    for _ in range(length):
        note = who.note(parent)
        who.objects[note["id"]] = note
        made.append(note)
        parent = note["id"]
    return made


# ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mention_far_below_our_post_becomes_an_answer_with_what_lies_between(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str
) -> None:
    account = bridge.account()
    actor, post = bridge.ground.ids.actor(account.id), bridge.post(account)
    between = chain(mallory, post, 3)
    deep = stranger.note(between[-1]["id"], tag=[{"type": "Mention", "href": actor, "name": "@alice"}])
    deeper = stranger.note(deep["id"], cc=[actor])
    # Out of order: the answer to the answer comes first.
    assert stranger.post(inbox, stranger.activity("Create", deeper)).status_code == 202
    eventually(lambda: not bridge.count("jobs", kind=reply.CLIMB))
    assert (held(bridge), bridge.count("mentions")) == (0, 1)
    assert stranger.post(inbox, stranger.activity("Create", deep)).status_code == 202
    eventually(lambda: held(bridge) == 5)
    assert bridge.count("mentions") == 0
    assert bridge.get(f"{post}/replies").json()["totalItems"] == 5


def test_a_mention_that_leads_elsewhere_stays_one_and_its_author_edits_and_deletes_it(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str
) -> None:
    account = bridge.account()
    actor = bridge.ground.ids.actor(account.id)
    elsewhere = chain(mallory, f"{mallory.base}/notes/nothing", 1)[0]
    note = stranger.note(elsewhere["id"], "<p>Ask <b>alice</b><script>x</script></p>", to=[actor])
    for said in (note, stranger.note(None, "<p>hello</p>", tag=[{"type": "Mention", "href": actor}])):
        assert stranger.post(inbox, stranger.activity("Create", said)).status_code == 202
    eventually(lambda: not bridge.count("jobs", kind=reply.CLIMB))
    (_, second), (_, first) = bridge.ground.store.read_now(mentions.page, account.id, limit=9)
    assert (first.uri, first.public, second.public, held(bridge)) == (note["id"], False, True, 0)
    assert "script" not in first.html
    # Its forged twins change nothing.
    before = bridge.everything()
    edited = {**note, "content": "<p>stolen</p>", "updated": "2027-01-01T00:00:00Z"}
    assert mallory.post(inbox, {**mallory.activity("Update", edited), "actor": stranger.uri}).status_code in (
        400,
        403,
    )
    assert mallory.post(inbox, mallory.activity("Delete", note["id"])).status_code == 400
    assert bridge.everything() == before
    assert stranger.post(inbox, stranger.activity("Update", {**edited, "content": "<p>new</p>"})).status_code == 202
    assert bridge.count("mentions", html="<p>new</p>") == 1
    stranger.post(inbox, stranger.activity("Update", {**edited, "content": "old", "updated": "2026-01-01T00:00:00Z"}))
    assert bridge.count("mentions", html="<p>new</p>") == 1
    assert stranger.post(inbox, stranger.activity("Delete", note["id"])).status_code == 202
    assert bridge.count("mentions", deleted_at=None) == 1
    late = stranger.note(None, to=[actor])
    stranger.post(inbox, stranger.activity("Delete", late["id"]))
    stranger.post(inbox, stranger.activity("Create", late))
    assert bridge.count("mentions", deleted_at=None) == 1


def test_a_circle_and_an_endless_chain_end(bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str) -> None:
    account = bridge.account()
    actor, post = bridge.ground.ids.actor(account.id), bridge.post(account)
    circle = chain(mallory, post, 2)
    mallory.objects[circle[0]["id"]] = {**circle[0], "inReplyTo": circle[1]["id"]}
    endless = chain(mallory, post, thread.ANCESTORS + 5)
    for last in (circle[-1], endless[-1]):
        note = stranger.note(last["id"], to=[actor, PUBLIC])
        stranger.post(inbox, stranger.activity("Create", note))
    eventually(lambda: not bridge.count("jobs", kind=reply.CLIMB))
    assert (held(bridge), bridge.count("mentions")) == (0, 2)
    assert len(mallory.fetched) <= thread.ANCESTORS + 10


# ── around ───────────────────────────────────────────────────────────────────────────────────────────────────────


def mastodon(who: Stranger, note: str, items: list[str]) -> dict[str, Any]:
    """An embedded first page that is empty, and the way on to the others' answers."""
    onward = f"{note}/replies/page"
    who.objects[onward] = {"id": onward, "type": "CollectionPage", "partOf": f"{note}/replies", "items": items}
    first = {"id": f"{note}/first", "type": "CollectionPage", "next": onward, "items": []}
    return {"replies": {"id": f"{note}/replies", "type": "Collection", "first": first}}


def gotosocial(who: Stranger, note: str, items: list[str]) -> dict[str, Any]:
    """The first page by its address."""
    first = f"{note}/replies/first"
    who.objects[first] = {"id": first, "type": "CollectionPage", "items": items[0] if len(items) == 1 else items}
    return {"replies": {"id": f"{note}/replies", "type": "Collection", "first": first}}


def misskey(who: Stranger, note: str, items: list[str]) -> dict[str, Any]:
    """The collection by its address, in order."""
    whole = f"{note}/replies"
    who.objects[whole] = {"id": whole, "type": "OrderedCollection", "orderedItems": items}
    return {"replies": whole}


def peertube(who: Stranger, note: str, items: list[str]) -> dict[str, Any]:
    whole = f"{note}/comments"
    who.objects[whole] = {"id": whole, "type": "OrderedCollection", "totalItems": len(items), "orderedItems": items}
    return {"comments": whole}


def conversation(who: Stranger, note: str, items: list[str]) -> dict[str, Any]:
    """FEP-7888, with whole objects of which only the ids are taken; the conversation has the post itself as well."""
    whole = f"{who.base}/contexts/{note.rsplit('/', 1)[1]}"
    inner = [{"id": item, "type": "Note", "content": "counterfeit"} for item in [*items, note]]
    who.objects[whole] = {"id": whole, "type": "OrderedCollection", "orderedItems": inner}
    return {"context": whole}


def history(who: Stranger, note: str, items: list[str]) -> dict[str, Any]:
    """FEP-f228: activities."""
    whole = f"{note}/history"
    inner = [{"id": f"{item}/create", "type": "Create", "object": item} for item in items]
    who.objects[whole] = {"id": whole, "type": "OrderedCollection", "orderedItems": inner}
    return {"context": whole}


@pytest.mark.parametrize("build", [mastodon, gotosocial, misskey, peertube, conversation, history])
def test_answers_that_nobody_sent_us_are_found_below_those_that_came(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str, build: Build
) -> None:
    post = bridge.post(bridge.account())
    note = stranger.note(post)
    # Who takes part in the thread is looked for further on.
    here = chain(mallory, post, 1)[0]
    assert mallory.post(inbox, mallory.activity("Create", here)).status_code == 202
    below = chain(mallory, note["id"], 2)
    # The lower one first; what does not belong here, is private or is not what it is called, is left out.
    private = mallory.note(note["id"], to=[stranger.uri])
    foreign = mallory.note(f"{mallory.base}/notes/1")
    for other in (private, foreign):
        mallory.objects[other["id"]] = other
    liar = {**mallory.note(note["id"]), "attributedTo": stranger.uri}
    mallory.objects[liar["id"]] = liar
    items = [below[1]["id"], private["id"], foreign["id"], liar["id"], below[0]["id"], f"{mallory.base}/notes/404"]
    stranger.objects[note["id"]] = {**note, **build(stranger, note["id"], items)}
    assert stranger.post(inbox, stranger.activity("Create", note)).status_code == 202
    # Nothing of it within the request.
    assert note["id"] not in [stranger.base + path for path in stranger.fetched]
    assert held(bridge) == 2
    look(bridge, post)
    assert held(bridge) == 4
    assert bridge.count("replies", html="<p>Hi!</p>") == 4
    # Looked at once: nothing is asked again.
    asked = len(stranger.fetched) + len(mallory.fetched)
    later = mallory.note(post)
    mallory.objects[later["id"]] = later
    mallory.post(inbox, mallory.activity("Create", later))
    look(bridge, post)
    assert len(stranger.fetched) + len(mallory.fetched) == asked + 1


def test_a_collection_without_end_ends(bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str) -> None:
    """PeerTube CVE-2025-32947: `next` leads to itself, to ever new pages, to another server."""
    account = bridge.account()
    counted = []

    def itself(note: str) -> dict[str, Any]:
        page = f"{note}/p"
        stranger.objects[page] = {"id": page, "type": "CollectionPage", "items": [], "next": page}
        return {"replies": {"type": "Collection", "first": page}}

    def ever_new(note: str) -> dict[str, Any]:
        for number in range(100):
            page = f"{note}/p{number}"
            item, onward = f"{stranger.base}/notes/x{number}", f"{note}/p{number + 1}"
            stranger.objects[page] = {"id": page, "type": "CollectionPage", "items": [item], "next": onward}
        return {"replies": f"{note}/p0"}

    def another_server(note: str) -> dict[str, Any]:
        page = f"{note}/p"
        stranger.objects[page] = {"id": page, "type": "CollectionPage", "items": [],
                                  "next": f"{mallory.base}/victim"}  # fmt: skip
        return {"replies": page}

    def thousands(note: str) -> dict[str, Any]:
        items = [f"{stranger.base}/notes/t{number}" for number in range(5000)]
        return {"replies": {"type": "OrderedCollection", "orderedItems": items}}

    for build in (itself, ever_new, another_server, thousands):
        post = bridge.post(account, build.__name__)
        note = stranger.note(post)
        stranger.objects[note["id"]] = {**note, **build(note["id"])}
        stranger.post(inbox, stranger.activity("Create", note))
        before = len(stranger.fetched)
        look(bridge, post)
        counted.append(len(stranger.fetched) - before)
    assert counted[0] == 2
    assert counted[1] <= 1 + 2 * (thread.PAGES + 1)
    assert counted[2] == 2
    assert counted[3] <= thread.OF_ONE_HOST
    assert "/victim" not in mallory.fetched


def test_nobody_who_answers_here_points_us_at_others(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str
) -> None:
    """A collection full of somebody else's posts: a server that takes no part in the thread is not asked at all, also
    by a detour; one that does is asked within limits, and its people's documents count too."""
    account = bridge.account()
    for takes_part in (False, True):
        post = bridge.post(account, f"takes part: {takes_part}")
        items = []
        for _ in range(100):
            theirs = stranger.note(f"{stranger.base}/notes/0", tag=[])
            stranger.objects[theirs["id"]] = theirs
            items.append(theirs["id"])
        detour = f"{mallory.base}/notes/detour-{takes_part}"
        mallory.objects[detour] = {**stranger.note(post), "id": items[-1]}
        note = mallory.note(post)
        mallory.objects[note["id"]] = {**note, **misskey(mallory, note["id"], [*items, detour])}
        if takes_part:
            stranger.post(inbox, stranger.activity("Create", stranger.note(post)))
        mallory.post(inbox, mallory.activity("Create", note))
        before = len(stranger.fetched)
        look(bridge, post)
        asked = len(stranger.fetched) - before
        # (One more by the detour, at most.)
        assert (1 < asked <= thread.OF_ONE_HOST + 1) if takes_part else asked <= 1


def test_who_is_suspended_is_not_asked_about_as_an_author_either(
    bridge: Bridge, stranger: Stranger, mallory: Stranger, inbox: str
) -> None:
    post = bridge.post(bridge.account())
    note, theirs = mallory.note(post), mallory.note(post)
    theirs = {**theirs, "attributedTo": f"{mallory.base}/users/somebody"}
    mallory.objects[theirs["id"]] = theirs
    mallory.objects[note["id"]] = {**note, **misskey(mallory, note["id"], [theirs["id"]])}
    rule(bridge, "suspend", f"{mallory.base}/users/somebody", "actor")
    mallory.post(inbox, mallory.activity("Create", note))
    look(bridge, post)
    assert theirs["id"].removeprefix(mallory.base) in mallory.fetched
    assert "/users/somebody" not in mallory.fetched
    assert held(bridge) == 1
