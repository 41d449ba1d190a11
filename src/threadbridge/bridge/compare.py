"""A page of source posts against what we hold: what is new, edited, vanished, and what is then said.

    plan()     pure: compares by fingerprint                       -> Plan
    apply()    one transaction: rows, activities, fan-out jobs     -> Changes
    retract()  one transaction: posts that the source says are gone
    share()    one transaction: a post that was held leaves (`holding`)

Rules: the unique (account, source, native id) decides what is new, so reading a page twice does nothing. Absence is
believed only inside the window for which the source declares the page complete, and only after the source was asked
for that very post. What is history (there before the connection) is kept and shown, never delivered. A deleted post's
number is never used again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.delivery import outbox, polls
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.posts import fingerprint
from threadbridge.domain.source import MediaKind, SourceMedia, SourcePage, SourcePost, SourceReference
from threadbridge.federation import quote, quoting
from threadbridge.storage import accounts, connections, content, jobs, posts, quotes, rules
from threadbridge.storage import held as holding
from threadbridge.storage.content import Gap, content_of
from threadbridge.storage.held import Held
from threadbridge.storage.posts import MediaRow, NewAttachment, Origin
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

# A post that appears in a live read but is older than this was not written since the last look (an un-archived one, a
# repaired index): it is kept silently, since Mastodon puts every delivered post on top of the timeline whatever its
# date. Counted from the last look that succeeded, so that an outage of ours takes nothing from the followers; but
# never further back than OUTAGE, however long we were away.
FRESH = timedelta(days=1)
OUTAGE = timedelta(days=7)

# A token without the permission for replies gets an empty list, and may then be told of each reply that it does not
# exist "or cannot be loaded due to missing permissions". Deleting cannot be undone: so many at once are not believed.
LAST_REPLIES = 3

NOT_ANSWERED = "the source's media server did not answer"
"""Why an attachment has no file when asking again may help."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A post that is held from another source, and whether files of it are missing here."""

    post: SourcePost
    post_id: int
    lacks_files: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a page means: posts not held, posts whose text or media changed, ids that are missing from it."""

    read_at: datetime
    new: tuple[SourcePost, ...] = ()
    """Oldest first, and never a post before one that it answers or quotes."""
    recognised: tuple[Recognised, ...] = ()
    edited: tuple[SourcePost, ...] = ()
    refreshed: tuple[SourcePost, ...] = ()
    """Unchanged posts whose poll counts may have moved, or which others may answer now."""
    missing: tuple[str, ...] = ()
    kept_out: tuple[tuple[str, str], ...] = ()
    """(native id, reason) of posts that are not bridged."""
    gaps: tuple[tuple[Gap, SourceMedia], ...] = ()
    """Attachments of held posts whose file could not be had so far."""
    files: Mapping[str, tuple[MediaKind, str]] = field(default_factory=dict)
    """{media key: (kind, sha256)} of edited posts, so that a changed text does not copy the pictures again."""

    def __bool__(self) -> bool:
        return bool(self.new or self.recognised or self.edited or self.refreshed or self.gaps)


@dataclass(frozen=True, slots=True)
class News:
    """What counts as news: what was published from `since` on, except what was listed `before` the connection."""

    since: datetime
    before: frozenset[str] = frozenset()
    looked_at: datetime | None = None
    """When the source was read last, successfully."""

    def covers(self, post: SourcePost, read_at: datetime) -> bool:
        """Whether followers should hear of a post that was read at `read_at`. The source gives whole seconds."""
        last = min(self.looked_at or read_at, read_at)
        return (
            post.native_id not in self.before
            and post.published >= self.since.replace(microsecond=0)
            and post.published > max(last - FRESH, read_at - OUTAGE)
        )


@dataclass(slots=True)
class Changes:
    """What was done, by our post ids."""

    created: list[int] = field(default_factory=list)
    recognised: list[int] = field(default_factory=list)
    edited: list[int] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.created or self.recognised or self.edited or self.deleted)

    def add(self, more: Changes) -> None:
        self.created += more.created
        self.recognised += more.recognised
        self.edited += more.edited
        self.deleted += more.deleted


_NO_AUDIENCES: Mapping[int, str | None] = {}


# ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────


def kept_out(post: SourcePost) -> str | None:
    """Why a post is not bridged; None if it is."""
    if post.expires_at is not None:
        return "a ghost post, which disappears at its source"
    if post.country_gated:
        return "shown in some countries only, which the Fediverse cannot keep"
    if not (post.text or post.media or post.poll or post.long_text or post.reposted or post.quoted or post.link):
        return "empty"
    return None


def plan(
    page: SourcePage,
    held: Mapping[str, Origin],
    window: Sequence[Origin],
    audiences: Mapping[int, str | None] = _NO_AUDIENCES,
) -> Plan:
    """Compare a page with what is held.

    `held` maps native ids of the page to what we have; `window` are live posts of ours that ought to be in the page,
    because it is complete for their time; `audiences` says, by our post ids, who may answer as far as we know.
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
        elif post.poll is not None or content.audience_of(post) != audiences.get(origin.post_id):
            refreshed.append(post)
    listed = {post.native_id for post in page.posts} | {native_id for native_id, _ in page.skipped}
    missing = [origin.native_id for origin in window if origin.native_id not in listed]
    if not listed and "reply" in page.kinds and len(missing) > LAST_REPLIES:
        missing = []
    return Plan(
        page.read_at,
        new=tuple(in_order(new)),
        edited=tuple(edited),
        refreshed=tuple(refreshed),
        missing=tuple(missing),
        kept_out=tuple(out),
    )


