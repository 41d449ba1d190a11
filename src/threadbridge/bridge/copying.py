"""Copying media from the source: at once, since its address there expires within hours.

Rule: what could not be had is written down with its reason. A file that will never come (refused, not found) is named
in words; one that may still come is `NOT_ANSWERED`, and is asked for again.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

import structlog

from threadbridge.bridge.compare import NOT_ANSWERED
from threadbridge.domain.source import SourceMedia
from threadbridge.errors import DiskFull, MediaRefused, NetworkError, Unavailable
from threadbridge.media.store import MediaStore
from threadbridge.net.client import Client
from threadbridge.storage.posts import MediaRow

log = structlog.get_logger(__name__)

LIMIT = 1_000_000_000
DEADLINE = 120.0
AT_ONCE = 4
"""Files of one account that are fetched at the same time."""
PAUSES = (0.0, 0.5, 2.0)
"""Seconds before each attempt where there is no later read to try again."""
_TROUBLE = frozenset({408, 425, 429})


Outcome = MediaRow | str
"""The row of a stored file (not yet in the database), or in words why there is none."""


@dataclass(frozen=True, slots=True)
class Copier:
    """Brings media from the source into the store."""

    client: Client
    media: MediaStore

    async def all_of(self, items: Iterable[SourceMedia], *, insist: bool) -> dict[str, Outcome]:
        """{media key: what became of it}. `insist` tries more than once.

        Raises DiskFull and Unavailable: then nothing is written, and the whole read is tried again later.
        """
        some = asyncio.Semaphore(AT_ONCE)
        wanted = {item.key: item for item in items}

        async def one(item: SourceMedia) -> Outcome:
            async with some:
                return await self.fetched(item, insist=insist)

        # All are waited for, also after a failure: nothing goes on behind the back of a read that has ended.
        outcomes = await asyncio.gather(*(one(item) for item in wanted.values()), return_exceptions=True)
        found: dict[str, Outcome] = {}
        for key, outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            found[key] = outcome
        return found

    async def fetched(self, item: SourceMedia, *, insist: bool) -> Outcome:
        """One file, copied."""
        if item.url is None:
            return "the source gives no address for it"
        for pause in PAUSES if insist else PAUSES[:1]:
            await asyncio.sleep(pause)
            outcome = await self._attempt(item, item.url)
            if outcome != NOT_ANSWERED:
                return outcome
        return NOT_ANSWERED

    async def _attempt(self, item: SourceMedia, url: str) -> Outcome:
        with closing(await asyncio.to_thread(self._spool)) as into:
            try:
                got = await self.client.download(url, into=into, limit=LIMIT, deadline=DEADLINE)
                if got.status >= 500 or got.status in _TROUBLE:
                    log.info("media could not be fetched", status=got.status)
                    return NOT_ANSWERED
                if got.status != 200:
                    return f"the source answered {got.status} when asked for it"
                into.seek(0)
                return await asyncio.to_thread(self.media.ingest_stream, into, kind_hint=item.kind)
            except MediaRefused as refusal:
                return refusal.public
            except NetworkError as error:
                log.info("media could not be fetched", reason=error.public)
                return NOT_ANSWERED

    def _spool(self) -> BinaryIO:
        """A file without a name on the media's own disk: whatever kills us, it is gone."""
        folder = self.media.folder / "incoming"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("No space is left for media", detail=str(error)) from error
            raise Unavailable("Media cannot be written now", detail=str(error)) from error
