"""The time before new posts leave: an owner may think again.

Rule: while a post is held nothing leaves and nobody else can read it; what its source says meanwhile folds into it,
and if its source takes it back, it never was. A thread leaves in its order, and nothing of it when its beginning
stays. While an account is paused nothing leaves, and what was to leave before is shown afterwards, silently.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.bridge import compare
from threadbridge.domain.accounts import AccountState
from threadbridge.errors import Conflict, NotFound
from threadbridge.storage import accounts, connections, decisions, held, jobs
from threadbridge.storage.held import Held
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

AFTER_ALL = timedelta(days=1)
"""How old a post may be that is shared although it was not to be: it would stand on top of timelines."""


def choose(tx: Tx, account_id: int, minutes: int, asked_by: str) -> None:
    """Hold new posts for so many minutes. Raises Invalid."""
    held.choose(tx, account_id, minutes)
    log.info("new posts are held", account=account_id, minutes=minutes, asked_by=asked_by)


def send_now(tx: Tx, account_id: int, held_id: int, asked_by: str) -> None:
    """Let a held post leave now, and before it what it continues. Raises NotFound, Conflict."""
    found = _found(tx, account_id, held_id)
    if found.state == "unshared" and found.post.published < tx.now - AFTER_ALL:
        raise Conflict("This post is older than a day", hint="It stays unshared; post it again at the source.")
    held.leave_now(tx, account_id, [found.id, *held.line_of(tx, found, before=True)])
    _decided(tx, found, f"sent before its time by {asked_by}")


def cancel(tx: Tx, account_id: int, held_id: int, asked_by: str) -> None:
    """Do not share a held post, nor what continues it. Raises NotFound, Conflict."""
    found = _found(tx, account_id, held_id)
    if not held.unshare(tx, account_id, [found.id], f"{asked_by} chose not to share it"):
        raise Conflict("This post is not shared anyway", hint=found.reason)
    after = held.line_of(tx, found, before=False)
    held.unshare(tx, account_id, after, "it continues a post that is not shared")
    _decided(tx, found, f"not shared, as {asked_by} chose")


def _found(tx: Tx, account_id: int, held_id: int) -> Held:
    # The same lock under which posts leave, so that one and the same post is not sent and kept.
    connections.lock(tx, account_id)
    found = held.by_id(tx, account_id, held_id)
    if found is None:
        raise NotFound("There is no such held post", hint="It may have left meanwhile, or is gone at its source.")
    return found


def _decided(tx: Tx, found: Held, words: str) -> None:
    log.info("a held post", account=found.account_id, post=found.post.native_id, what=words)
    decisions.write(
        tx, "Hold", words, subject=found.post.permalink or found.post.native_id, host="", account_id=found.account_id
    )


# ── the job ──────────────────────────────────────────────────────────────────────────────────────────────────────


def step(tx: Tx, ids: Ids, job: Job) -> bool:
    """Let the next held post leave whose time is over; False when none is left to leave now."""
    account_id = int(job.arguments["account"])
    connections.lock(tx, account_id)
    if not jobs.progress(tx, job, job.arguments):
        return False
    account = accounts.by_id(tx, account_id)
    if account is None or account.state is not AccountState.ACTIVE:
        # Whoever resumes the account asks anew.
        jobs.finish(tx, job)
        return False
    found = held.foremost(tx, account_id)
    if found is None:
        due_at = held.next_due(tx, account_id)
        if due_at is None:
            jobs.finish(tx, job)
        else:
            jobs.again(tx, job, due_at)
        return False
    connection = connections.of_account(tx, account_id)
    speaks_since = connection.speaks_since if connection is not None else None
    said = found.post.published > tx.now - compare.OUTAGE and (
        speaks_since is None or found.post.published >= speaks_since.replace(microsecond=0)
    )
    compare.share(tx, ids, found, said=said)
    log.info("a held post has left", account=account_id, post=found.post.native_id, said=said)
    return True