def in_order(listed: Sequence[SourcePost]) -> list[SourcePost]:
    """Posts as they were listed (newest first) the other way round: oldest first, and each after what it answers or
    quotes. Posts of a thread are often published within one second, which is all that timestamps tell."""
    turned = listed[::-1]
    waiting = {post.native_id: post for post in sorted(turned, key=lambda post: post.published)}
    ordered: list[SourcePost] = []
    while waiting:
        chain = [next(iter(waiting.values()))]
        while (before := _first_waiting(chain[-1], waiting)) is not None and before not in chain:
            chain.append(before)
        ordered += reversed(chain)
        for post in chain:
            del waiting[post.native_id]
    return ordered


def _first_waiting(post: SourcePost, waiting: Mapping[str, SourcePost]) -> SourcePost | None:
    names = (reference.native_id for reference in (post.parent, post.quoted) if reference and reference.native_id)
    return next((waiting[name] for name in names if name in waiting), None)


def read_plan(tx: Tx, account_id: int, source: str, page: SourcePage) -> Plan:
    """`plan` with what the database holds now."""
    held = posts.origins(tx, account_id, source, [post.native_id for post in page.posts])
    not_left = holding.known(tx, account_id, source, [post.native_id for post in page.posts])
    held |= {name: Origin(name, 0, entry.fingerprint) for name, entry in not_left.items() if name not in held}
    window: list[Origin] = []
    if page.complete_from is not None:
        limit = len(page.posts) + 100
        window = posts.live_origins_since(tx, account_id, source, page.kinds, page.complete_from, limit)
        window += holding.since(tx, account_id, source, page.kinds, page.complete_from, limit)
    found = plan(page, held, window, rules.audiences(tx, {origin.post_id for origin in held.values()}))
    recognised: dict[str, Recognised] = {}
    if content.known_elsewhere(tx, account_id, source):
        claimed: set[int] = set()
        for post in found.new:
            twin = content.twin(tx, account_id, source, post, claimed)
            if twin is not None:
                claimed.add(twin)
                lacks = content.lacks_files(tx, twin, len(post.media))
                recognised[post.native_id] = Recognised(post, twin, lacks)
    by_post = {held[post.native_id].post_id: post for post in page.posts if post.native_id in held}
    gaps = []
    for gap in content.gaps(tx, list(by_post), NOT_ANSWERED):
        item = next((one for one in by_post[gap.post_id].media if one.key == gap.source_key), None)
        if item is not None:
            gaps.append((gap, item))
    return replace(
        found,
        new=tuple(post for post in found.new if post.native_id not in recognised),
        recognised=tuple(recognised.values()),
        gaps=tuple(gaps),
        files=content.files(tx, [held[post.native_id].post_id for post in found.edited])
        | holding.files(tx, account_id, source, [post.native_id for post in found.edited]),
    )


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Copied:
    """What was fetched for a plan, before its transaction, by native id."""

    attachments: Mapping[str, Sequence[NewAttachment]] = field(default_factory=dict)
    languages: Mapping[str, str | None] = field(default_factory=dict)
    filled: Sequence[tuple[Gap, MediaKind, str]] = ()
    """Gaps with what fills them: kind and sha256 of a row in media."""
    media: Sequence[MediaRow] = ()


