"""A page of source posts against what we hold: what is new, edited, vanished, and what is then said.

    plan()     pure: compares by fingerprint                       -> Plan
    apply()    one transaction: rows, activities, fan-out jobs     -> Changes

Rules: the unique (account, source, native id) decides what is new, so reading a page twice does nothing. Absence is
believed only inside the window for which the source declares the page complete, and only after the source was asked
for that very post. What is history (older than the connection) is kept and shown, never delivered. A deleted post's
number is never used again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from threadbridge.activitypub.ids import Ids
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.posts import fingerprint
from threadbridge.domain.source import SourcePage, SourcePost
from threadbridge.storage import accounts, posts
from threadbridge.storage.content import content_of
from threadbridge.storage.posts import NewAttachment, Origin
from threadbridge.storage.store import Tx

# A post that appears in a live read but is older than this was not written just now (an un-archived one, a repaired
# index): it is kept silently, since Mastodon puts every delivered post on top of the timeline whatever its date.
FRESH = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a page means: posts not held, posts whose text or media changed, ids that are missing from it."""

    new: tuple[SourcePost, ...] = ()
    edited: tuple[SourcePost, ...] = ()
    refreshed: tuple[SourcePost, ...] = ()
    """Unchanged posts whose poll counts may have moved."""
    missing: tuple[str, ...] = ()
    kept_out: tuple[tuple[str, str], ...] = ()
    """(native id, reason) of posts that are not bridged."""


@dataclass(slots=True)
class Changes:
    """What one transaction did, by our post ids."""

    created: list[int] = field(default_factory=list)
    recognised: list[int] = field(default_factory=list)
    edited: list[int] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.created or self.recognised or self.edited or self.deleted)


def kept_out(post: SourcePost) -> str | None:
    """Why a post is not bridged; None if it is."""
    if post.expires_at is not None:
        return "a ghost post, which disappears at its source"
    if post.country_gated:
        return "shown in some countries only, which the Fediverse cannot keep"
    if not (post.text or post.media or post.poll or post.long_text or post.reposted or post.quoted or post.link):
        return "empty"
    return None


def plan(page: SourcePage, held: Mapping[str, Origin], window: Sequence[Origin]) -> Plan:
    """Compare a page with what is held.

    `held` maps native ids of the page to what we have; `window` are live posts of ours that ought to be in the page,
    because it is complete for their time.
    """
    new: list[SourcePost] = []
    edited: list[SourcePost] = []
    refreshed: list[SourcePost] = []
    out: list[tuple[str, str]] = list(page.skipped)
    for post in page.posts:
        reason = kept_out(post)
        origin = held.get(post.native_id)
        if reason is not None:
            out.append((post.native_id, reason))
        elif origin is None:
            new.append(post)
        elif origin.fingerprint != fingerprint(post):
            edited.append(post)
        elif post.poll is not None:
            refreshed.append(post)
    listed = {post.native_id for post in page.posts} | {native_id for native_id, _ in page.skipped}
    missing = [origin.native_id for origin in window if origin.native_id not in listed]
    # Oldest first, so that a thread's beginning has its number before what continues it.
    new.sort(key=lambda post: post.published)
    return Plan(tuple(new), tuple(edited), tuple(refreshed), tuple(missing), tuple(out))


def read_plan(tx: Tx, account_id: int, source: str, page: SourcePage, *, window_limit: int = 100) -> Plan:
    """`plan` with what the database holds now."""
    held = posts.origins(tx, account_id, source, [post.native_id for post in page.posts])
    window: list[Origin] = []
    if page.complete_from is not None:
        window = posts.live_origins_since(tx, account_id, source, page.kinds, page.complete_from, window_limit)
    return plan(page, held, window)


