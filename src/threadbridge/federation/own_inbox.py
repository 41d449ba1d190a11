"""What one account here says to another: handed over in this process, never sent to ourselves.

Rule: nothing is believed for being our own. The bytes of the ledger are signed with the account's key as for every
server, the signature is read and verified as every other, and what follows is `inbox.receive`; only the wire is left
out. (Ghost's posts to other tenants of the same service went out and back through the public address: that used up
the ports of its NAT.) The key is looked up in our own table, so nobody is asked for anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlsplit

import orjson
import structlog

from threadbridge.activitypub import document, incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.incoming import Activity
from threadbridge.delivery.retry import Answer
from threadbridge.domain.accounts import AccountState
from threadbridge.domain.people import Peer
from threadbridge.errors import Forbidden, Invalid, SignatureRefused, ThreadbridgeError
from threadbridge.federation import inbox
from threadbridge.federation.heard import Heard, PreparedNote, TurnedAway, prepare
from threadbridge.net.peers import peer_of
from threadbridge.signatures import schemes
from threadbridge.signatures.keys import SigningKey, verifying_key
from threadbridge.signatures.schemes import Verified
from threadbridge.storage import accounts, keys, peers, profiles
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

_CONTENT_TYPE = "application/activity+json"


class OwnInbox:
    """Takes what accounts here say to accounts here."""

    def __init__(self, store: Store, ids: Ids, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock

    async def hand_over(self, account_id: int, url: str, body: bytes, key: SigningKey) -> Answer:
        """Let what an account says arrive at an inbox of ours. The answer is what the inbox would have given."""
        try:
            outcome = await self._heard(account_id, url, body, key)
        except SignatureRefused as error:
            return _refused(401, error)
        except Forbidden as error:
            return _refused(403, error)
        except Invalid as error:
            return _refused(400, error)
        except ThreadbridgeError as error:
            return Answer(None, error.public)
        return outcome

    async def _heard(self, account_id: int, url: str, body: bytes, key: SigningKey) -> Answer:
        speaker = await self._store.read(_speaker, self._ids, account_id, key.key_id)
        if speaker is None:
            # Deleted, and never met by anybody here: there is nothing to forget.
            return Answer(202)
        peer, pem, stored = speaker
        verified = await asyncio.to_thread(self._verified, url, body, key, peer, pem)
        activity = incoming.read(document.decode(body))
        note = await asyncio.to_thread(self._prepared, activity, account_id, body)
        if isinstance(activity, incoming.Update) and activity.profile is not None:
            peer, stored = peer_of(incoming.read_actor(activity.profile)), False
        heard = Heard(self._ids, peer, note, peer_is_news=not stored, host_is_news=False)
        outcome = await self._store.transact(inbox.receive, verified, activity, heard)
        if isinstance(outcome, TurnedAway):
            log.info("turned away", door=inbox.kind_of(activity), reason=outcome.reason, actor=activity.actor,
                     activity=activity.id, silently=outcome.silently)  # fmt: skip
            if not outcome.silently:
                return Answer(403, body=outcome.reason.encode())
        log.debug("handed over", kind=inbox.kind_of(activity), actor=activity.actor, outcome=str(outcome))
        return Answer(202)

    def _verified(self, url: str, body: bytes, key: SigningKey, peer: Peer, pem: str) -> Verified:
        now = self._clock()
        headers = schemes.sign(
            "cavage", key, method="POST", url=url, body=body, date=now, content_type=_CONTENT_TYPE
        )  # fmt: skip
        received = {"host": urlsplit(url).netloc, **{name.lower(): value for name, value in headers.items()}}
        request = schemes.Request("POST", urlsplit(url).path, list(received.items()), body)
        claim = schemes.read_claim(request, base_url=self._ids.base, now=now)
        return schemes.verify(claim, verifying_key(pem), owner=peer.uri)

    def _prepared(self, activity: Activity, account_id: int, body: bytes) -> PreparedNote | None:
        if not isinstance(activity, incoming.Create | incoming.Update | incoming.Request) or activity.note is None:
            return None
        note = prepare(activity.note, orjson.dumps(orjson.loads(body).get("object")).decode())
        before = self._ids.post_ids(note.in_reply_to) if note.in_reply_to else None
        if before is not None and before[0] == account_id:
            # It continues the author's own thread, which is no answer to it.
            note = replace(note, in_reply_to=None)
        return note


def _speaker(tx: Tx, ids: Ids, account_id: int, key_id: str) -> tuple[Peer, str, bool] | None:
    """(the account as its own document says, the public key of `key_id`, whether it is known here as a person)."""
    account = accounts.by_id(tx, account_id)
    me = ids.actor(account_id)
    pem = {f"{me}#{own.fragment}": own.public_pem for own in keys.every(tx, account_id)}.get(key_id)
    if account is None or pem is None:
        raise SignatureRefused("The key is not one of this account", detail=key_id)
    if account.state is AccountState.GONE:
        known = peers.by_uri(tx, ids.actor(account_id))
        return (known, pem, True) if known is not None else None
    stored = peers.known(tx, ids.actor(account_id))
    return peer_of(incoming.read_actor(profiles.document(tx, ids, account))), pem, stored


def _refused(status: int, error: ThreadbridgeError) -> Answer:
    log.info("what an account here said was refused here", status=status, reason=error.public, detail=error.detail)
    return Answer(status, body=error.public.encode())
