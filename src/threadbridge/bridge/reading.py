"""Reading a connected account: pages and media over the network, each page then written in one transaction.

Rule: no transaction is open while the network is asked. Media is copied the moment a post is seen. A read that stops
half-way has done nothing by halves: the next one goes on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.bridge import cadence, compare
from threadbridge.bridge.cadence import Trouble
from threadbridge.bridge.compare import NOT_ANSWERED, Changes, Copied, News, Plan
from threadbridge.bridge.copying import Copier, Outcome
from threadbridge.domain.source import Listing, Source, SourceMedia, SourcePage, SourcePost, SourceProfile
from threadbridge.errors import NetworkError, SourceError
from threadbridge.media.sniff import kind_of
from threadbridge.media.store import MediaStore
from threadbridge.net.client import Client
from threadbridge.sources import language
from threadbridge.storage import accounts, connections, content, held, posts
from threadbridge.storage.connections import Connection
from threadbridge.storage.content import Reference
from threadbridge.storage.posts import MediaRow, NewAttachment
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

PAGE = 25
CATCH_UP = 40
"""Pages that are read at most to find what is new since the last read; beyond that the whole history is read."""
PATIENCE_FOR_MEDIA = timedelta(minutes=10)
CONFIRM_LIMIT = 25
"""How many missing posts are asked for one by one in one read; the rest waits for the next."""
CONFIRM_AGAIN = timedelta(minutes=10)
"""A post that is in no list and yet still there (a lost permission, an old copy) is not asked for again so soon."""
GAPS_LIMIT = 4
"""How many files that could not be had before are asked for again in one live read."""
_REMEMBERED = 10_000
_TOGETHER = 200

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Head:
    """What is there before a connection is made: history, whatever its date. `read_at` is the source's time."""

    native_ids: frozenset[str]
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Reader:
    """The means of reading: everything but the source itself, which is made per account."""

    store: Store
    client: Client
    media: MediaStore
    ids: Ids
    _still_there: OrderedDict[tuple[int, str], datetime] = field(default_factory=OrderedDict)
    """Missing posts that the source still has, and when to ask again."""
    _avatars: OrderedDict[int, str] = field(default_factory=OrderedDict)
    """The key of the profile picture that was fetched last, by account."""

    @property
    def _copier(self) -> Copier:
        return Copier(self.client, self.media)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def head(self, source: Source) -> Head:
        """The newest of both lists. Raises SourceError, NetworkError."""
        own = await source.page("post", None, PAGE)
        answers = await self._answers_if_allowed(source)
        listed = [*own.posts, *(answers.posts if answers else ())]
        return Head(frozenset(post.native_id for post in listed), own.read_at)

    async def latest(self, connection: Connection, source: Source) -> Changes:
        """Read the newest pages; write down and say what changed. Raises SourceError, NetworkError, DiskFull."""
        # Replies are listed first, so that whatever a listed reply continues is in the list of posts after it.
        replies = await self._newest(connection, source, "reply")
        own = await self._newest(connection, source, "post")
        changes = Changes()
        newest: datetime | None = None
        waiting: set[str] = set()
        missing: list[str] = []
        for page in (own, replies):
            if page is not None:
                newest = max([newest, *(post.published for post in page.posts)], key=_or_earliest)
                brought, absent = await self._take(connection, page, news=_news(connection), waiting=waiting)
                changes.add(brought)
                missing += absent
        changes.add(await self._bury_vanished(connection, source, missing))
        await self.store.transact(connections.read_well, connection.account_id, newest=newest)
        return changes

    async def whole_history(
        self,
        connection: Connection,
        source: Source,
        on_page: Callable[[int], None] = lambda _: None,
        *,
        before: frozenset[str] = frozenset(),
    ) -> Changes:
        """Read everything, newest first, page by page; `on_page` hears how many posts were read. What was there
        before the connection (`before`, and whatever is older) stays silent.

        Of what was read only the ids of answered and quoted posts are kept until the end: what they name is older,
        so it is written later.
        """
        changes = Changes()
        read = 0
        references: list[Reference] = []
        news = _news(connection, before)
        kinds: tuple[Listing, ...] = ("post", "reply")
        for kind in kinds:
            try:
                async for page in source.history(kind):
                    brought, _ = await self._take(connection, page, news=news, waiting=None)
                    changes.add(brought)
                    listed = reversed(compare.in_order(page.posts))
                    references += (_reference(post) for post in listed if post.parent or post.quoted)
                    read += len(page.posts)
                    on_page(read)
            except SourceError as error:
                if not _replies_refused(kind, error):
                    raise
        references.reverse()
        for start in range(0, len(references), _TOGETHER):
            some = references[start : start + _TOGETHER]
            await self.store.transact(_refer, connection.account_id, connection.source, some)
        await self.store.transact(connections.history_done, connection.account_id)
        await self.store.transact(connections.read_well, connection.account_id, newest=None)
        return changes

    async def profile(self, account_id: int, profile: SourceProfile) -> bool:
        """Take over name, bio and avatar from the source; True if anything changed."""
        avatar: MediaRow | None = None
        if profile.avatar is not None and self._avatars.get(account_id) != profile.avatar.key:
            outcome = await self._copier.fetched(profile.avatar, insist=False)
            if isinstance(outcome, MediaRow) and kind_of(outcome.media_type) == "image":
                avatar = outcome
        changed = await self.store.transact(_take_profile, account_id, profile, avatar)
        if profile.avatar is None:
            self._avatars.pop(account_id, None)
        elif avatar is not None:
            _remember(self._avatars, account_id, profile.avatar.key)
        return changed

    # ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _newest(self, connection: Connection, source: Source, kind: Listing) -> SourcePage | None:
        """The newest posts of a kind as one page, as far back as something known; None if replies are refused."""
        first = await self._answers_if_allowed(source) if kind == "reply" else await source.page(kind, None, PAGE)
        if first is None:
            return None
        pages = [first]
        while (cursor := pages[-1].next_cursor) and not await self.store.read(_reaches_back, connection, pages[-1]):
            if len(pages) == CATCH_UP:
                await self.store.transact(connections.history_again, connection.account_id)
                break
            pages.append(await source.page(kind, cursor, PAGE))
        return replace(
            pages[-1],
            posts=tuple(post for page in pages for post in page.posts),
            skipped=tuple(pair for page in pages for pair in page.skipped),
            read_at=first.read_at,
        )

    async def _answers_if_allowed(self, source: Source) -> SourcePage | None:
        try:
            return await source.page("reply", None, PAGE)
        except SourceError as error:
            if not _replies_refused("reply", error):
                raise
            return None

    async def _take(
        self, connection: Connection, page: SourcePage, *, news: News, waiting: set[str] | None
    ) -> tuple[Changes, tuple[str, ...]]:
        """Write down what a page brings; returns also which ids are missing from it.

        With `waiting` (a live read) a young post whose media cannot be had now is left for the next read, with all
        that answers or quotes it; without, this is history.
        """
        plan = await self.store.read(compare.read_plan, connection.account_id, connection.source, page)
        if not plan:
            return Changes(), plan.missing
        plan, copied = await self._copied(plan, waiting)
        changes = await self.store.transact(
            compare.apply, self.ids, connection.account_id, connection.source, plan, copied, news
        )
        return changes, plan.missing

    async def _copied(self, plan: Plan, waiting: set[str] | None) -> tuple[Plan, Copied]:
        live = waiting is not None
        waits = waiting if waiting is not None else set[str]()
        gaps = plan.gaps[:GAPS_LIMIT] if live else plan.gaps
        lacking = [known.post for known in plan.recognised if known.lacks_files]
        outcomes = await self._copier.all_of(
            [
                *(item for post in (*lacking, *plan.new, *plan.edited) for item in post.media
                  if item.key not in plan.files),
                *(item for _, item in gaps),
            ],
            insist=not live,
        )  # fmt: skip
        attachments = {
            post.native_id: [_attachment(item, plan, outcomes) for item in post.media]
            for post in (*lacking, *plan.new, *plan.edited)
        }
        if live:
            young = plan.read_at - PATIENCE_FOR_MEDIA
            for post in (*plan.new, *plan.edited):
                named = {reference.native_id for reference in (post.parent, post.quoted) if reference}
                unanswered = any(item.missing == NOT_ANSWERED for item in attachments[post.native_id])
                if named & waits or (unanswered and post.published > young):
                    waits.add(post.native_id)
        taken = replace(
            plan,
            new=tuple(post for post in plan.new if post.native_id not in waits),
            edited=tuple(post for post in plan.edited if post.native_id not in waits),
        )
        filled = [
            (gap, kind_of(outcome.media_type), outcome.sha256)
            for gap, item in gaps
            if isinstance(outcome := outcomes[item.key], MediaRow)
        ]
        told = [*taken.new, *taken.edited, *(known.post for known in taken.recognised)]
        languages = await asyncio.to_thread(lambda: {post.native_id: language.of(post) for post in told})
        rows = [outcome for outcome in outcomes.values() if isinstance(outcome, MediaRow)]
        return taken, Copied(attachments, languages, filled, rows)

    # ── what is gone ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _bury_vanished(self, connection: Connection, source: Source, missing: Sequence[str]) -> Changes:
        """Delete the missing posts that the source, asked for each, says are gone. An empty page can also mean a
        lost permission, and a page can be served from an old copy."""
        now = self.store.clock()
        names = [(connection.account_id, native_id) for native_id in missing]
        asked = [name for name in names if self._still_there.get(name, now) <= now][:CONFIRM_LIMIT]
        vanished = []
        for name in asked:
            if await _exists(source, name[1]):
                _remember(self._still_there, name, now + CONFIRM_AGAIN)
            else:
                vanished.append(name[1])
        if not vanished:
            return Changes()
        return await self.store.transact(
            compare.retract, self.ids, connection.account_id, connection.source, vanished
        )


