"""Trying again what its owner wants tried again.

Rule: a button asks for a job, once however often it is pressed; the job moves rows of the ledger by chunks, and what
may go when is decided as for everything else (`turns`).
"""

from __future__ import annotations

import structlog

from threadbridge.domain.accounts import AccountState
from threadbridge.errors import Conflict, NotFound
from threadbridge.storage import accounts, decisions, jobs, posts, receipts
from threadbridge.storage.jobs import Job
from threadbridge.storage.receipts import Prospect
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

AGAIN = "again"
"""The kind of job; its key is the post's number, with the server's name for one server alone."""


def ask(tx: Tx, account_id: int, post_id: int, host: str | None, asked_by: str) -> Prospect:
    """Ask that everything about a post, or what goes to one server, be tried now; returns what that comes to. Raises
    NotFound for somebody else's post, Conflict for an account that is deleted."""
    post, account = posts.by_id(tx, account_id, post_id), accounts.by_id(tx, account_id)
    if post is None or account is None:
        raise NotFound("There is no such post among yours")
    if account.state is AccountState.GONE:
        raise Conflict("This account is deleted: nothing is tried again by hand")
    arguments = {"account": account_id, "post": post_id, "host": host}
    jobs.add(tx, AGAIN, jobs.key_of(f"{post_id} {host}" if host else str(post_id)), arguments)
    words = f"tried again at {host}" if host else "tried again wherever it has not arrived"
    decisions.write(
        tx, "Receipts", f"{words}, asked for by {asked_by}", subject=f"post {post_id}", host=host or "",
        account_id=account_id,
    )  # fmt: skip
    log.info("deliveries are to be tried again", account=account_id, post=post_id, host=host, asked_by=asked_by)
    return receipts.prospect(tx, account_id, post_id, host)


def step(tx: Tx, job: Job) -> bool:
    """Move the next chunk; True while there is more."""
    if not jobs.progress(tx, job, job.arguments):
        return False
    account_id, post_id = int(job.arguments["account"]), int(job.arguments["post"])
    host, after = job.arguments.get("host"), int(job.arguments.get("after", 0))
    moved, rest = receipts.try_again(tx, account_id, post_id, host=host, after=after)
    log.info("deliveries are tried again", account=account_id, post=post_id, host=host, deliveries=moved)
    if rest is None:
        jobs.finish(tx, job)
        return False
    job.arguments["after"] = rest
    jobs.progress(tx, job, job.arguments)
    return True
