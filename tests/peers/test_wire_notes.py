"""Every post of the Threads API becomes the note that it says it is: fixture pairs in one loop, each note read by
every kind of server.

A pair is `wire/threads_<case>.post.json` (the post as read, see the mapping of the API) and
`threads_<case>.note.json` (the note as followers get it, without what is the same for all; or why it is not bridged).
The media are taken as copied well; answers, figures and mentions of people here are other tests' matter.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.peers import akkoma, gotosocial, lemmy, mastodon, misskey, pixelfed, takahe, threads

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.bridge.compare import kept_out
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.posts import Attachment, Post
from threadbridge.domain.source import SourceMedia, SourcePoll, SourcePost, SourceReference
from threadbridge.storage.content import content_of

WIRE = Path(__file__).parents[1] / "wire"
CASES = sorted(
    path.name.removesuffix(".post.json")
    for path in WIRE.glob("threads_*.post.json")
    if "post" in json.loads(path.read_text(encoding="utf-8"))
)
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
IDS = Ids("https://bridge.example")
ACCOUNT = Account(
    7, "mira", "Mira", "", None, None, None, AccountState.ACTIVE, True, NOW, None, 0, 0, 1, NOW
)  # fmt: skip
TYPES = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/mp4"}
# The same in every note, and tested where it is made.
ALIKE = (
    "id", "attributedTo", "conversation", "context", "replies", "likes", "shares", "interactionPolicy", "to", "cc"
)  # fmt: skip


def source_post(given: dict[str, Any]) -> SourcePost:
    """A post from its lean JSON."""
    read: dict[str, Any] = {"text": "", **given}
    for name in ("published", "expires_at"):
        if read.get(name):
            read[name] = datetime.fromisoformat(read[name])
    for name in ("parent", "quoted", "reposted"):
        if read.get(name):
            read[name] = SourceReference(**read[name])
    if read.get("poll"):
        poll = read["poll"]
        ends = datetime.fromisoformat(poll["closes_at"]) if poll.get("closes_at") else None
        votes = tuple(poll["votes"]) if poll.get("votes") is not None else None
        read["poll"] = SourcePoll(tuple(poll["options"]), votes, ends)
    read["media"] = tuple(SourceMedia(**item) for item in read.get("media", ()))
    read["spoilers"] = tuple((start, end) for start, end in read.get("spoilers", ()))
    return SourcePost(**read)


def copied(position: int, item: SourceMedia) -> Attachment:
    """An attachment as it is held after its file was copied; without an address there was nothing to copy."""
    if item.url is None:
        return Attachment(position, item.kind, item.alt, None, None, missing="the source names no file")
    digest = hashlib.sha256(item.key.encode()).hexdigest()
    return Attachment(position, item.kind, item.alt, digest, TYPES[item.kind], 1, 800, 600)


def held(source: SourcePost) -> Post:
    """The post as it is stored."""
    content = content_of(source, parent_id=None, quoted_id=None, language="en")
    columns = {field.name: getattr(content, field.name) for field in dataclasses.fields(content)}
    del columns["tags"]
    return Post(
        id=42, account_id=7, updated=None, thread_id=None, silent=False, deleted_at=None, likes_count=0,
        shares_count=0, replies_count=0,
        attachments=tuple(copied(position, item) for position, item in enumerate(source.media)), **columns,
    )  # fmt: skip


def said(case: str) -> dict[str, Any]:
    """What `<case>.note.json` should hold."""
    source = source_post(json.loads((WIRE / f"{case}.post.json").read_text(encoding="utf-8"))["post"])
    reason = kept_out(source)
    if reason is not None:
        return {"not_bridged": reason}
    return outgoing.note(IDS, ACCOUNT, held(source), outgoing.PostSurroundings(), NOW)


def lean(note: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in note.items() if name not in ALIKE}


@pytest.mark.parametrize("case", CASES)
def test_a_post_becomes_its_note(case: str) -> None:
    expected = json.loads((WIRE / f"{case}.note.json").read_text(encoding="utf-8"))
    note = said(case)
    assert lean(note) == expected
    if "not_bridged" not in note:
        document = outgoing.with_context(note)
        for peer in (mastodon, gotosocial, misskey, akkoma, takahe, lemmy, pixelfed, threads):
            peer.check_note(document)


@pytest.mark.parametrize("case", CASES)
def test_who_may_answer_is_said_where_not_everybody_may(case: str) -> None:
    source = source_post(json.loads((WIRE / f"{case}.post.json").read_text(encoding="utf-8"))["post"])
    note = said(case)
    if "not_bridged" in note:
        return
    expected: dict[str, Any] = {"canQuote": {"automaticApproval": [outgoing.ACTIVITYSTREAMS + "#Public"]}}
    if source.audience != "everyone":
        me = IDS.actor(7)
        followers = [f"{me}/followers"] if source.audience == "followers_only" else []
        expected["canReply"] = {"automaticApproval": [me, *followers]}
    assert note["interactionPolicy"] == expected


def test_there_are_no_notes_without_a_post() -> None:
    assert {path.name.removesuffix(".note.json") for path in WIRE.glob("threads_*.note.json")} == set(CASES)
