"""Addressing: from one activity to one delivery row per distinct inbox.

Rule: recipients are read and written in chunks, each in its own transaction together with how far it came, so that
a million followers need no memory and a killed worker goes on where it stopped. Where something goes, what it makes
pointless ends there in the same transaction (`storage.superseding`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import structlog

from threadbridge.activitypub.text import host_of
from threadbridge.delivery import tending
from threadbridge.delivery.outbox import FAN_OUT
from threadbridge.storage import followers, jobs, ledger, peers, relays, rollups, superseding
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

CHUNK = 500

# The other processes' ready documents follow the database within half a second; the first server to hear of a
# deletion checks it by fetching the post, and must find 410 by then.
DELETE_HEAD_START = timedelta(seconds=1)
_TURN = timedelta(milliseconds=300)


def step(tx: Tx, job: Job) -> dict[str, Any] | None:
    """Address the next chunk of recipients; returns what is left to do, or None when all are addressed.

    Servers that are suspended here get nothing (`ledger` sees to it). Followers get everything. Changes of a post go
    also to whoever received the post (the ledger) and to those who liked, boosted or answered it: they hold copies. A
    change waits until everybody is written down to whom the post itself goes, and a continuation until that is so
    for what it continues; otherwise a deletion could overtake its post, which would stay over there for ever, and a
    thread begin with its second part.
    """
    said = ledger.activity(tx, int(job.arguments["activity"]))
    if said is None or not jobs.progress(tx, job, job.arguments):
        return None
    if any(jobs.wanted(tx, FAN_OUT, str(number)) for number in ledger.unaddressed_before(tx, said)):
        jobs.again(tx, job, tx.now + _TURN)
        return None
    usual = ledger.LANE_POST if said.kind in ("Create", "Announce") else ledger.LANE_CHANGE
    lane = int(job.arguments.get("lane", usual))
    due_at = tx.now + DELETE_HEAD_START if said.kind == "Delete" else None
    phase = job.arguments.get("phase", "followers")
    if phase == "followers":
        chunk = followers.reach(tx, said.account_id, after_id=int(job.arguments.get("after", 0)), limit=CHUNK)
        followed = [(inbox, host_of(inbox)) for _, inbox in chunk]
        _address(tx, said, followed, lane=lane, due_at=due_at)
        if len(chunk) == CHUNK:
            return _left(tx, job, {"phase": "followers", "after": chunk[-1][0]})
        if said.kind == "Create":
            tending.wish_to_know(tx)
            subscribed = [(inbox, host_of(inbox)) for inbox in relays.inboxes(tx)]
            ledger.add_deliveries(tx, said, subscribed, lane=lane)
        if said.kind == "Create" or said.post_id is None:
            _done(tx, job, said.id)
            return None
        return _left(tx, job, {"phase": "holders", "of": 0, "after": ""})
    assert said.post_id is not None
    if "rolled" in job.arguments:
        return _tell_who_held_it(tx, job, said, lane, due_at)
    # Through the earlier activities one by one: each has its recipients in order in an index.
    place, after = int(job.arguments.get("of", 0)), str(job.arguments["after"])
    number = min((number for number in ledger.said_before(tx, said) if number >= place), default=None)
    if number is not None:
        holders = ledger.recipients(tx, number, after=after if number == place else "", limit=CHUNK)
        _address(tx, said, holders, lane=lane, due_at=due_at)
        if len(holders) == CHUNK:
            return _left(tx, job, {"phase": "holders", "of": number, "after": holders[-1][0]})
        return _left(tx, job, {"phase": "holders", "of": number + 1, "after": ""})
    # After those, never before: what goes into the roll-ups meanwhile is found there.
    return _left(tx, job, {"phase": "holders", "rolled": 0})


def _tell_who_held_it(
    tx: Tx, job: Job, said: ledger.Activity, lane: int, due_at: datetime | None
) -> dict[str, Any] | None:
    assert said.post_id is not None
    if "told" not in job.arguments:
        held = rollups.holders(tx, said.post_id, after=int(job.arguments["rolled"]), limit=CHUNK)
        _address(tx, said, [(inbox, host) for _, inbox, host in held], lane=lane, due_at=due_at)
        if len(held) == CHUNK:
            return _left(tx, job, {"phase": "holders", "rolled": held[-1][0]})
    return _tell_conversers(tx, job, said, lane, due_at)


def _tell_conversers(
    tx: Tx, job: Job, said: ledger.Activity, lane: int, due_at: datetime | None
) -> dict[str, Any] | None:
    assert said.post_id is not None
    inboxes = peers.conversers(tx, said.post_id, after=str(job.arguments.get("told", "")), limit=CHUNK)
    talked = [(inbox, host_of(inbox)) for inbox in inboxes]
    _address(tx, said, talked, lane=lane, due_at=due_at, hold_it=True)
    if len(inboxes) == CHUNK:
        return _left(tx, job, {**job.arguments, "told": inboxes[-1]})
    _done(tx, job, said.id)
    return None


def _address(
    tx: Tx,
    said: ledger.Activity,
    inboxes: list[tuple[str, str]],
    *,
    lane: int,
    due_at: datetime | None = None,
    hold_it: bool = False,
) -> None:
    """One row per inbox; `hold_it` when whoever is there certainly has the post."""
    if said.kind in superseding.REPLACING:
        names = [inbox for inbox, _ in inboxes]
        superseding.end_at(tx, said.id, said.order_key, names)
        spared: set[str] = set() if hold_it else superseding.spared(tx, said.id, names)
        inboxes = [(inbox, host) for inbox, host in inboxes if inbox not in spared]
    ledger.add_deliveries(tx, said, inboxes, lane=lane, due_at=due_at)


def _left(tx: Tx, job: Job, place: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: job.arguments[name] for name in ("activity", "lane") if name in job.arguments}
    arguments = {**kept, **place}
    jobs.progress(tx, job, arguments)
    return arguments


def _done(tx: Tx, job: Job, activity_id: int) -> None:
    ledger.mark_fanned_out(tx, activity_id)
    jobs.finish(tx, job)
    tx.after_commit(lambda: log.info("an activity was addressed", number=activity_id))