async def _exists(source: Source, native_id: str) -> bool:
    try:
        return await source.exists(native_id)
    except SourceError as error:
        if cadence.trouble_kind(error) != "refused":
            raise
        # Not that it is gone: only that we are not told.
        log.info("whether a post is still there could not be learnt", error=str(error))
        return True


def _replies_refused(kind: Listing, error: SourceError) -> bool:
    """Whether an error only means that replies may not be read: then posts are bridged without them."""
    if kind != "reply" or cadence.trouble_kind(error) != "refused":
        return False
    log.info("replies may not be read", error=str(error))
    return True


# ── in a transaction ─────────────────────────────────────────────────────────────────────────────────────────────


def read_failed(
    tx: Tx, account_id: int, error: SourceError | NetworkError, *, poll_seconds: float, spread: float
) -> datetime | None:
    """Write down that a read failed and why; when to try again, or None when it takes the owner."""
    kind = cadence.trouble_kind(error)
    failures = connections.read_badly(tx, account_id, kind, str(error))
    if kind in cadence.NEEDS_OWNER:
        return None
    wait = error.retry_after if isinstance(error, SourceError) else None
    return cadence.next_read(tx.now, poll_seconds, newest=None, trouble=Trouble(kind, failures, wait), spread=spread)


def _reaches_back(tx: Tx, connection: Connection, page: SourcePage) -> bool:
    """Whether the oldest post of a page is known, so that what follows is, too. (A pinned post may stand first.)"""
    listed = [post.native_id for post in page.posts if compare.kept_out(post) is None]
    return bool(
        listed
        and (
            posts.origins(tx, connection.account_id, connection.source, listed[-1:])
            or held.known(tx, connection.account_id, connection.source, listed[-1:])
        )
    )