def apply(
    tx: Tx,
    ids: Ids,
    account_id: int,
    source: str,
    plan_: Plan,
    attachments: Mapping[str, Sequence[NewAttachment]],
    languages: Mapping[str, str | None],
    *,
    vanished: Sequence[str] = (),
    history: bool = False,
    connected_at: datetime,
    speaks_since: datetime | None = None,
) -> Changes:
    """Make the plan true, and say what followers should hear.

    `attachments` and `languages` are by native id, fetched before; `vanished` are the missing ids that the source
    itself says are gone. With `history` nothing is said.
    """
    account = accounts.by_id(tx, account_id)
    changes = Changes()
    if account is None or account.state is AccountState.GONE:
        return changes
    speaks = account.state is AccountState.ACTIVE
    for post in plan_.new:
        fresh = (
            speaks
            and post.published > tx.now - FRESH
            and (connected_at is None or post.published >= connected_at - timedelta(seconds=5))
        )
        _add(
            tx, ids, account, source, post, attachments.get(post.native_id, ()), languages.get(post.native_id),
            speaks=speaks and fresh, changes=changes,
        )  # fmt: skip
    for post in plan_.edited:
        _edit(
            tx, ids, account, source, post, attachments.get(post.native_id, ()), languages.get(post.native_id),
            speaks=speaks, changes=changes,
        )  # fmt: skip
    for post in plan_.refreshed:
        origin = posts.origins(tx, account_id, source, [post.native_id]).get(post.native_id)
        if origin is not None and post.poll is not None and posts.set_poll(tx, origin.post_id, post.poll):
            accounts.touch(tx, account_id, figures_only=True)
    for native_id in vanished:
        origin = posts.origins(tx, account_id, source, [native_id]).get(native_id)
        if origin is not None and posts.bury(tx, account_id, origin.post_id):
            changes.deleted.append(origin.post_id)
            # Told even while paused: somebody who deletes a post means everywhere.
            outbox.retract(tx, ids, account, origin.post_id)
    if changes:
        accounts.touch(tx, account_id)
    return changes


def _add(
    tx: Tx,
    ids: Ids,
    account: Account,
    source: str,
    post: SourcePost,
    media: Sequence[NewAttachment],
    language: str | None,
    *,
    speaks: bool,
    changes: Changes,
) -> None:
    if posts.origins(tx, account.id, source, [post.native_id]):
        return
    second = post.published.replace(microsecond=0)
    known = posts.twin(tx, account.id, source, second, post.text, second + timedelta(seconds=1))
    if known is not None:
        # Imported from a download before: the same post, which now gains its id and address.
        posts.add_origin(tx, account.id, source, post.native_id, known, fingerprint(post))
        if post.permalink:
            posts.set_original_url(tx, known, post.permalink)
        changes.recognised.append(known)
        return
    parent_id = _held(tx, account.id, source, post.parent.native_id if post.parent else None)
    content = content_of(
        post,
        parent_id=parent_id,
        quoted_id=_held(tx, account.id, source, post.quoted.native_id if post.quoted else None),
        language=language,
    )
    # An answer to somebody else's post at the source is shown here, but followers would get half a conversation.
    answers_elsewhere = post.kind == "reply" and parent_id is None
    said = speaks and not answers_elsewhere
    post_id = posts.add(tx, account.id, content, media, silent=not said)
    posts.add_origin(tx, account.id, source, post.native_id, post_id, fingerprint(post))
    changes.created.append(post_id)
    if said:
        outbox.publish(tx, ids, account, post_id)


def _edit(
    tx: Tx,
    ids: Ids,
    account: Account,
    source: str,
    post: SourcePost,
    media: Sequence[NewAttachment],
    language: str | None,
    *,
    speaks: bool,
    changes: Changes,
) -> None:
    origin = posts.origins(tx, account.id, source, [post.native_id]).get(post.native_id)
    held = posts.by_id(tx, account.id, origin.post_id) if origin else None
    now_reads = fingerprint(post)
    if origin is None or held is None or held.deleted_at is not None or origin.fingerprint == now_reads:
        return
    content = content_of(
        post,
        parent_id=held.parent_id,
        quoted_id=_held(tx, account.id, source, post.quoted.native_id if post.quoted else None),
        language=language,
    )
    posts.revise(tx, account.id, held.id, content, media, updated=max(tx.now, held.published + timedelta(seconds=1)))
    posts.set_fingerprint(tx, account.id, source, post.native_id, now_reads)
    changes.edited.append(held.id)
    if speaks and not held.silent:
        outbox.revise(tx, ids, account, held.id)


def _held(tx: Tx, account_id: int, source: str, native_id: str | None) -> int | None:
    if native_id is None:
        return None
    origin = posts.origins(tx, account_id, source, [native_id]).get(native_id)
    return origin.post_id if origin else None
