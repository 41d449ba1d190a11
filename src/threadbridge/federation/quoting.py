"""What a post of ours quotes or reposts, looked up in the Fediverse: is it there, whose is it, and may we?

    find     the job behind a new quote or repost -> QuoteRequest, or Announce
    check    the job behind a granted quote: the stamp, at its origin

Rule: believed is what the origin says under the very id that was asked for. A stamp must live on the server of the
author whom it quotes, be that author's, and name both posts; anything else is a forgery, and refused for good. What
cannot be found is said as a link, which is what it was at the source.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from threadbridge.activitypub import incoming, outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.people import Peer
from threadbridge.domain.posts import Post
from threadbridge.errors import Invalid, NetworkError
from threadbridge.federation import admission, quote
from threadbridge.net.peers import Peers
from threadbridge.storage import accounts, decisions, jobs, peers, posts, quotes, surroundings
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

FIND = "find_post"
"""The kind of job that looks for what a post quotes or reposts; its key is the post's number."""
PATIENCE = 8.0
"""Seconds for one look; a repost waits for it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A post in the Fediverse, and its author as their own server says."""

    uri: str
    url: str
    author: Peer


async def find(store: Store, finder: Peers, ids: Ids, job: Job) -> None:
    """Look for the original of what a post quotes or reposts, and do what follows."""
    account_id, post_id = int(job.arguments["account"]), int(job.arguments["post"])
    wanted = await store.read(_wanted, account_id, post_id)
    found = await _look(store, finder, account_id, wanted) if wanted else None
    await store.transact(_found, ids, job, account_id, post_id, found)


def _wanted(tx: Tx, account_id: int, post_id: int) -> tuple[str, tuple[str, str] | None] | None:
    """(address at the source, (id, author) if we hold it ourselves) of what is looked for."""
    post = posts.by_id(tx, account_id, post_id)
    if post is None or post.deleted_at is not None or post.announced_uri is not None:
        return None
    url = post.repost_url if post.kind == "repost" else post.quoted_url if post.quoted_id is None else None
    return (url, quotes.known_by_url(tx, url)) if url else None


async def _look(
    store: Store, finder: Peers, account_id: int, wanted: tuple[str, tuple[str, str] | None]
) -> Found | None:
    url, known = wanted
    if await store.read(admission.refusal_of, url, *(known or ()), account_id=account_id) is not None:
        # Whoever may not speak here is not asked, boosted or quoted either.
        return None
    try:
        async with asyncio.timeout(PATIENCE):
            if known is not None:
                held = await store.read(peers.by_uri, known[1])
                return Found(known[0], url, held or await finder.actor(known[1]))
            read = incoming.read_note(await finder.document(url))
            if not read.public:
                return None
            if await store.read(admission.refusal_of, read.id, read.author, account_id=account_id) is not None:
                return None
            author = await finder.actor(read.author)
            if not await store.read(admission.may_read, author.uri, account_id, author.handle):
                # By the handle, which is known only now.
                return None
            return Found(read.id, read.url or read.id, author)
    except (NetworkError, Invalid, TimeoutError) as error:
        log.debug("an original is not in the Fediverse", url=url, error=str(error))
        return None


def _found(tx: Tx, ids: Ids, job: Job, account_id: int, post_id: int, found: Found | None) -> None:
    account, post = accounts.by_id(tx, account_id), posts.by_id(tx, account_id, post_id)
    if not jobs.finish(tx, job) or account is None or post is None or post.deleted_at is not None:
        return
    speaks = account.state is AccountState.ACTIVE
    if found is not None and not ids.is_ours(found.uri):
        peers.save(tx, found.author, host_of(found.author.uri))
        if post.kind == "repost":
            posts.announce(tx, post_id, found.uri, found.author.uri)
            accounts.touch(tx, account_id)
        elif speaks and not post.silent:
            _ask(tx, ids, account, post, found)
    if post.kind == "repost" and speaks and not post.silent:
        outbox.publish(tx, ids, account, post_id)


def _ask(tx: Tx, ids: Ids, account: Account, post: Post, found: Found) -> None:
    request_uri = ids.quote_request(account.id, post.id)
    if not quotes.asked(tx, post.id, uri=found.uri, author=found.author.uri, url=found.url, request_uri=request_uri):
        return
    # Their server looks at what would be said once they allow it: the note with its quote, without a stamp yet.
    around = surroundings.of_post(tx, ids, post)
    shown = outgoing.quoting(around, outgoing.QuotedPost(found.uri, found.url))
    note = outgoing.note(ids, account, post, shown, tx.now)
    said = outgoing.quote_request(ids, account.id, post.id, found.uri, found.author.uri, note)
    outbox.answer(tx, account.id, said, found.author.inbox)


# ── stamps of others ─────────────────────────────────────────────────────────────────────────────────────────────


async def check(store: Store, finder: Peers, ids: Ids, job: Job) -> None:
    """Look a stamp up at its origin; show it if it holds. Raises NetworkError when the origin does not answer (it is
    then asked again)."""
    post_id, stamp = int(job.arguments["post"]), str(job.arguments["stamp"])
    asked = (await store.read(quotes.quotings, [post_id])).get(post_id)
    owner = await store.read(posts.owner, post_id)
    if asked is None or owner is None:
        await store.transact(jobs.finish, job)
        return
    try:
        async with asyncio.timeout(PATIENCE):
            document = await finder.object(stamp)
        reason = incoming.forged_stamp(
            document, author=asked.author, quoting=ids.post(owner, post_id), quoted=asked.uri
        )
    except TimeoutError:
        raise NetworkError("The authorization's server did not answer in time") from None
    except NetworkError as error:
        if getattr(error, "status", None) not in (404, 410):
            raise
        reason = "it is not there"
    await store.transact(_checked, ids, job, owner, post_id, stamp, reason)


def _checked(tx: Tx, ids: Ids, job: Job, owner: int, post_id: int, stamp: str, reason: str | None) -> None:
    if not jobs.finish(tx, job):
        return
    if reason is None:
        quote.stamped(tx, ids, post_id, stamp)
        return
    words = f"an authorization to quote does not hold: {reason}"
    log.warning("a forged authorization was refused", post=post_id, stamp=stamp, reason=reason)
    decisions.write(tx, "stamp", words, subject=stamp, host=host_of(stamp), account_id=owner)
    quote.not_stamped(tx, ids, post_id)
