"""Who may answer a post that not everybody may answer: what arrives is let through and stamped, or refused.

    judged      an answer came by itself (Mastodon and most others know no policy)   -> kept and told, or Reject
    requested   somebody asks before answering (GoToSocial's ReplyRequest)           -> Accept with a stamp, or Reject

Rule: refused is not stored; its author's server is told in the words that the protocol has, the owner by a decision.
"""

from __future__ import annotations

import structlog

from threadbridge.activitypub import incoming, outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import outbox
from threadbridge.domain.people import Peer
from threadbridge.federation import letting
from threadbridge.federation.heard import Heard
from threadbridge.federation.letting import Let, Refuse
from threadbridge.federation.react import our_post
from threadbridge.storage import decisions, replies, rules, seen
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

UNUSED_PER_SERVER = 200
"""As long as so many answers of one server's people were asked for and never came, no more are let through."""


def judged(
    tx: Tx, ids: Ids | None, account_id: int, post_id: int, uri: str, peer: Peer, *, limited: bool = False
) -> str | None:
    """Why an answer is not kept; None if it is. Without `ids` (it was found, nobody sent it) nothing is said; what
    somebody `limited` answers is not let through before it is shown."""
    allowed = letting.answering(tx, account_id, post_id, peer.uri)
    if isinstance(allowed, Refuse):
        _refused(tx, account_id, uri, peer.uri, allowed.reason)
        if ids is not None:
            answer = outgoing.answer_said(uri, peer.uri, ids.post(account_id, post_id))
            outbox.answer(tx, account_id, outgoing.reject_answer(ids, account_id, answer, tx.now), peer.inbox)
        return allowed.reason
    if ids is not None and not limited:
        _let_through(tx, ids, account_id, post_id, uri, peer, allowed)
    return None


def shown(tx: Tx, ids: Ids, account_id: int, post_id: int, uri: str, peer: Peer) -> None:
    """An answer that was hidden is shown from now on: let through, if that has to be said."""
    allowed = letting.answering(tx, account_id, post_id, peer.uri)
    if isinstance(allowed, Let):
        _let_through(tx, ids, account_id, post_id, uri, peer, allowed)


def _let_through(tx: Tx, ids: Ids, account_id: int, post_id: int, uri: str, peer: Peer, allowed: Let) -> None:
    if not allowed.restricted or rules.approval_of(tx, uri) is not None:
        return
    approval = rules.approve(tx, account_id, post_id, uri, peer.uri)
    if approval is not None:
        answer = outgoing.answer_said(uri, peer.uri, ids.post(account_id, post_id))
        stamp = ids.reply_stamp(account_id, approval.id)
        outbox.let_answer(tx, ids, account_id, answer, stamp, peer.inbox)


def requested(tx: Tx, activity: incoming.Request, heard: Heard) -> str | None:
    """Answer a ReplyRequest; what it lets through arrives afterwards, with our stamp."""
    ids = heard.ids
    found = our_post(tx, ids, activity.object) or replies.target(tx, activity.object)
    if found is None:
        return "about no post of ours"
    account_id, post_id = found
    if seen.heard_of(tx, activity.instrument, activity.actor):
        return "deleted before it came"
    new = rules.approval_of(tx, activity.instrument) is None
    if new and rules.unused_from(tx, host_of(activity.actor)) >= UNUSED_PER_SERVER:
        return "too many answers let through that never came"
    said = outgoing.request_said(activity.kind, activity.id, activity.actor, activity.object, activity.instrument)
    if account_id in heard.limited:
        # Granted, it would be said to everybody before anybody here has looked; asked again later, it is answered.
        return "waits: limited here"
    allowed = letting.answering(tx, account_id, post_id, activity.actor)
    approval = None
    if not isinstance(allowed, Refuse):
        approval = rules.approve(tx, account_id, post_id, activity.instrument, activity.actor)
    if approval is None:
        reason = allowed.reason if isinstance(allowed, Refuse) else "the answer was deleted"
        _refused(tx, account_id, activity.instrument, activity.actor, reason)
        outbox.answer(tx, account_id, outgoing.reject_request(ids, account_id, said, tx.now), heard.peer.inbox)
        return reason
    stamp = ids.reply_stamp(account_id, approval.id)
    outbox.answer(tx, account_id, outgoing.accept_request(ids, account_id, said, stamp, tx.now), heard.peer.inbox)
    return None


def _refused(tx: Tx, account_id: int, uri: str, peer_uri: str, reason: str) -> None:
    log.info("an answer was refused", account=account_id, answer=uri, actor=peer_uri, reason=reason)
    decisions.write(tx, "reply", reason, subject=uri, host=host_of(peer_uri), account_id=account_id)
