"""The deletion of an account, phase by phase.

    cooling   the account is paused; until the time is up all can be taken back
    telling   it is gone here (410); a signed Delete goes to everybody who ever got anything from it or met it
    keeping   all deliveries have ended; the key stays readable for a while, for those who verify late
    erasing   the key, the texts and the media go; what stays are numbers that answer 410 for ever
    done

Rule: every step is one transaction together with how far it came, so that a killed worker goes on where it stopped;
the same step done twice is done once. The Delete goes to suspended servers too, the only thing that does. A handle or
number of a deleted account is never used again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog

from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import AccountState
from threadbridge.errors import Conflict, Gone, NotFound
from threadbridge.storage import accounts, connections, decisions, farewells, jobs, ledger, rollups, superseding
from threadbridge.storage import held as not_left
from threadbridge.storage.farewells import Farewell
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

COOLING = timedelta(days=7)
"""How long a deletion can be taken back, unless whoever asks for it says otherwise."""
KEY_STAYS = timedelta(hours=12)
"""Servers work through what they received within hours; a Delete whose key is gone by then is dropped as unverified
(Misskey and Mastodon fetch keys when a queue's turn comes)."""
LOOK_EVERY = timedelta(minutes=5)
BREATH = timedelta(seconds=1)
CHUNK = 500
SILENCED_TOGETHER = 2000
ROLLED = "the roll-ups"
"""What the place of `telling` is called between the ledger and the tables of people."""
ERASED_TOGETHER = 100


def ask(tx: Tx, account_id: int, asked_by: str, cooling: timedelta = COOLING) -> Farewell:
    """Ask for the deletion of an account; it falls silent at once and goes when `cooling` is over. Raises NotFound,
    Gone, or Conflict when that is under way."""
    account = accounts.by_id(tx, account_id)
    if account is None:
        raise NotFound("There is no such account here")
    if account.state is AccountState.GONE:
        raise Gone(f"The account {account.handle!r} has been deleted")
    if farewells.of_account(tx, account_id) is not None:
        raise Conflict(f"The account {account.handle!r} is being deleted already")
    farewells.ask(
        tx, account_id, asked_by=asked_by, due_at=tx.now + cooling, state_before=account.state
    )  # fmt: skip
    accounts.set_state(tx, account_id, AccountState.PAUSED, f"deletion asked for by {asked_by}")
    _decided(tx, account_id, f"deletion asked for by {asked_by}")
    asked = farewells.of_account(tx, account_id)
    assert asked is not None
    return asked


def take_back(tx: Tx, account_id: int, asked_by: str) -> None:
    """The account is to stay after all. Raises Conflict when nothing can be taken back (any more)."""
    held = farewells.of_account(tx, account_id)
    if held is None or not farewells.take_back(tx, account_id):
        if held is None:
            raise Conflict(
                "There is no deletion to take back", hint="`threadbridge accounts` shows which are asked for."
            )
        raise Conflict("The deletion has begun; other servers have been told, and it cannot be taken back")
    if held.state_before is AccountState.ACTIVE:
        accounts.set_state(tx, account_id, AccountState.ACTIVE, f"deletion taken back by {asked_by}")
        connections.speak_from_now(tx, account_id)
        not_left.go_on(tx, account_id)
    _decided(tx, account_id, f"deletion taken back by {asked_by}")


def _decided(tx: Tx, account_id: int, words: str) -> None:
    log.info("an account's deletion", account=account_id, what=words)
    decisions.write(tx, "Farewell", words, subject=str(account_id), host="", account_id=account_id)


# ── the job ──────────────────────────────────────────────────────────────────────────────────────────────────────


def step(tx: Tx, ids: Ids, job: Job) -> tuple[str, dict[str, Any]] | None:
    """One step of telling and keeping; returns the phase and how far it is, or None when nothing more is to be done
    now. In the phase 'erasing' the rest needs the disk: `worker` goes on with `erase_…` below."""
    account_id = int(job.arguments["account"])
    held = farewells.of_account(tx, account_id)
    if held is None or held.phase == "done":
        jobs.finish(tx, job)
        return None
    if not jobs.progress(tx, job, job.arguments):
        return None
    if held.phase == "cooling":
        return _begin(tx, ids, account_id)
    if held.phase == "telling":
        return _tell(tx, job, held)
    if held.phase == "keeping":
        return _keep(tx, job, held)
    return held.phase, job.arguments


def _begin(tx: Tx, ids: Ids, account_id: int) -> tuple[str, dict[str, Any]]:
    accounts.lock(tx, account_id)
    farewells.silence(tx, account_id, fan_out=outbox.FAN_OUT)
    accounts.set_state(tx, account_id, AccountState.GONE, "deleted")
    activity_id = outbox.say_farewell(tx, ids, account_id)
    superseding.replace_all(tx, account_id, activity_id)
    farewells.move_on(tx, account_id, "telling", activity_id=activity_id)
    log.info("an account is deleted", account=account_id)
    return "telling", {"account": account_id}


def _tell(tx: Tx, job: Job, held: Farewell) -> tuple[str, dict[str, Any]] | None:
    """Address the next ones: first whoever the ledger knows, then whoever followed, liked, boosted, answered, …"""
    assert held.activity_id is not None
    said = ledger.activity(tx, held.activity_id)
    assert said is not None
    place = job.arguments.get("place")
    tables = farewells.acquainted_by()
    if place is None:
        if superseding.silence(tx, held.account_id, SILENCED_TOGETHER):
            return "telling", job.arguments
        if superseding.under_way(tx, held.account_id):
            # What somebody is sending just now arrives before the last word, or not at all.
            jobs.again(tx, job, tx.now + BREATH)
            return None
    if place is None or isinstance(place[0], int):
        after = (int(place[0]), str(place[1])) if place else (0, "")
        known = farewells.receivers(tx, held.account_id, after, CHUNK)
        _address(tx, said, [(inbox, host) for _, inbox, host in known])
        if len(known) == CHUNK:
            return _left(tx, job, [known[-1][0], known[-1][1]])
        # After those, never before: what goes into the roll-ups meanwhile is found there.
        return _left(tx, job, [ROLLED, 0])
    if place[0] == ROLLED:
        before = rollups.known_to(tx, held.account_id, after=int(place[1]), limit=CHUNK)
        _address(tx, said, [(inbox, host) for _, inbox, host in before])
        return _left(tx, job, [ROLLED, before[-1][0]] if len(before) == CHUNK else [tables[0], ""])
    table, after_uri = str(place[0]), str(place[1])
    met = farewells.acquainted(tx, table, held.account_id, after_uri, CHUNK)
    _address(tx, said, [(inbox, host_of(inbox)) for _, inbox in met])
    if len(met) == CHUNK:
        return _left(tx, job, [table, met[-1][0]])
    following = [name for name in tables if name > table]
    if following:
        return _left(tx, job, [following[0], ""])
    ledger.mark_fanned_out(tx, said.id)
    farewells.move_on(tx, held.account_id, "keeping")
    return "keeping", job.arguments


def _address(tx: Tx, said: ledger.Activity, inboxes: list[tuple[str, str]]) -> None:
    # Suspended servers too: they may hold copies, the owner wants them gone, and once the key is destroyed nobody can
    # ask for it any more. It tells them nothing but that they are to forget.
    ledger.add_deliveries(tx, said, inboxes, lane=ledger.LANE_BULK, suspended_too=True)


def _left(tx: Tx, job: Job, place: list[Any]) -> tuple[str, dict[str, Any]]:
    arguments = {"account": job.arguments["account"], "place": place}
    jobs.progress(tx, job, arguments)
    return "telling", arguments


def _keep(tx: Tx, job: Job, held: Farewell) -> tuple[str, dict[str, Any]] | None:
    assert held.activity_id is not None
    if farewells.still_telling(tx, held.activity_id):
        jobs.again(tx, job, tx.now + LOOK_EVERY)
        return None
    if held.told_at is None:
        farewells.move_on(tx, held.account_id, "keeping", told_at=tx.now)
        jobs.again(tx, job, tx.now + KEY_STAYS)
        return None
    if tx.now < held.told_at + KEY_STAYS:
        jobs.again(tx, job, held.told_at + KEY_STAYS)
        return None
    farewells.destroy_keys(tx, held.account_id)
    farewells.move_on(tx, held.account_id, "erasing")
    return "erasing", job.arguments


# ── erasing: between these the worker removes files ──────────────────────────────────────────────────────────────


def next_posts(tx: Tx, account_id: int, after: int) -> tuple[list[int], list[tuple[str, str]]]:
    """Posts to be emptied next, and (hash, media type) of files that only they show."""
    numbers = farewells.posts_to_erase(tx, account_id, after, ERASED_TOGETHER)
    return numbers, farewells.files_of_posts(tx, numbers)


def posts_erased(tx: Tx, job: Job, numbers: list[int], files: list[str]) -> bool:
    """Empty them; False if somebody else does this work now."""
    account_id = int(job.arguments["account"])
    farewells.erase_posts(tx, account_id, numbers, files)
    return jobs.progress(tx, job, {"account": account_id, "erased": numbers[-1]})


def profile_erased(tx: Tx, account_id: int, files: list[str]) -> None:
    """Empty the account's row."""
    farewells.erase_profile(tx, account_id)
    farewells.forget_files(tx, files)


def erase_rows(tx: Tx, account_id: int) -> bool:
    """Delete some of the rest; True while there may be more."""
    return farewells.erase_rows(tx, account_id, CHUNK)


def done(tx: Tx, job: Job) -> None:
    """Nothing is left but what answers 410."""
    account_id = int(job.arguments["account"])
    farewells.move_on(tx, account_id, "done", erased_at=tx.now)
    jobs.finish(tx, job)
    log.info("an account is erased", account=account_id)