def apply(tx: Tx, ids: Ids, account_id: int, source: str, plan_: Plan, copied: Copied, news: News) -> Changes:
    """Make the plan true, and say what followers should hear. Nothing is said for an account that is paused."""
    connections.lock(tx, account_id)
    account = accounts.by_id(tx, account_id)
    if account is None or account.state is AccountState.GONE:
        return Changes()
    writing = _Writing(tx, ids, account, source, copied)
    for row in copied.media:
        posts.add_media(tx, row)
    for known in plan_.recognised:
        writing.recognise(known)
    for post in plan_.new:
        writing.add(post, said=news.covers(post, plan_.read_at))
    for post in plan_.edited:
        writing.edit(post)
    for post in plan_.refreshed:
        writing.refresh(post)
    writing.fill(copied.filled)
    if writing.changes:
        accounts.touch(tx, account_id)
    return writing.changes


def retract(tx: Tx, ids: Ids, account_id: int, source: str, vanished: Sequence[str]) -> Changes:
    """Bury posts that the source says are gone, and tell everybody. Also while paused: somebody who deletes a post
    means everywhere."""
    connections.lock(tx, account_id)
    account = accounts.by_id(tx, account_id)
    changes = Changes()
    if account is None or account.state is AccountState.GONE:
        return changes
    not_left = holding.known(tx, account_id, source, vanished)
    if not_left:
        holding.remove(tx, [entry.id for entry in not_left.values()])
        log.info("held posts are gone at their source: nothing leaves", account=account_id, posts=len(not_left))
    for origin in posts.origins(tx, account_id, source, vanished).values():
        if posts.bury(tx, account_id, origin.post_id):
            changes.deleted.append(origin.post_id)
            outbox.retract(tx, ids, account, origin.post_id)
            quote.original_gone(tx, ids, origin.post_id)
    if changes:
        accounts.touch(tx, account_id)
    return changes


def share(tx: Tx, ids: Ids, held: Held, *, said: bool) -> None:
    """A held post becomes a post like any other, with what its source told last; followers hear of it if `said`."""
    connections.lock(tx, held.account_id)
    account = accounts.by_id(tx, held.account_id)
    assert account is not None, "whose post it is"
    holding.remove(tx, [held.id])
    name = held.post.native_id
    copied = Copied({name: held.attachments}, {name: held.language})
    writing = _Writing(tx, ids, account, held.source, copied)
    if writing.held(name) is None:
        writing.share(held.post, said=said)
        accounts.touch(tx, held.account_id)


