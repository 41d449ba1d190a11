"""Building the ActivityPub documents that are served: one reading transaction each, bytes out.

Rule: whatever is asked for by id is answered under exactly that id, never redirected; what is gone says 410 for ever.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from threadbridge.activitypub import document, outgoing
from threadbridge.activitypub.ids import ActorCollection, Ids, PostCollection
from threadbridge.activitypub.outgoing import Document
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.posts import Post
from threadbridge.errors import Gone, Invalid, NotFound
from threadbridge.storage import accounts, farewells, keys, posts, profiles, quotes, reactions, rules, surroundings
from threadbridge.storage.posts import Cursor
from threadbridge.storage.schema import EPOCH
from threadbridge.storage.store import Tx

PAGE = 20
_PLACE = re.compile(r"([pr])([0-9]{1,18})", re.ASCII)


class TombstoneFound(Gone):
    """Something deleted: `document` is what stands at its address."""

    def __init__(self, document: Document, words: str = "This post has been deleted") -> None:
        super().__init__(words)
        self.document = document


def living(tx: Tx, account_id: int) -> Account:
    """The account, unless there is none (NotFound) or it was deleted (Gone)."""
    account = accounts.by_id(tx, account_id)
    return _living(account)


def living_by_handle(tx: Tx, handle: str) -> Account:
    """The same, by handle in any case, also by one that it had before."""
    return _living(accounts.by_handle(tx, handle) or accounts.by_former_handle(tx, handle))


def _living(account: Account | None) -> Account:
    if account is None:
        raise NotFound("There is no such account here")
    if account.state is AccountState.GONE:
        raise Gone("This account has been deleted")
    return account


def _author(tx: Tx, ids: Ids, account_id: int, post_id: int) -> Account:
    """The account; where it was deleted, its posts have left Tombstones."""
    account = accounts.by_id(tx, account_id)
    if account is not None and account.state is AccountState.GONE:
        living_post(tx, ids, account, post_id)
    return _living(account)


def living_post(tx: Tx, ids: Ids, account: Account, post_id: int) -> Post:
    """The post, unless there is none (NotFound) or it was deleted (TombstoneFound)."""
    post = posts.by_id(tx, account.id, post_id)
    if post is None:
        raise NotFound("There is no such post here")
    if post.deleted_at is not None:
        raise TombstoneFound(outgoing.tombstone(ids, post))
    return post


def actor(tx: Tx, ids: Ids, account_id: int) -> bytes:
    """The actor; of a deleted one the key, while its Delete is on the way, and then a Tombstone."""
    account = accounts.by_id(tx, account_id)
    if account is not None and account.state is AccountState.GONE:
        if farewells.key_still_needed(tx, account_id):
            published = keys.published(tx, account_id)
            leaving = outgoing.leaving_actor(ids, account, published.requests.public_pem)
            return outgoing.encode(outgoing.with_keys(leaving, published))
        raise TombstoneFound(outgoing.actor_tombstone(ids, account), "This account has been deleted")
    return outgoing.encode(profiles.document(tx, ids, _living(account)))


def actor_stub(tx: Tx, ids: Ids, account_id: int) -> bytes:
    """What anybody may read of an actor in secure mode."""
    return outgoing.encode(outgoing.actor_stub(document.decode(actor(tx, ids, account_id))))


def instance_actor(tx: Tx, ids: Ids) -> bytes:
    published = keys.published(tx, None)
    described = outgoing.instance_actor(ids, published.requests.public_pem)
    return outgoing.encode(outgoing.with_keys(described, published))


def note(tx: Tx, ids: Ids, account_id: int, post_id: int) -> bytes:
    account = _author(tx, ids, account_id, post_id)
    post = living_post(tx, ids, account, post_id)
    said = outgoing.note(ids, account, post, surroundings.of_post(tx, ids, post), tx.now)
    return outgoing.encode(outgoing.with_context(said))


def create(tx: Tx, ids: Ids, account_id: int, post_id: int) -> bytes:
    account = _author(tx, ids, account_id, post_id)
    post = living_post(tx, ids, account, post_id)
    said = outgoing.create(ids, account, post, surroundings.of_post(tx, ids, post), tx.now)
    return outgoing.encode(outgoing.with_context(said))


def post_collection(
    tx: Tx,
    ids: Ids,
    account_id: int,
    post_id: int,
    name: PostCollection,
    *,
    page: bool = False,
    after: str | None = None,
) -> bytes:
    """What is about a post, by ids, in pages: replies, the conversation, likes and shares."""
    account = living(tx, account_id)
    if name == "context":
        return _context(tx, ids, account, post_id, page=page, after=after)
    post = living_post(tx, ids, account, post_id)
    if name == "replies" and after is not None:
        place = _PLACE.fullmatch(after)
        if place is None:
            raise Invalid("This page address is not one of ours")
        uri = ids.post_collection(account.id, post.id, name)
        items, last = surroundings.replies_after(tx, ids, post, place[1], int(place[2]))
        one = outgoing.replies_page(f"{uri}?page=true&after={after}", uri, items, after=last)
        return outgoing.encode(outgoing.with_context(one))
    if name == "replies":
        whole = outgoing.replies(ids, account, post, surroundings.of_post(tx, ids, post))
        return outgoing.encode(outgoing.with_context(whole["first"] if page else whole))
    return _reactions(tx, ids, post, name, page=page, after=after)


def _reactions(tx: Tx, ids: Ids, post: Post, name: PostCollection, *, page: bool, after: str | None) -> bytes:
    if after is not None and re.fullmatch(r"[0-9]{1,18}", after) is None:
        raise Invalid("This page address is not one of ours")
    begun, total = int(after or 0), post.likes_count if name == "likes" else post.shares_count
    said = reactions.said_after(tx, post.id, "like" if name == "likes" else "announce", begun, limit=PAGE + 1)
    last = said[PAGE - 1][0] if len(said) > PAGE else None
    uri = ids.post_collection(post.account_id, post.id, name)
    one = outgoing.reactions(uri, total, [said_ for _, said_ in said[:PAGE]], after=begun, last=last)
    return outgoing.encode(outgoing.first_page(one) if page and "first" in one else one)


def _context(tx: Tx, ids: Ids, account: Account, root: int, *, page: bool, after: str | None) -> bytes:
    """The conversation that begins with a post (which may be deleted, while others of it are not), oldest first."""
    post = posts.by_id(tx, account.id, root)
    if post is None:
        raise NotFound("There is no such conversation here")
    uri = ids.post_collection(account.id, root, "context")
    total, items, last = surroundings.conversation(tx, ids, account.id, root, _parse_place(after))
    if not total:
        raise Gone("This conversation has been deleted")
    following = f"{uri}?page=true&after={_format_place(last)}" if last else None
    if after is not None:
        here = f"{uri}?page=true&after={after}"
        return outgoing.encode(outgoing.ordered_page(here, uri, items, next_page=following))
    whole = outgoing.context_collection(uri, ids.actor(account.id), total, items, next_page=following)
    if page:
        return outgoing.encode(outgoing.first_page(whole))
    return outgoing.encode(whole)


def _format_place(place: surroundings.Place) -> str:
    return f"{format_cursor(Cursor(place.at, place.id))}-{int(place.foreign)}"


def _parse_place(value: str | None) -> surroundings.Place | None:
    if value is None:
        return None
    rest, _, foreign = value.rpartition("-")
    cursor = parse_cursor(rest)
    if cursor is None or foreign not in ("0", "1"):
        raise Invalid("This page address is not one of ours")
    return surroundings.Place(cursor.published, foreign == "1", cursor.id)


def quote_stamp(tx: Tx, ids: Ids, account_id: int, number: int) -> bytes:
    """That a post may quote one of this account's; 410 when the owner took it back or the quote is gone."""
    account = living(tx, account_id)
    quote = quotes.by_id(tx, account.id, number)
    if quote is None or (quote.state != "revoked" and not (quote.state == "accepted" or quote.ended_at)):
        raise NotFound("There is no such authorization here")
    if quotes.parked(tx, quote.id):
        # Not 410: others remember that for ever, and the rule may be lifted.
        raise NotFound("There is no such authorization here at present")
    if not quote.stamped or not posts.is_live(tx, account.id, quote.post_id):
        raise Gone("This authorization was taken back")
    quoted = ids.post(account.id, quote.post_id)
    return outgoing.encode(outgoing.quote_authorization(ids, account.id, quote.id, quote.uri, quoted))


def reply_stamp(tx: Tx, ids: Ids, account_id: int, number: int) -> bytes:
    """That an answer was let through; 410 when it is gone."""
    account = living(tx, account_id)
    approval = rules.approval(tx, account.id, number)
    if approval is None:
        raise NotFound("There is no such authorization here")
    if approval.parked and not approval.ended:
        raise NotFound("There is no such authorization here at present")
    if approval.ended or not posts.is_live(tx, account.id, approval.post_id):
        raise Gone("This authorization was taken back")
    answered = ids.post(account.id, approval.post_id)
    return outgoing.encode(outgoing.reply_authorization(ids, account.id, approval.id, approval.uri, answered))


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


def on_top(tx: Tx, account: Account) -> list[Post]:
    """What `featured` holds: the pinned posts, else as many of the newest as the owner wants there."""
    pinned = posts.pinned(tx, account.id)
    if pinned or not account.featured_count:
        return pinned
    return posts.newest(tx, account.id, limit=account.featured_count, kinds=["post"])


def featured(tx: Tx, ids: Ids, account_id: int) -> bytes:
    """What the owner pinned, else the newest few: Mastodon shows a new follower nothing else of the history."""
    account = living(tx, account_id)
    shown = on_top(tx, account)
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
