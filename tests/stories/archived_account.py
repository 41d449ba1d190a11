"""An account with something of everything, for the tests of archives; and ways to take an archive apart."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from threadbridge.activitypub.ids import Ids
from threadbridge.domain.people import Peer, Reply
from threadbridge.domain.source import SourcePoll
from threadbridge.media.store import MediaStore
from threadbridge.portability.archive import ArchiveSummary, write_archive
from threadbridge.storage import (
    accounts,
    contacts,
    followers,
    ledger,
    peers,
    posts,
    reactions,
    replies,
    schema,
)
from threadbridge.storage.contacts import Contact
from threadbridge.storage.posts import MediaRow, NewAttachment, PostContent
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import NewKey, Vault, new_rsa_key, new_token, token_hash

BASE = "https://bridge.example"
IDS = Ids(BASE)
START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
TOKEN = "THQWJtoken-that-nobody-may-see"
VAULT_KEY = bytes(range(32))


class Clock:
    """A clock that moves on by a second with every look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@dataclass
class Place:
    """A database, a media folder and one account with the handle `anna`."""

    store: Store
    media: MediaStore
    vault: Vault
    key: NewKey
    account_id: int
    data_dir: Path


@cache
def rsa_key() -> NewKey:
    return new_rsa_key()


@contextmanager
def place(folder: Path, url: str | None = None) -> Iterator[Place]:
    """A new place in `folder`, with an account that has nothing yet."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store.open(url or f"sqlite:///{folder / 'test.sqlite3'}", clock=Clock())
    media = MediaStore(folder / "media")
    vault = Vault(VAULT_KEY)
    try:
        schema.metadata.create_all(store.engine)
        account = store.transact_now(
            accounts.create,
            vault,
            rsa_key(),
            handle="anna",
            name="Anna Ö. 🌻",
            bio="Gardens and #bikes",
            source_url="https://www.threads.com/@anna",
            joined_at=START,
            consent_kind="download",
            consent_wording="imported by the operator",
        )
        yield Place(store, media, vault, rsa_key(), account.id, folder)
    finally:
        media.close()
        store.close()


def put_file(here: Place, content: bytes, media_type: str = "image/jpeg") -> str:
    """Put a file into the media store without looking at it; returns its hash."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = here.media.path(sha256, media_type)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    row = MediaRow(sha256, media_type, len(content), 640, 480, None, "LEHV6nWB2yk8pyo0adR*.7kCMdnj")
    here.store.transact_now(posts.add_media, row)
    return sha256


def add_post(here: Place, text: str, *attachments: NewAttachment, minutes: int = 0, **content: Any) -> int:
    said = PostContent(
        kind=content.pop("kind", "post"),
        text=text,
        language=content.pop("language", "de"),
        published=START + timedelta(minutes=minutes),
        **content,
    )
    return here.store.transact_now(posts.add, here.account_id, said, attachments, silent=True)


def picture(sha256: str, alt: str = "") -> NewAttachment:
    return NewAttachment("image", alt, sha256[:8], sha256)


def peer(number: int) -> Peer:
    uri = f"https://social.example/users/p{number}"
    return Peer(
        uri=uri,
        inbox=f"{uri}/inbox",
        shared_inbox="https://social.example/inbox",
        handle=f"p{number}@social.example",
        name=f"Person {number}",
        url=f"https://social.example/@p{number}",
        key_id=f"{uri}#main-key",
        key_pem="-----BEGIN PUBLIC KEY-----\nnot one\n-----END PUBLIC KEY-----\n",
    )


def fill(here: Place) -> None:
    """Something of everything."""
    store, me = here.store, here.account_id
    avatar = put_file(here, b"\xff\xd8\xff avatar")
    store.transact_now(accounts.update_profile, me, avatar=avatar)
    one, two = put_file(here, b"\xff\xd8\xff one"), put_file(here, b"\x89PNG two", "image/png")
    film = put_file(here, b"\x00\x00\x00\x18ftypmp42 film" * 400, "video/mp4")
    many = [put_file(here, b"\xff\xd8\xff carousel %d" % number) for number in range(18)]
    first = add_post(here, "Guten Morgen 🌞 #Garten", picture(one, "Ein Beet"), picture(two), minutes=1)
    add_post(here, "… weiter im Faden", parent_id=first, minutes=2, kind="reply")
    add_post(here, "Ein Film", NewAttachment("video", "Wellen", "film", film), minutes=3)
    add_post(here, "Achtzehn Bilder", *(picture(sha256) for sha256 in many), minutes=4)
    add_post(here, "Dasselbe Bild noch einmal", picture(one, "Ein Beet"), minutes=5)
    add_post(here, "Was nun?", minutes=6, poll=SourcePoll(("Ja", "Nein"), (3, 4), START + timedelta(days=1)))
    add_post(
        here, "@bob hello", minutes=7, kind="reply", parent_url="https://www.threads.com/@bob/post/x", language="en"
    )
    add_post(here, "", minutes=8, kind="repost", repost_url="https://www.threads.com/@bob/post/y")
    add_post(
        here, "Verloren", NewAttachment("image", "weg", "k", None, "the download does not hold the file"), minutes=9
    )
    gone = add_post(here, "Das ist gelöscht und geheim", picture(put_file(here, b"\xff\xd8\xff deleted")), minutes=10)
    store.transact_now(posts.bury, me, gone)
    store.transact_now(_people, me, first)
    store.transact_now(_secrets, here.vault, me)


