"""Reading a connected account: pages and media over the network, each page then written in one transaction.

Rule: no transaction is open while the network is asked. Media is copied the moment a post is seen, since its address
at the source expires within hours. A read that stops half-way has done nothing by halves: the next one goes on.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.bridge import compare
from threadbridge.bridge.compare import Changes, Plan
from threadbridge.domain.source import Source, SourceMedia, SourcePage, SourcePost, SourceProfile
from threadbridge.errors import DiskFull, MediaRefused, NetworkError
from threadbridge.media.store import MediaStore
from threadbridge.net.client import Client
from threadbridge.sources import language
from threadbridge.storage import accounts, connections, posts
from threadbridge.storage.connections import Connection
from threadbridge.storage.posts import MediaRow, NewAttachment
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

KINDS: tuple[Literal["post", "reply"], ...] = ("post", "reply")
PAGE = 25
MEDIA_LIMIT = 1_000_000_000
MEDIA_DEADLINE = 120.0
PATIENCE_FOR_MEDIA = timedelta(minutes=10)
CONFIRM_LIMIT = 25
"""How many missing posts are asked for one by one in one read; the rest waits for the next."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The means of reading: everything but the source itself, which is made per account."""

    store: Store
    client: Client
    media: MediaStore
    ids: Ids

    async def latest(self, connection: Connection, source: Source) -> Changes:
        """Read the newest pages; write down and say what changed. Raises SourceError, NetworkError, DiskFull."""
        everything = Changes()
        newest: datetime | None = None
        for kind in KINDS:
            page = await source.page(kind, None, PAGE)
            newest = max([newest, *(post.published for post in page.posts)], key=_or_earliest, default=None)
            changes = await self._take(connection, source, page, history=False)
            _merge(everything, changes)
        await self.store.transact(connections.read_well, connection.account_id, newest=newest)
        return everything

    async def whole_history(
        self, connection: Connection, source: Source, on_page: Callable[[int], None] = lambda _: None
    ) -> Changes:
        """Read everything, newest first; `on_page` hears how many posts were read. What was there before the
        connection stays silent."""
        everything = Changes()
        read = 0
        for kind in KINDS:
            pages = [page async for page in source.history(kind)]
            # Oldest first, so that threads and quotes find what they refer to.
            for page in reversed(pages):
                changes = await self._take(connection, source, page, history=True)
                _merge(everything, changes)
                read += len(page.posts)
                on_page(read)
        await self.store.transact(connections.history_done, connection.account_id)
        await self.store.transact(connections.read_well, connection.account_id, newest=None)
        return everything

    async def profile(self, account_id: int, profile: SourceProfile) -> bool:
        """Take over name, bio and avatar from the source; True if anything changed."""
        avatar = await self._fetched(profile.avatar) if profile.avatar else None
        changed = await self.store.transact(_take_profile, account_id, profile, avatar)
        await self.store.transact(connections.profile_read, account_id)
        return changed

    async def _take(self, connection: Connection, source: Source, page: SourcePage, *, history: bool) -> Changes:
        account_id, name = connection.account_id, connection.source
        plan = await self.store.read(compare.read_plan, account_id, name, page)
        vanished = [] if history else await self._vanished(source, plan)
        if not (plan.new or plan.edited or plan.refreshed or vanished):
            return Changes()
        changing = [*plan.new, *plan.edited]
        young = self.store.clock() - PATIENCE_FOR_MEDIA
        held = await asyncio.gather(
            *(self._attachments(post, patient=not history and post.published > young) for post in changing)
        )
        attachments = {post.native_id: media for post, media in zip(changing, held, strict=True)}
        languages = await asyncio.to_thread(_languages, changing)
        return await self.store.transact(
            _apply, self.ids, connection, plan, attachments, languages, vanished=vanished, history=history
        )

    async def _vanished(self, source: Source, plan: Plan) -> list[str]:
        """The missing posts that the source, asked for each, says are gone. An empty page can also mean a lost
        permission, and a page can be served from an old copy."""
        return [native_id for native_id in plan.missing[:CONFIRM_LIMIT] if not await source.exists(native_id)]

    async def _attachments(self, post: SourcePost, *, patient: bool) -> list[NewAttachment]:
        held = []
        for item in post.media:
            row = await self._fetched(item, patient=patient)
            held.append(
                NewAttachment(item.kind, item.alt, item.key, sha256=row.sha256)
                if isinstance(row, MediaRow)
                else NewAttachment(item.kind, item.alt, item.key, missing=row or "the source gives no address for it")
            )
        return held

    async def _fetched(self, item: SourceMedia, *, patient: bool = False) -> MediaRow | str | None:
        """The stored media, or why it could not be had. Raises DiskFull, since then the post has to wait; and, when
        `patient`, NetworkError: a new post rather goes out a little later than without its picture."""
        if item.url is None:
            return None
        with tempfile.TemporaryDirectory(prefix="incoming-", dir=self.media.folder) as folder:
            path = Path(folder) / "media"
            try:
                with path.open("wb") as into:
                    got = await self.client.download(item.url, into=into, limit=MEDIA_LIMIT, deadline=MEDIA_DEADLINE)
                if got.status != 200:
                    return f"the source answered {got.status} when asked for it"
                row = await asyncio.to_thread(self.media.ingest, path, kind_hint=item.kind)
            except MediaRefused as error:
                return error.public
            except NetworkError as error:
                if patient:
                    raise
                log.info("media could not be fetched", reason=error.public)
                return error.public
            except OSError as error:
                raise DiskFull("No space is left for media", detail=str(error)) from error
        await self.store.transact(posts.add_media, row)
        return row


def _apply(
    tx: Tx,
    ids: Ids,
    connection: Connection,
    plan: Plan,
    attachments: dict[str, list[NewAttachment]],
    languages: dict[str, str | None],
    *,
    vanished: Sequence[str],
    history: bool,
) -> Changes:
    return compare.apply(
        tx,
        ids,
        connection.account_id,
        connection.source,
        plan,
        attachments,
        languages,
        vanished=vanished,
        history=history,
        connected_at=connection.connected_at,
        speaks_since=connection.speaks_since,
    )


def _take_profile(tx: Tx, account_id: int, profile: SourceProfile, avatar: MediaRow | str | None) -> bool:
    return accounts.update_profile(
        tx,
        account_id,
        name=profile.name or None,
        bio=profile.bio,
        source_url=profile.url,
        avatar=avatar.sha256 if isinstance(avatar, MediaRow) else None,
        joined_at=profile.joined,
    )


def _languages(changing: Sequence[SourcePost]) -> dict[str, str | None]:
    return {post.native_id: post.language or language.detect(post.text) for post in changing}


def _merge(into: Changes, changes: Changes) -> None:
    into.created += changes.created
    into.recognised += changes.recognised
    into.edited += changes.edited
    into.deleted += changes.deleted


def _or_earliest(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else float("-inf")
