"""Telling followers that an actor document changed: by itself, once, and only when it really did.

Rule: what was told last is known by its hash. Whatever happens within a moment is told together, an account is told
of at most every few minutes, and nothing is said when what is told would be what is known. A newer program may change
the documents of all accounts at once: that is noticed by looking them over now and then, and told one after another.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import AccountState
from threadbridge.storage import accounts, jobs, profiles
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

CHUNK = 50
"""Accounts that are looked over in one transaction."""
APART = timedelta(seconds=5)
"""Between two accounts whose documents a newer program changed: ten thousand of them are told within a day."""

UNKNOWN = "unknown"
"""What stands in place of a hash while it is not known what followers were told."""


def tell(tx: Tx, ids: Ids, job: Job) -> None:
    """Tell the followers of one account what its document says now, unless they know."""
    account_id = int(job.arguments["account"])
    # A deletion that begins meanwhile waits: after its Delete an account says nothing.
    accounts.lock(tx, account_id)
    account = accounts.by_id(tx, account_id)
    if account is not None and account.state is AccountState.ACTIVE:
        described = profiles.document(tx, ids, account)
        digest = profiles.digest(described)
        if digest != accounts.announced(tx, account_id):
            if account.followers_count:
                outbox.announce_profile(tx, ids, account, described, bulk=bool(job.arguments.get("bulk")))
                log.info("a changed profile is told", account=account_id)
            else:
                accounts.set_announced(tx, account_id, digest, told=False)
    jobs.finish(tx, job)


def look_over(tx: Tx, ids: Ids, after_id: int, place: int) -> tuple[int, int] | None:
    """Compare the next accounts with what was told of them, and ask for those that differ to be told, `place` being
    how many are before them. Returns where to go on, or None at the end."""
    some = accounts.after(tx, after_id, CHUNK)
    for account in some:
        known = accounts.announced(tx, account.id)
        digest = profiles.digest(profiles.document(tx, ids, account))
        if digest == known:
            continue
        if known == "" or not account.followers_count:
            # Nothing was told yet: whoever follows has read the document itself.
            accounts.set_announced(tx, account.id, digest, told=False)
        elif known is None:
            # Met for the first time after an upgrade. Nothing is sent because a program was started: the next look,
            # hours later, has them told.
            accounts.set_announced(tx, account.id, UNKNOWN, told=False)
        else:
            due_at = tx.now + APART * place
            # In bulk: a newer program changed them all. Unless their owner asked meanwhile, which is not undone here.
            wanted = {"account": account.id, "bulk": True}
            if not jobs.wanted(tx, accounts.ANNOUNCE, str(account.id)):
                jobs.add(tx, accounts.ANNOUNCE, str(account.id), wanted, due_at=due_at)
            place += 1
    return (some[-1].id, place) if len(some) == CHUNK else None
