"""Looking whether the pages that an owner names on the profile link back: only then are they shown as verified.

Rule: what a page says counts, what goes wrong on the way to it does not: a server that is away for a day takes
nobody's mark. Pages are asked rarely, through the one guarded client, and never more than a megabyte of one is read.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from threadbridge.activitypub import relme
from threadbridge.activitypub.content_types import media_type
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.errors import NetworkError
from threadbridge.net.client import Client
from threadbridge.storage import accounts, decisions, jobs, profiles
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

AGAIN = timedelta(days=7)
AGAIN_AFTER_TROUBLE = timedelta(hours=6)
PAGE_MAX = 1_000_000
DEADLINE = 10.0
_AWAY = frozenset({408, 425, 429})

Found = tuple[str, bool | None, str | None]
"""(address, whether it links back or None when nobody can say, the trouble in words)."""


async def check(store: Store, client: Client, ids: Ids, job: Job) -> None:
    """Look at every address among an account's fields."""
    account_id = int(job.arguments["account"])
    links, ours = await store.read(_wanted, ids, account_id)
    found: list[Found] = [(url, *await _look(client, url, ours)) for url in links]
    await store.transact(_write, job, account_id, found)


def _wanted(tx: Tx, ids: Ids, account_id: int) -> tuple[list[str], frozenset[str]]:
    account = accounts.by_id(tx, account_id)
    if account is None:
        return [], frozenset()
    handles = [account.handle, *accounts.former_handles(tx, account_id)]
    ours = frozenset({ids.actor(account_id), *(ids.profile(handle) for handle in handles)})
    return profiles.links_to_check(tx, account_id), ours


async def _look(client: Client, url: str, ours: frozenset[str]) -> tuple[bool | None, str | None]:
    try:
        answer = await client.get(url, headers={"Accept": "text/html"}, limit=PAGE_MAX, deadline=DEADLINE)
    except NetworkError as error:
        return None, error.public
    if answer.status >= 500 or answer.status in _AWAY:
        return None, f"The page answered {answer.status}"
    if answer.status != 200:
        return False, f"The page answered {answer.status}"
    kind, parameters = media_type(answer.headers.get("content-type", ""))
    if kind not in ("text/html", "application/xhtml+xml"):
        return False, "That is no web page"
    page = _text(answer.body, parameters.get("charset", "utf-8"))
    if await asyncio.to_thread(relme.links_back, page, answer.url, ours):
        return True, None
    return False, "The page has no link back with rel=me"


def _text(body: bytes, charset: str) -> str:
    # Only tags matter here, and all charsets of the web write those in ASCII.
    try:
        return body.decode(charset, "replace")
    except (LookupError, UnicodeError):
        return body.decode("latin-1")


def _write(tx: Tx, job: Job, account_id: int, found: list[Found]) -> None:
    for url, links_back, trouble in found:
        if profiles.link_checked(tx, account_id, url, links_back=links_back, trouble=trouble):
            log.info("a link is verified no more", account=account_id, host=host_of(url), reason=trouble)
            decisions.write(
                tx, "link", trouble or "", subject=url, host=host_of(url), account_id=account_id
            )  # fmt: skip
    if not found:
        jobs.finish(tx, job)
    elif any(links_back is None for _, links_back, _ in found):
        jobs.again(tx, job, tx.now + AGAIN_AFTER_TROUBLE)
    else:
        jobs.again(tx, job, tx.now + AGAIN)
