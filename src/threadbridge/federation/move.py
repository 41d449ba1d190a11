"""Somebody moves to another account.

Rule: update, do not lose. A Move is believed when the new account, asked at its own origin, names the old one and has
not moved itself; then each follow of the old account points to the new one, and goes on until the Follow comes that
the new server sends by itself. That one is accepted at once, and ends the old. Nobody whom a rule suspends, or whom
the owner sent away, under the new id comes in by this way: their old follow stays what it is.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from threadbridge.activitypub import incoming
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.domain.blocks import Standing
from threadbridge.domain.people import Peer
from threadbridge.errors import AddressRefused, BadAnswer, NetworkError
from threadbridge.federation import admission, follow
from threadbridge.federation.heard import Heard
from threadbridge.net.peers import Peers, peer_of
from threadbridge.storage import decisions, followers, jobs, peers
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

CONFIRM = "confirm_move"
AGAIN_AFTER = timedelta(days=7)
"""As long as Mastodon and GoToSocial take no second Move of one account."""
ATTEMPTS = 6


def received(tx: Tx, activity: incoming.Move, heard: Heard) -> str | None:
    """A follower says that they moved: asked about at the new place, by a job."""
    if not followers.follows_anybody(tx, activity.actor):
        return "moves, and follows nobody here"
    if activity.target.startswith(heard.ids.base + "/"):
        return "moves to an account here, which follows nobody"
    moved_at = peers.moved_at(tx, activity.actor)
    if moved_at is not None and moved_at > tx.now - AGAIN_AFTER:
        return _refused(tx, activity.actor, "moved a short while ago already")
    jobs.add(tx, CONFIRM, jobs.key_of(activity.actor), {"from": activity.actor, "to": activity.target})
    return None


def _refused(tx: Tx, actor: str, reason: str) -> str:
    log.info("a move was not believed", actor=actor, reason=reason)
    decisions.write(tx, "Move", reason, subject=actor, host=host_of(actor))
    return reason


async def confirm(store: Store, ids: Ids, remote: Peers, job: Job) -> None:
    """Ask the new account whether it is the old one's. Raises NetworkError when asking again later is right."""
    old, new = str(job.arguments["from"]), str(job.arguments["to"])
    if (refusal := await store.read(admission.refusal_of, new)) is not None:
        await store.transact(_end_unbelieved, job, old, f"not carried: {refusal}")
        return
    try:
        described = await remote.described(new)
    except NetworkError as error:
        if _temporary(error) and job.attempts + 1 < ATTEMPTS:
            raise
        await store.transact(_end_unbelieved, job, old, "the new account could not be read")
        return
    if described.moved_to is not None:
        await store.transact(_end_unbelieved, job, old, "the new account has moved itself")
    elif old not in described.also_known_as:
        await store.transact(_end_unbelieved, job, old, "the new account does not name the old one")
    else:
        await store.transact(_carry, ids, job, old, peer_of(described))


def _temporary(error: NetworkError) -> bool:
    if isinstance(error, BadAnswer):
        return error.status is not None and (error.status >= 500 or error.status == 429)
    return not isinstance(error, AddressRefused)


def _end_unbelieved(tx: Tx, job: Job, old: str, reason: str) -> None:
    _refused(tx, old, reason)
    jobs.finish(tx, job)


def _carry(tx: Tx, ids: Ids, job: Job, old: str, new: Peer) -> None:
    moved_at = peers.moved_at(tx, old)
    if moved_at is not None and moved_at > tx.now - AGAIN_AFTER:
        # Said twice, the second time while the first was looked up.
        _end_unbelieved(tx, job, old, "moved a short while ago already")
        return
    if not jobs.finish(tx, job):
        return
    operators = admission.ruling_about(tx, new.uri, None, new.handle)
    if operators.standing is Standing.SUSPENDED:
        _refused(tx, old, f"not carried: {operators.reason}")
        return
    peers.save(tx, new, host_of(new.uri))
    peers.mark_moved(tx, old, new.uri)
    for account_id in followers.accounts_of(tx, old):
        if (reason := _unwelcome(tx, account_id, new)) is not None:
            log.info("a move was not followed", account=account_id, actor=old, to=new.uri, reason=reason)
            decisions.write(
                tx, "Move", f"not carried: {reason}", subject=new.uri, host=host_of(new.uri), account_id=account_id
            )
            continue
        followers.carry(tx, account_id, old, new.uri)
        log.info("a follower has moved", account=account_id, actor=old, to=new.uri)
        decisions.write(
            tx, "Move", f"a follower has moved to {new.uri}"[:200], subject=old, host=host_of(old),
            account_id=account_id,
        )  # fmt: skip
        follow.arrived(tx, ids, account_id, new)


def _unwelcome(tx: Tx, account_id: int, new: Peer) -> str | None:
    """Why a follow of this account does not go on under the new id; None if it does."""
    ruling = admission.ruling_about(tx, new.uri, account_id, new.handle)
    if ruling.standing is Standing.SUSPENDED:
        return ruling.reason
    return "sent away by the owner" if follow.sent_away(tx, account_id, new.uri) else None
