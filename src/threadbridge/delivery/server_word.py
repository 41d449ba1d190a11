"""What the server itself says, rather than one of its accounts: few things, to few inboxes, by a job.

Rule: the ledger belongs to the accounts and their owners; what the server's own actor says (a Follow of a relay and
its end) is kept in the job that says it, signed when it leaves, tried again like any delivery, and given up with a
reason that the operator can read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing import Document
from threadbridge.delivery import retry
from threadbridge.delivery.retry import Answer
from threadbridge.errors import NetworkError
from threadbridge.net.client import Client
from threadbridge.signatures import schemes
from threadbridge.signatures.keys import signing_key
from threadbridge.signatures.schemes import Scheme
from threadbridge.storage import jobs, keys
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import Vault

log = structlog.get_logger(__name__)

SAY = "own_word"
DEADLINE_SECONDS = 15.0
ATTEMPTS = 12
_CONTENT_TYPE = "application/activity+json"
_SCHEMES: tuple[Scheme, ...] = ("cavage", "rfc9421")


def ask(tx: Tx, document: Document, inbox: str) -> None:
    """Have something said by the server's own actor to one inbox."""
    key = hashlib.sha256(f"{document['id']} {inbox}".encode()).hexdigest()
    jobs.add(tx, SAY, key, {"inbox": inbox, "document": document})


async def say(
    store: Store, vault: Vault, client: Client, ids: Ids, job: Job, *, clock: Callable[[], datetime]
) -> None:
    """Send it; settles the job."""
    inbox, document = str(job.arguments["inbox"]), job.arguments["document"]
    answer = await _posted(store, vault, client, ids, inbox, document, clock)
    await store.transact(_settle, job, answer)


async def _posted(
    store: Store, vault: Vault, client: Client, ids: Ids, inbox: str, document: Any, clock: Callable[[], datetime]
) -> Answer:
    own, pem = await store.read(keys.private_key, vault, None)
    key = signing_key(f"{ids.instance}#{own.fragment}", pem)
    body = orjson.dumps(document)
    answer = Answer(None)
    try:
        url = client.canonical(inbox)
        for scheme in _SCHEMES:
            headers = schemes.sign(
                scheme, key, method="POST", url=url, body=body, date=clock(), content_type=_CONTENT_TYPE
            )
            got = await client.post(url, body=body, headers=headers, deadline=DEADLINE_SECONDS)
            answer = Answer(got.status, retry_after=got.headers.get("retry-after"), body=got.body)
            if not retry.other_scheme_worth_trying(answer):
                break
    except NetworkError as error:
        return Answer(None, error.public)
    return answer


def _settle(tx: Tx, job: Job, answer: Answer) -> None:
    if answer.status is not None and 200 <= answer.status < 300:
        jobs.finish(tx, job)
        return
    words = retry.describe(answer)
    log.warning("the server's own word was not taken", inbox=job.arguments["inbox"], reason=words)
    if not retry.is_trouble(answer.status) or job.attempts + 1 >= ATTEMPTS:
        jobs.give_up(tx, job, words)
        return
    delay = retry.asked_delay(answer.retry_after, tx.now) or timedelta(seconds=15 * 2**job.attempts)
    jobs.put_off(tx, job, tx.now + delay, reason=words)
