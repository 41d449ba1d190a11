"""A server without sockets, to which verified activities are told one at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from tests.rig import a_key
from tests.world.deliverable import account, post, rows

from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.incoming import Activity
from threadbridge.domain.blocks import Severity, SubjectKind
from threadbridge.domain.people import Peer
from threadbridge.federation import inbox
from threadbridge.federation.heard import Heard, Outcome, PreparedNote
from threadbridge.signatures.keys import signing_key, verifying_key
from threadbridge.signatures.schemes import Request, Verified, read_claim, sign, verify
from threadbridge.storage import blocks, peers, schema
from threadbridge.storage.blocks import OPERATOR, Entry
from threadbridge.storage.store import Store

BASE = "https://bridge.example"
IDS = Ids(BASE)
_numbers = count(1)


def fresh(word: str) -> str:
    """A name that no other test uses."""
    return f"{word}{next(_numbers)}"


def person(name: str | None = None, host: str | None = None, **given: Any) -> Peer:
    """Somebody on a server of their own."""
    name, host = name or fresh("bob"), host or f"{fresh('server')}.example"
    uri = f"https://{host}/users/{name}"
    found = Peer(
        uri=uri, inbox=f"{uri}/inbox", shared_inbox=f"https://{host}/inbox", handle=f"{name}@{host}", name=name,
        url=None, key_id=f"{uri}#main-key", key_pem="pem",
    )  # fmt: skip
    return replace(found, **given)


def note_of(peer: Peer, **given: Any) -> PreparedNote:
    """A post of theirs."""
    uri = f"{peer.uri}/notes/{next(_numbers)}"
    usual: dict[str, Any] = {
        "uri": uri, "author": peer.uri, "in_reply_to": None, "html": "<p>Hi!</p>", "url": None, "public": True,
        "published": datetime(2026, 1, 1, tzinfo=UTC), "updated": None, "is_vote": False, "original": "{}",
    }  # fmt: skip
    return PreparedNote(**{**usual, **given})


def verified(actor: str) -> Verified:
    """What a checked signature of this actor gives; there is no other way to one."""
    now, body, key_id = datetime.now(UTC), b"{}", f"{actor}#main-key"
    headers = sign(
        "cavage", signing_key(key_id, a_key(1).private_pem), method="POST", url=IDS.shared_inbox, body=body, date=now,
        content_type="application/activity+json",
    )  # fmt: skip
    pairs = [(name.lower(), value) for name, value in headers.items()]
    claim = read_claim(Request("POST", "/ap/inbox", pairs, body), base_url=BASE, now=now)
    return verify(claim, verifying_key(a_key(1).public_pem), owner=actor)


class Hearing:
    """One server, its accounts, and what it makes of what it hears."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def account(self) -> int:
        return account(self.store, fresh("alice"))

    def post(self, account_id: int) -> tuple[int, str]:
        """(number, id) of a new post."""
        number = post(self.store, account_id)
        return number, IDS.post(account_id, number)

    def hears(self, peer: Peer, activity: Activity, note: PreparedNote | None = None, **news: Any) -> Outcome:
        """Somebody sends an activity of their own."""
        return self.store.transact_now(
            inbox.receive, verified(activity.actor), activity, Heard(IDS, peer, note, **news)
        )

    def is_passed(self, peer: Peer, activity: Activity, note: PreparedNote | None = None) -> Outcome:
        """Somebody else forwarded it, and it was looked up at its origin."""
        return self.store.transact_now(inbox.receive_fetched, activity, Heard(IDS, peer, note))

    def knows(self, peer: Peer) -> Peer:
        self.store.transact_now(peers.save, peer, peer.uri.split("/")[2])
        return peer

    def rule(
        self, severity: Severity, subject: str, kind: SubjectKind = "domain", *, owner: int | None = None
    ) -> None:
        held_by = OPERATOR if owner is None else blocks.owner(owner)
        self.store.transact_now(blocks.put, held_by, [Entry(kind, subject, severity)], account_id=owner)

    def rows(self, table: str, **where: Any) -> list[Any]:
        return rows(self.store, table, **where)

    def everything(self) -> dict[str, list[Any]]:
        """All rows but those about refusals themselves."""
        return {
            name: self.rows(name) for name in schema.metadata.tables if name not in ("dropped", "decisions", "jobs")
        }

    def answers(self, account_id: int) -> list[dict[str, Any]]:
        """What an account has said, in order."""
        return [json.loads(bytes(row.body)) for row in self.rows("activities", account_id=account_id)]

    def dropped(self, kind: str, reason: str) -> int:
        return sum(row.times for row in self.rows("dropped", kind=kind, reason=reason))
