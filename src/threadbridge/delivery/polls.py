"""Polls: when their figures are said anew.

Rule: figures that move are said at most once in `EVERY`, however many vote (Mastodon does the same), and once more
when the poll has closed. What is said is what is known then.
"""

from __future__ import annotations

from datetime import timedelta

from threadbridge.activitypub.ids import Ids
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import AccountState
from threadbridge.domain.posts import Post
from threadbridge.storage import accounts, jobs, posts
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx

POLL = "poll"
"""The kind of job that says a poll's figures; its key is the post's number, with '-end' for the last time."""
EVERY = timedelta(minutes=3)
# The source may count a little longer than it says.
AFTER_THE_END = timedelta(seconds=30)


def moved(tx: Tx, account_id: int, post_id: int) -> None:
    """The figures of a poll changed."""
    jobs.add(tx, POLL, str(post_id), {"account": account_id, "post": post_id}, due_at=tx.now + EVERY)


def opened(tx: Tx, account_id: int, post_id: int, post: Post | None = None) -> None:
    """A post was said, or its figures were: if it is a poll that is open, its end is said when it comes."""
    held = post or posts.by_id(tx, account_id, post_id)
    closes_at = held.poll.closes_at if held and held.poll else None
    if closes_at is not None and closes_at > tx.now:
        arguments = {"account": account_id, "post": post_id}
        jobs.add(tx, POLL, f"{post_id}-end", arguments, due_at=closes_at + AFTER_THE_END)


def say(tx: Tx, ids: Ids, job: Job) -> None:
    """Say a poll's figures, if anybody may still hear of them."""
    account = accounts.by_id(tx, int(job.arguments["account"]))
    post = posts.by_id(tx, int(job.arguments["account"]), int(job.arguments["post"]))
    if not jobs.finish(tx, job) or account is None or post is None:
        return
    if account.state is AccountState.ACTIVE and post.deleted_at is None and post.poll is not None:
        outbox.refresh(tx, ids, account, post.id)
        opened(tx, account.id, post.id, post)