@dataclass(slots=True)
class _Writing:
    """One `apply` under way."""

    tx: Tx
    ids: Ids
    account: Account
    source: str
    copied: Copied
    changes: Changes = field(default_factory=Changes)

    @property
    def speaks(self) -> bool:
        return self.account.state is AccountState.ACTIVE

    def held(self, native_id: str | None) -> Origin | None:
        if native_id is None:
            return None
        return posts.origins(self.tx, self.account.id, self.source, [native_id]).get(native_id)

    def _our_id(self, native_id: str | None) -> int | None:
        origin = self.held(native_id)
        return origin.post_id if origin else None

    def _here(self, reference: SourceReference | None) -> int | None:
        """The post that is meant, if it is one of any account here."""
        if reference is None or reference.native_id is None:
            return None
        own = self._our_id(reference.native_id)
        return own if own is not None else quotes.held_here(self.tx, self.source, reference.native_id)

    def _content(self, post: SourcePost, parent_id: int | None) -> posts.PostContent:
        return content_of(
            post,
            parent_id=parent_id,
            quoted_id=self._here(post.quoted),
            language=self.copied.languages.get(post.native_id),
        )

    def add(self, post: SourcePost, *, said: bool) -> None:
        if self.held(post.native_id) is None and not self._hold(post, said=said and self.speaks):
            self.share(post, said=said)

    def _hold(self, post: SourcePost, *, said: bool) -> bool:
        """Hold a new post, where its owner wants that, or what it continues has not left; True if it is held. The
        time counts from the source's own, so that the delay of the reading is not added to it; but a post is held
        for a minute at least, or its owner would never see it."""
        tx, me = self.tx, self.account.id
        named = [post.native_id, *(one.native_id for one in (post.parent, post.quoted) if one and one.native_id)]
        before = holding.known(tx, me, self.source, named)
        if post.native_id in before:
            return True
        parent = before.get(post.parent.native_id or "") if post.parent else None
        minutes = holding.minutes(tx, me) if said else 0
        waits = [entry.due_at for entry in before.values() if entry.state == "held"]
        unshared = "it continues a post that is not shared" if parent and parent.state == "unshared" else None
        if not minutes and not waits and unshared is None:
            return False
        window = timedelta(minutes=minutes)
        due_at = max(post.published + window, tx.now + min(window, timedelta(minutes=1)), *waits)
        media = self.copied.attachments.get(post.native_id, ())
        words = self.copied.languages.get(post.native_id)
        holding.keep(tx, me, self.source, post, media, words, due_at=due_at, unshared=unshared)
        log.info("a new post is held", account=me, post=post.native_id, until=due_at.isoformat(), unshared=unshared)
        return True

    def _fold(self, post: SourcePost) -> None:
        """What has not left yet was edited, or its poll or audience changed: it will leave as it is now."""
        entry = holding.known(self.tx, self.account.id, self.source, [post.native_id]).get(post.native_id)
        if entry is None:
            return
        edited = entry.fingerprint != fingerprint(post)
        media = self.copied.attachments.get(post.native_id, ()) if edited else None
        holding.fold(self.tx, self.account.id, entry.id, post, media, self.copied.languages.get(post.native_id))

    def share(self, post: SourcePost, *, said: bool) -> None:
        """Make it a post, and say it if it is to be said."""
        parent_id = self._our_id(post.parent.native_id if post.parent else None)
        # An answer to somebody else's post at the source is shown here, but followers would get half a conversation.
        answers_elsewhere = post.kind == "reply" and parent_id is None
        said = said and self.speaks and not answers_elsewhere
        media = self.copied.attachments.get(post.native_id, ())
        post_id = posts.add(self.tx, self.account.id, self._content(post, parent_id), media, silent=not said)
        self._remember(post, post_id)
        self.changes.created.append(post_id)
        waits = self._refer(post, post_id, said=said)
        if said and not waits:
            outbox.publish(self.tx, self.ids, self.account, post_id)
            polls.opened(self.tx, self.account.id, post_id)

    def _refer(self, post: SourcePost, post_id: int, *, said: bool) -> bool:
        """What a new post quotes or reposts is in the Fediverse here, or may be elsewhere: then it is looked for.
        True when the post is said only after that: an Announce cannot be made of what was said as a post."""
        quoted, original = self._here(post.quoted), self._here(post.reposted)
        if quoted is not None:
            quote.of_ours(self.tx, self.ids, self.account.id, post_id, quoted)
        if post.kind == "repost" and original is not None:
            owner = posts.owner(self.tx, original)
            assert owner is not None, "only a live post is found"
            posts.announce(self.tx, post_id, self.ids.post(owner, original), self.ids.actor(owner))
            return False
        unknown = post.reposted if post.kind == "repost" else post.quoted if quoted is None else None
        if not said or unknown is None or not unknown.url:
            return False
        place = {"account": self.account.id, "post": post_id}
        jobs.add(self.tx, quoting.FIND, str(post_id), place)
        return post.kind == "repost"

    def refresh(self, post: SourcePost) -> None:
        """Figures of a poll, and who may answer, change by themselves; they are no edit."""
        origin = self.held(post.native_id)
        if origin is None:
            self._fold(post)
            return
        if post.poll is not None and posts.set_poll(self.tx, origin.post_id, post.poll):
            accounts.touch(self.tx, self.account.id, figures_only=True)
            polls.moved(self.tx, self.account.id, origin.post_id)
        if rules.set_audience(self.tx, origin.post_id, content.audience_of(post)):
            accounts.touch(self.tx, self.account.id)
            if self.speaks and posts.is_live(self.tx, self.account.id, origin.post_id):
                outbox.refresh(self.tx, self.ids, self.account, origin.post_id)

    def recognise(self, known: Recognised) -> None:
        """The same post, imported from a download before: it gains its address here, and what a download lacks."""
        post = known.post
        if self.held(post.native_id) is not None:
            return
        told = self._content(post, self._our_id(post.parent.native_id if post.parent else None))
        media = self.copied.attachments.get(post.native_id) or [
            NewAttachment(item.kind, item.alt, item.key) for item in post.media if not known.lacks_files
        ]
        content.complete(self.tx, self.account.id, known.post_id, told, media)
        self._remember(post, known.post_id)
        self.changes.recognised.append(known.post_id)

    def edit(self, post: SourcePost) -> None:
        origin = self.held(post.native_id)
        now_reads = fingerprint(post)
        if origin is None:
            self._fold(post)
            return
        if origin.fingerprint == now_reads:
            return
        before = posts.by_id(self.tx, self.account.id, origin.post_id)
        if before is None or before.deleted_at is not None:
            return
        updated = max(self.tx.now, before.published + timedelta(seconds=1))
        media = self.copied.attachments.get(post.native_id, ())
        told = self._content(post, before.parent_id)
        posts.revise(self.tx, self.account.id, before.id, told, media, updated=updated)
        posts.set_fingerprint(self.tx, self.account.id, self.source, post.native_id, now_reads)
        self.changes.edited.append(before.id)
        if self.speaks:
            outbox.revise(self.tx, self.ids, self.account, before.id)
            polls.opened(self.tx, self.account.id, before.id)

    def fill(self, filled: Sequence[tuple[Gap, MediaKind, str]]) -> None:
        """Files that could not be had when their posts were written. Who got a post without them gets an Update."""
        completed = [gap.post_id for gap, kind, sha256 in filled if content.fill_gap(self.tx, gap, sha256, kind)]
        for post_id in dict.fromkeys(completed):
            held = posts.by_id(self.tx, self.account.id, post_id)
            assert held is not None
            self.changes.edited.append(post_id)
            if self.speaks and not held.silent:
                content.changed(self.tx, post_id, max(self.tx.now, held.published + timedelta(seconds=1)))
                outbox.revise(self.tx, self.ids, self.account, post_id)

    def _remember(self, post: SourcePost, post_id: int) -> None:
        posts.add_origin(self.tx, self.account.id, self.source, post.native_id, post_id, fingerprint(post))