def _refer(tx: Tx, account_id: int, source: str, references: Sequence[Reference]) -> None:
    if content.refer(tx, account_id, source, references):
        accounts.touch(tx, account_id)


def _take_profile(tx: Tx, account_id: int, profile: SourceProfile, avatar: MediaRow | None) -> bool:
    if avatar is not None:
        posts.add_media(tx, avatar)
    connections.profile_read(tx, account_id, profile.handle)
    return accounts.update_profile(
        tx,
        account_id,
        name=profile.name or None,
        bio=profile.bio,
        source_url=profile.url,
        avatar=avatar.sha256 if avatar else None,
        joined_at=profile.joined,
        without_avatar=profile.avatar is None,
    )


def _attachment(item: SourceMedia, plan: Plan, outcomes: Mapping[str, Outcome]) -> NewAttachment:
    """An item as it is held: under the same key already, copied now, or missing with the reason."""
    if item.key in plan.files:
        kind, sha256 = plan.files[item.key]
        return NewAttachment(kind, item.alt, item.key, sha256=sha256)
    outcome = outcomes[item.key]
    if isinstance(outcome, MediaRow):
        return NewAttachment(kind_of(outcome.media_type), item.alt, item.key, sha256=outcome.sha256)
    return NewAttachment(item.kind, item.alt, item.key, missing=outcome)


def _news(connection: Connection, before: frozenset[str] = frozenset()) -> News:
    return News(connection.speaks_since or connection.connected_at, before, connection.last_read_at)


def _reference(post: SourcePost) -> Reference:
    return Reference(
        post.native_id,
        post.parent.native_id if post.parent else None,
        post.quoted.native_id if post.quoted else None,
    )


def _remember(memory: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    memory[key] = value
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _or_earliest(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else float("-inf")
