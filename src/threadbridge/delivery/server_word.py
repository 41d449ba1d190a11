"""What the server itself says, rather than one of its accounts: few things, to few inboxes, by a job.

Rule: the ledger belongs to the accounts and their owners; what the server's own actor says (a complaint, a Follow of
a relay and its end) is kept in the job that says it. It leaves like every delivery: with its proof, signed as its
host takes it, judged by the same table, and not before the host is to be asked again. To a server that the operator
has suspended nothing goes. What is given up stays with its reason, for the operator.
"""

from __future__ import annotations

import hashlib
import random
from datetime import datetime, timedelta

import structlog

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing import Document
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import retry
from threadbridge.delivery.carrier import Carrier
from threadbridge.delivery.proving import Prover
from threadbridge.delivery.retry import Answer
from threadbridge.signatures.keys import SigningKey, signing_key
from threadbridge.storage import blocks, hosts, jobs, keys
from threadbridge.storage.hosts import Taken
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import Vault

log = structlog.get_logger(__name__)

SAY = "own_word"
TURN = timedelta(seconds=5)
SUSPENDED = "this server is suspended here"


def ask(tx: Tx, document: Document, inbox: str, *, after: str | None = None) -> None:
    """Have something said by the server's own actor to one inbox; nothing is, if its server is suspended. `after` is
    the id of what must have been said there before (a Follow, before its Undo)."""
    if blocks.suspended_hosts(tx, [host_of(inbox)]):
        log.info("the server's own word was not said", inbox=inbox, kind=document.get("type"), reason=SUSPENDED)
        return
    arguments = {"inbox": inbox, "document": document, "said_at": tx.now.isoformat()}
    if after is not None:
        arguments["after"] = after
    jobs.add(tx, SAY, _key(str(document["id"]), inbox), arguments)


def trouble(tx: Tx, uri: str, inbox: str) -> str | None:
    """Why what was to be said (by its id) has not arrived; None when it has, or nothing was tried yet."""
    return jobs.trouble(tx, SAY, _key(uri, inbox))


def _key(uri: str, inbox: str) -> str:
    return hashlib.sha256(f"{uri} {inbox}".encode()).hexdigest()


async def say(store: Store, vault: Vault, carrier: Carrier, prover: Prover, ids: Ids, job: Job) -> None:
    """Send it; settles the job."""
    inbox = str(job.arguments["inbox"])
    if not await store.transact(_may_go, job, host_of(inbox)):
        return
    key, body, taken = await store.read(_made, vault, prover, ids, job)
    answer, learnt = await carrier.knock(inbox, host_of(inbox), body, key, taken)
    spread = random.uniform(-1, 1)  # noqa: S311 (jitter)
    await store.transact(_settle, job, answer, learnt, spread)


def _may_go(tx: Tx, job: Job, host: str) -> bool:
    if blocks.suspended_hosts(tx, [host]):
        # Since it was asked for: what waits is called back like any delivery.
        jobs.give_up(tx, job, SUSPENDED)
        return False
    before = job.arguments.get("after")
    if before is not None and jobs.wanted(tx, SAY, _key(str(before), str(job.arguments["inbox"]))):
        jobs.wait(tx, job, tx.now + TURN, reason="something has to be said before it")
        return False
    if (until := hosts.rests_until(tx, host)) is not None:
        jobs.wait(tx, job, until, reason=f"{host} is left alone for a while")
        return False
    return True


def _made(tx: Tx, vault: Vault, prover: Prover, ids: Ids, job: Job) -> tuple[SigningKey, bytes, Taken | None]:
    """The key, the bytes to send (the same every time) and what is known of the host."""
    own, pem = keys.private_key(tx, vault, None)
    body = prover.proved(tx, None, outgoing.encode(job.arguments["document"]), _said_at(job))
    host = host_of(str(job.arguments["inbox"]))
    return signing_key(f"{ids.instance}#{own.fragment}", pem), body, hosts.schemes(tx, {host}).get(host)


def _said_at(job: Job) -> datetime:
    return datetime.fromisoformat(str(job.arguments["said_at"]))


def _settle(tx: Tx, job: Job, answer: Answer, learnt: Taken | None, spread: float) -> None:
    inbox = str(job.arguments["inbox"])
    host = host_of(inbox)
    outcome = retry.judge(
        answer,
        kind=str(job.arguments["document"]["type"]),
        attempts=job.attempts,
        created_at=_said_at(job),
        now=tx.now,
        spread=spread,
        host_failures=hosts.failures(tx, [host]).get(host, 0),
        previous=job.arguments.get("status"),
    )
    if outcome.asked_for_time and outcome.due_at is not None:
        until = outcome.asked_until or outcome.due_at
        hosts.asked_for_peace(tx, host, outcome.reason or "", until, down=outcome.kind != "slow down")
    elif outcome.host_trouble is not None:
        hosts.in_trouble(
            tx, host, outcome.host_trouble, held_until=outcome.held_until, asked_until=outcome.asked_until
        )
    else:
        hosts.reached(tx, host)
    if learnt is not None:
        hosts.remember_scheme(tx, host, learnt)
    if outcome.state == "delivered":
        jobs.finish(tx, job)
        return
    words = outcome.reason or outcome.state
    log.warning("the server's own word was not taken", inbox=inbox, reason=words, state=outcome.state)
    if outcome.due_at is None:
        jobs.give_up(tx, job, words)
    else:
        jobs.progress(tx, job, {**job.arguments, "status": answer.status})
        jobs.put_off(tx, job, outcome.due_at, reason=words)
