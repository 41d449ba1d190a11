"""Follow and its Undo, Block, which ends a follow from the other side, and what the owner decides about followers.

Rule: whoever asks hears from us: an Accept at once, or once the owner has let them in, else a Reject; each with their
own Follow inside and to their personal inbox, since somebody is waiting in front of a button.
"""

from __future__ import annotations

import structlog

from threadbridge.activitypub import incoming, outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.people import Peer
from threadbridge.errors import Conflict, NotFound
from threadbridge.federation import admission
from threadbridge.federation.heard import Heard
from threadbridge.storage import accounts, decisions, followers, jobs, peers, requests
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

LET_IN = "let_in"
"""The kind of job that lets in everybody who waits, when the owner stops approving by hand."""
CHUNK = 200


def received(tx: Tx, activity: incoming.Follow, heard: Heard) -> str | None:
    """Take a new follower and say so; say it again when somebody presses the button again (their server has lost the
    follow, and shows "requested" until it hears from us). Where the owner lets followers in by hand, the new ones
    wait; whoever follows already, or was let in before they moved here from another server, does not."""
    account_id = heard.ids.account_id(activity.object)
    account = accounts.by_id(tx, account_id) if account_id is not None else None
    if account is None or account.state is AccountState.GONE:
        return "follows nobody here"
    peer = heard.peer
    if peer.moved_to:
        return "follower has moved away"
    former = _let_in_before(tx, account.id, peer.uri)
    welcome = former or followers.follow_uri(tx, account.id, peer.uri) is not None
    if account.approves_followers and not welcome:
        if requests.ask(tx, account.id, peer.uri, activity.id):
            log.info("a follow waits for the owner", account=account.id, actor=peer.uri)
        return None
    _let_in(tx, heard.ids, account.id, peer, activity.id)
    for old in former:
        followers.end(tx, account.id, old, cause="moved")
        _decided(tx, account.id, "Move", "a follower has arrived at their new account", peer.uri)
    return None


def arrived(tx: Tx, ids: Ids, account_id: int, peer: Peer) -> None:
    """A move is confirmed after the new account's own Follow came: it is let in if it waits, and the old one ends."""
    if not admission.may_read(tx, peer.uri, account_id, peer.handle):
        return
    former = _let_in_before(tx, account_id, peer.uri)
    waits = requests.waiting(tx, account_id, peer.uri)
    if former and waits is not None:
        _let_in(tx, ids, account_id, peer, waits)
    if followers.follow_uri(tx, account_id, peer.uri) is not None:
        for old in former:
            followers.end(tx, account_id, old, cause="moved")


def _let_in_before(tx: Tx, account_id: int, peer_uri: str) -> list[str]:
    """Under which former ids somebody was let in; under none if the owner sent them away under this one."""
    return [] if sent_away(tx, account_id, peer_uri) else followers.carried(tx, account_id, peer_uri)


def sent_away(tx: Tx, account_id: int, peer_uri: str) -> bool:
    """Whether the owner removed or rejected somebody, and has not let them in since."""
    return followers.removed(tx, account_id, peer_uri) or requests.rejected(tx, account_id, peer_uri)


def _let_in(tx: Tx, ids: Ids, account_id: int, peer: Peer, follow_uri: str) -> None:
    followers.follow(tx, account_id, peer, follow_uri)
    requests.end(tx, account_id, peer.uri, "approved")
    said = outgoing.accept(
        ids,
        account_id,
        ids.accept(account_id, follow_uri, tx.now),
        outgoing.follow_said(follow_uri, peer.uri, ids.actor(account_id)),
    )
    outbox.answer(tx, account_id, said, peer.inbox, about=outbox.relation(ids, account_id, peer.uri))


def _turn_away(tx: Tx, ids: Ids, account_id: int, peer: Peer, follow_uri: str) -> None:
    followed = outgoing.follow_said(follow_uri, peer.uri, ids.actor(account_id))
    said = outgoing.reject(ids, account_id, ids.reject(account_id, follow_uri, tx.now), followed)
    outbox.answer(tx, account_id, said, peer.inbox, about=outbox.relation(ids, account_id, peer.uri))


def _decided(tx: Tx, account_id: int, kind: str, reason: str, subject: str) -> None:
    log.info(reason, kind=kind, account=account_id, actor=subject)
    decisions.write(tx, kind, reason, subject=subject, host=host_of(subject), account_id=account_id)


