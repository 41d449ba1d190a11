"""Building the ActivityPub documents that are served: one reading transaction each, bytes out.

Rule: whatever is asked for by id is answered under exactly that id, never redirected; what is gone says 410 for ever.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import ActorCollection, Ids, PostCollection
from threadbridge.activitypub.outgoing import Document
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.posts import Post
from threadbridge.errors import Gone, Invalid, NotFound
from threadbridge.storage import accounts, posts, surroundings
from threadbridge.storage.posts import Cursor
from threadbridge.storage.schema import EPOCH
from threadbridge.storage.store import Tx

PAGE = 20
FEATURED = 5


class TombstoneFound(Gone):
    """A deleted post: `document` is what stands at its address."""

    def __init__(self, document: Document) -> None:
        super().__init__("This post has been deleted")
        self.document = document


def living(tx: Tx, account_id: int) -> Account:
    """The account, unless there is none (NotFound) or it was deleted (Gone)."""
    account = accounts.by_id(tx, account_id)
    return _living(account)


def living_by_handle(tx: Tx, handle: str) -> Account:
    """The same, by handle in any case."""
    return _living(accounts.by_handle(tx, handle))


def _living(account: Account | None) -> Account:
    if account is None:
        raise NotFound("There is no such account here")
    if account.state is AccountState.GONE:
        raise Gone("This account has been deleted")
    return account


def living_post(tx: Tx, ids: Ids, account: Account, post_id: int) -> Post:
    """The post, unless there is none (NotFound) or it was deleted (TombstoneFound)."""
    post = posts.by_id(tx, account.id, post_id)
    if post is None:
        raise NotFound("There is no such post here")
    if post.deleted_at is not None:
        raise TombstoneFound(outgoing.tombstone(ids, post))
    return post


def actor(tx: Tx, ids: Ids, account_id: int) -> bytes:
    account = living(tx, account_id)
    return outgoing.encode(outgoing.actor(ids, account, accounts.public_key(tx, account.id)))


def instance_actor(tx: Tx, ids: Ids) -> bytes:
    return outgoing.encode(outgoing.instance_actor(ids, accounts.public_key(tx, None)))


def note(tx: Tx, ids: Ids, account_id: int, post_id: int) -> bytes:
    account = living(tx, account_id)
    post = living_post(tx, ids, account, post_id)
    said = outgoing.note(ids, account, post, surroundings.of_post(tx, ids, post), tx.now)
    return outgoing.encode(outgoing.with_context(said))


def create(tx: Tx, ids: Ids, account_id: int, post_id: int) -> bytes:
    account = living(tx, account_id)
    post = living_post(tx, ids, account, post_id)
    said = outgoing.create(ids, account, post, surroundings.of_post(tx, ids, post), tx.now)
    return outgoing.encode(outgoing.with_context(said))


def post_collection(
    tx: Tx, ids: Ids, account_id: int, post_id: int, name: PostCollection, *, page: bool = False
) -> bytes:
    """Replies with their ids; likes and shares with their number."""
    account = living(tx, account_id)
    post = living_post(tx, ids, account, post_id)
    if name == "replies":
        whole = outgoing.replies(ids, account, post, surroundings.of_post(tx, ids, post))
        return outgoing.encode(outgoing.with_context(whole["first"] if page else whole))
    total = post.likes_count if name == "likes" else post.shares_count
    return outgoing.encode(outgoing.post_collection(ids.post_collection(account.id, post.id, name), total))


def people_collection(tx: Tx, ids: Ids, account_id: int, name: ActorCollection, *, page: bool) -> bytes:
    """How many follow; who they are is theirs and the owner's. The page is empty on purpose: without one Mastodon
    says that the account hides its network, and shows no figure."""
    account = living(tx, account_id)
    uri = ids.collection(account.id, name)
    total = account.followers_count if name == "followers" else 0
    if page:
        return outgoing.encode(outgoing.ordered_page(f"{uri}?page=1", uri, [], total=total))
    return outgoing.encode(outgoing.ordered_collection(uri, total, first=f"{uri}?page=1"))


def outbox(tx: Tx, ids: Ids, account_id: int) -> bytes:
    account = living(tx, account_id)
    uri = ids.collection(account.id, "outbox")
    return outgoing.encode(
        outgoing.ordered_collection(
            uri,
            account.posts_count,
            first=f"{uri}?page=true",
            last=f"{uri}?page=true&after={format_cursor(Cursor(EPOCH, 0))}",
        )
    )


def outbox_page(tx: Tx, ids: Ids, account_id: int, before: Cursor | None, after: Cursor | None) -> bytes:
    """Twenty Creates, newest first, by key over the full history."""
    account = living(tx, account_id)
    uri = ids.collection(account.id, "outbox")
    page = posts.newest(tx, account.id, limit=PAGE, before=before, after=after)
    around = surroundings.of_posts(tx, ids, page)
    items = [outgoing.create(ids, account, post, around[post.id], tx.now) for post in page]
    place = f"&before={format_cursor(before)}" if before else f"&after={format_cursor(after)}" if after else ""
    older = newer = None
    if page:
        first, last = (Cursor(post.published, post.id) for post in (page[0], page[-1]))
        if posts.newest(tx, account.id, limit=1, before=last):
            older = f"{uri}?page=true&before={format_cursor(last)}"
        if (before or after) and posts.newest(tx, account.id, limit=1, after=first):
            newer = f"{uri}?page=true&after={format_cursor(first)}"
    return outgoing.encode(
        outgoing.ordered_page(f"{uri}?page=true{place}", uri, items, next_page=older, previous_page=newer, posts=True)
    )


def featured(tx: Tx, ids: Ids, account_id: int) -> bytes:
    """What the owner pinned, else the newest few: Mastodon shows a new follower nothing else of the history."""
    account = living(tx, account_id)
    shown = posts.pinned(tx, account.id) or posts.newest(tx, account.id, limit=FEATURED, kinds=["post"])
    around = surroundings.of_posts(tx, ids, shown)
    notes = [outgoing.note(ids, account, post, around[post.id], tx.now) for post in shown]
    return outgoing.encode(outgoing.featured(ids, account.id, notes))


def featured_tags(tx: Tx, ids: Ids, account_id: int) -> bytes:
    account = living(tx, account_id)
    tags = [tag for tag, _ in posts.top_tags(tx, account.id)]
    return outgoing.encode(outgoing.featured_tags(ids, account.id, tags))


def format_cursor(cursor: Cursor) -> str:
    """A place in the posts as it stands in an address: microseconds and number."""
    return f"{(cursor.published - EPOCH) // timedelta(microseconds=1)}-{cursor.id}"


def parse_cursor(value: str | None) -> Cursor | None:
    """The place that an address names; Invalid for anything that we did not write."""
    if value is None:
        return None
    moment, _, number = value.partition("-")
    if not (moment.isdigit() and number.isdigit() and len(moment) < 17 and len(number) < 18 and value.isascii()):
        raise Invalid("This page address is not one of ours")
    published: datetime = EPOCH + timedelta(microseconds=int(moment))
    return Cursor(published, int(number))