def _people(tx: Tx, me: int, post_id: int) -> None:
    for number in range(1, 5):
        someone = peer(number)
        peers.save(tx, someone, "social.example")
        followers.follow(tx, me, someone, f"{someone.uri}/follow")
    followers.end(tx, me, peer(4).uri, cause="undo")
    reactions.react(tx, me, post_id, peer(1).uri, "like", "https://social.example/likes/1")
    reactions.react(tx, me, post_id, peer(2).uri, "announce", "https://social.example/boosts/1")
    for number in (1, 2):
        uri = f"https://social.example/notes/{number}"
        original = {
            "id": uri,
            "type": "Note",
            "attributedTo": peer(number).uri,
            "content": "<p>Schön ❤</p>",
            "x:odd": 1,
        }
        reply = Reply(
            uri,
            post_id,
            peer(number).uri,
            "",
            "",
            None,
            uri,
            "<p>Schön ❤</p>",
            START + timedelta(hours=number),
            None,
            True,
        )
        replies.add(tx, me, reply, json.dumps(original, ensure_ascii=False))
    contacts.add(
        tx,
        me,
        [
            Contact("follower", "carla", 'Carla, "die"', "https://www.threads.com/@carla", START),
            Contact("follower", "ben", "Ben", None, None),
            Contact("following", "dora", "Dora", None, START),
        ],
    )
    uri = IDS.create(me, post_id)
    said = ledger.add_activity(
        tx, account_id=me, uri=uri, kind="Create", order_key=IDS.post(me, post_id), body=b"{}", post_id=post_id
    )
    assert said is not None
    activity = ledger.activity(tx, said)
    assert activity is not None
    ledger.add_deliveries(tx, activity, [("https://social.example/inbox", "social.example")], lane=0)


def _secrets(tx: Tx, vault: Vault, me: int) -> None:
    tx.execute(
        insert(schema.connections).values(
            account_id=me,
            source="threads",
            native_id="17841",
            graph_url="https://graph.threads.net",
            sealed_token=vault.seal(TOKEN.encode(), purpose="x"),
            connected_at=tx.now,
        )
    )
    accounts.add_sign_in_link(tx, me, token_hash(new_token()))


def many_posts(here: Place, count: int, sha256s: list[str] | None = None) -> None:
    """Many posts, quickly; with `sha256s`, one picture each in turn."""

    def add(tx: Tx) -> None:
        rows = [
            {
                "account_id": here.account_id,
                "kind": "post",
                "text": f"Post {number}: " + hashlib.sha256(b"%d" % number).hexdigest() * 6 + " #tag",
                "language": "en",
                "published": START + timedelta(seconds=number),
                "sensitive": False,
                "silent": True,
                "created_at": tx.now,
            }
            for number in range(count)
        ]
        ids = [
            row.id
            for start in range(0, count, 500)
            for row in tx.execute(insert(schema.posts).values(rows[start : start + 500]).returning(schema.posts.c.id))
        ]
        if sha256s:
            tx.execute(
                insert(schema.attachments),
                [
                    {
                        "post_id": post_id, "position": 0, "kind": "image", "alt": "a", "source_key": "k",
                        "sha256": sha256s[index % len(sha256s)],
                    }
                    for index, post_id in enumerate(ids)
                ],
            )  # fmt: skip

    here.store.transact_now(add)


def quiet(phase: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def archive_bytes(here: Place) -> tuple[bytes, ArchiveSummary]:
    """The archive, in memory."""
    out = io.BytesIO()
    with here.store.snapshot() as tx:
        summary = write_archive(tx, IDS, here.media, accounts.named(tx, "anna"), out, quiet)
    return out.getvalue(), summary


def opened(archive: bytes | Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, bytes) else archive)


def document(archive: bytes | Path, name: str) -> Any:
    with opened(archive) as zip_:
        return json.loads(zip_.read(name))


def repacked(archive: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
    """The archive, unpacked, changed and packed again by another program (so without a seal)."""
    with opened(archive) as zip_:
        members = {name: zip_.read(name) for name in zip_.namelist()}
    change(members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as again:
        for name, content in members.items():
            again.writestr(name, content)
    return out.getvalue()


def relisted(members: dict[str, bytes]) -> None:
    """Make the manifests agree with changed members, as a careful forger would."""
    manifest = json.loads(members["manifest.json"])
    types = {line["path"]: line["media_type"] for line in manifest["members"]}
    names = sorted(set(members) - {"manifest.json", "manifest-sha256.txt"})
    manifest["members"] = [
        {
            "path": name,
            "size": len(members[name]),
            "sha256": hashlib.sha256(members[name]).hexdigest(),
            "media_type": types.get(name, "text/plain"),
        }
        for name in names
    ]
    members["manifest.json"] = json.dumps(manifest).encode()
    members["manifest-sha256.txt"] = "".join(
        f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in sorted([*names, "manifest.json"])
    ).encode()
