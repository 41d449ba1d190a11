"""Update and Delete of an actor who speaks about itself."""

from __future__ import annotations

from datetime import datetime

import structlog

from threadbridge.activitypub import incoming
from threadbridge.federation.heard import Heard
from threadbridge.storage import followers, jobs, peers
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

BURY = "bury"
"""The kind of job that ends what somebody did here who is gone, when it is more than one transaction should hold."""
CHUNK = 200


def updated(tx: Tx, activity: incoming.Update, heard: Heard) -> str | None:
    """The actor's description changed. It was signed with the key we know, so the new one, inboxes and key included,
    is believed (`heard.peer` holds it already: the door reads it from the activity)."""
    followers.move_inbox(tx, heard.peer)
    return None


def deleted(tx: Tx, activity: incoming.Delete, heard: Heard) -> str | None:
    """The actor is gone: so are its follow, its reactions and its answers."""
    if peers.bury(tx, activity.actor, limit=CHUNK):
        log.info("an actor with much to end is gone", actor=activity.actor)
        when = {"actor": activity.actor, "before": tx.now.isoformat()}
        jobs.add(tx, BURY, jobs.key_of(activity.actor), when)
    return None


def bury_more(tx: Tx, job: Job) -> bool:
    """End the next of what somebody did here who is gone; False when nothing is left."""
    before = datetime.fromisoformat(str(job.arguments["before"]))
    if peers.bury_more(tx, str(job.arguments["actor"]), before=before, limit=CHUNK):
        return True
    jobs.finish(tx, job)
    return False