def undone(tx: Tx, activity: incoming.UndoOf, heard: Heard) -> str | None:
    """End a follow, or the wish to follow, named by its id or by whom it follows."""
    if activity.inner_kind not in (None, "Follow"):
        return "undoes something else"
    account_id = heard.ids.account_id(activity.inner_object) if activity.inner_object else None
    if account_id is None and activity.inner_id:
        account_id = followers.account_followed_by(tx, activity.inner_id, activity.actor)
        if account_id is None:
            account_id = requests.account_asked(tx, activity.inner_id, activity.actor)
    if account_id is None:
        return "undoes nothing we know"
    ended = followers.end(tx, account_id, activity.actor, cause="unfollowed")
    withdrawn = requests.end(tx, account_id, activity.actor, "withdrawn")
    return None if ended or withdrawn else "undoes nothing we know"


def blocked(tx: Tx, activity: incoming.Block, heard: Heard) -> str | None:
    """Somebody blocks an account of ours: they do not want its posts any more."""
    account_id = heard.ids.account_id(activity.object)
    if account_id is None:
        return "blocks nobody here"
    withdrawn = requests.end(tx, account_id, activity.actor, "withdrawn")
    if not followers.end(tx, account_id, activity.actor, cause="blocked") and not withdrawn:
        return "blocks nobody who follows"
    return None


# ── what the owner decides ───────────────────────────────────────────────────────────────────────────────────────


def approve(tx: Tx, ids: Ids, account_id: int, peer_uri: str) -> None:
    """Let somebody in who waits; raises NotFound when they do not (any more), Conflict when a rule suspends them."""
    follow_uri, peer = _who_waits(tx, account_id, peer_uri)
    if (refusal := admission.refusal_of(tx, peer_uri, account_id=account_id)) is not None:
        raise Conflict(f"They cannot be let in: {refusal}", hint="Lift the rule first.")
    _let_in(tx, ids, account_id, peer, follow_uri)


def reject(tx: Tx, ids: Ids, account_id: int, peer_uri: str) -> None:
    """Send somebody away who waits; raises NotFound when they do not (any more)."""
    follow_uri, peer = _who_waits(tx, account_id, peer_uri)
    requests.end(tx, account_id, peer_uri, "rejected")
    _turn_away(tx, ids, account_id, peer, follow_uri)


def _who_waits(tx: Tx, account_id: int, peer_uri: str) -> tuple[str, Peer]:
    follow_uri, peer = requests.waiting(tx, account_id, peer_uri), peers.by_uri(tx, peer_uri)
    if follow_uri is None or peer is None:
        raise NotFound("Nobody of that address waits to follow", hint="Look at the list anew: they may have gone.")
    return follow_uri, peer


def remove(tx: Tx, ids: Ids, account_id: int, peer_uri: str) -> None:
    """End a follow from our side: a Reject of the Follow that was accepted is how servers understand it. Raises
    NotFound."""
    follow_uri, peer = followers.follow_uri(tx, account_id, peer_uri), peers.by_uri(tx, peer_uri)
    if follow_uri is None or not followers.end(tx, account_id, peer_uri, cause="removed"):
        raise NotFound("Nobody of that address follows", hint="Look at the list anew: they may have gone.")
    if peer is not None:
        _turn_away(tx, ids, account_id, peer, follow_uri)


def choose_approval(tx: Tx, ids: Ids, account: Account, on: bool) -> bool:
    """Let followers in by hand from now on, or everybody again, those who wait included. False if it was so."""
    if not accounts.set_approval(tx, account.id, on):
        return False
    changed = accounts.by_id(tx, account.id)
    assert changed is not None
    outbox.announce_profile(tx, ids, changed)
    if not on:
        jobs.add(tx, LET_IN, str(account.id), {"account": account.id})
    return True


def let_in_some(tx: Tx, ids: Ids, job: Job) -> bool:
    """Let in the next who wait; False when nobody is left, or the owner wants to approve by hand again."""
    account_id = int(job.arguments["account"])
    account = accounts.by_id(tx, account_id)
    open_again = account is not None and not account.approves_followers and account.state is not AccountState.GONE
    waiting = requests.page(tx, account_id, limit=CHUNK) if open_again else []
    for _, request in waiting:
        follow_uri, peer = requests.waiting(tx, account_id, request.peer_uri), peers.by_uri(tx, request.peer_uri)
        refusal = admission.refusal_of(tx, request.peer_uri, account_id=account_id)
        if refusal is not None:
            # The rule is so new that nobody has parked the request yet.
            requests.end(tx, account_id, request.peer_uri, "suspended")
            _decided(tx, account_id, "Follow", f"not let in: {refusal}", request.peer_uri)
        elif follow_uri is not None and peer is not None:
            _let_in(tx, ids, account_id, peer, follow_uri)
        else:
            requests.end(tx, account_id, request.peer_uri, "withdrawn")
    if len(waiting) < CHUNK:
        jobs.finish(tx, job)
        return False
    return True
