"""Changing an account's RSA key without anybody losing touch.

    trying      a few hosts are told (an Update signed with the old key), then asked something signed with the new one
    spreading   the new key is the current one; everybody is told in the same way, each host is spoken to with the key
                that it believes in, and the old key is published beside the new one for as long as deliveries last
    done        the old key is forgotten
    restoring   the new key was refused, or somebody called it off: whoever was told is told the old key again
    rolled_back

Rule: the news of a key is signed with the key that it replaces (GoToSocial believes nothing else); no step depends on
a process that stays alive; and every step says in words how it stands. Why the new key has an id of its own:
`docs/decisions/0009`.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from threadbridge.activitypub import document, outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.delivery.outbox import FAN_OUT
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.domain.keys import RSA_FRAGMENT, OwnKey, PublishedKeys
from threadbridge.errors import Conflict
from threadbridge.storage import accounts, blocks, decisions, jobs, keys, ledger, profiles, rotations
from threadbridge.storage.jobs import Job
from threadbridge.storage.rotations import Addressed, Rotation
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import NewKey, Vault

log = structlog.get_logger(__name__)

ROTATE = "rotate_key"
"""The kind of job that takes a change of keys further; its key is the change's number."""
CANARIES = 3
PAUSE = timedelta(seconds=20)
"""Between telling a host and asking it: GoToSocial and Misskey answer first and read later."""
LOOK_EVERY = timedelta(seconds=5)
PATIENCE = timedelta(minutes=15)
"""How long a trial waits for an answer."""
REFUSALS = 2
"""A host that refuses this often refuses; the first time it may not have read the news yet."""
WATCH_EVERY = timedelta(hours=1)
_CHUNK = 500
_REFUSED = (401, 403)


def begin(tx: Tx, vault: Vault, account: Account, key: NewKey) -> Rotation:
    """Start to change an account's RSA key to `key`. Raises Conflict when one change is under way already."""
    if account.state is AccountState.GONE:
        raise Conflict("This account has been deleted")
    before = rotations.latest(tx, account.id)
    if before is not None and before.state in rotations.OPEN:
        raise Conflict(
            "The key of this account is being changed already",
            detail=before.reason,
            hint="`threadbridge keys status` says how it stands, `threadbridge keys rollback` takes it back.",
        )
    old = keys.current(tx, account.id)
    made = sum(1 for held in keys.every(tx, account.id) if held.kind == "rsa")
    number = keys.add(tx, vault, account.id, "rsa", key, fragment=f"{RSA_FRAGMENT}-{made + 1}", state="next")
    rotation = rotations.start(tx, account.id, old.id, number, "a few servers are about to be told")
    jobs.add(tx, ROTATE, str(rotation.id), {"rotation": rotation.id})
    accounts.touch(tx, account.id)
    return rotation


_UNTRIED = "there is no follower's server to try it with; whoever else knows the account is being told"


def roll_back(tx: Tx, account: Account) -> Rotation:
    """Take a change of keys back, as long as the old key is still there. Raises Conflict."""
    rotation = rotations.latest(tx, account.id)
    if rotation is None or rotation.state not in ("trying", "spreading"):
        raise Conflict(
            "There is no change of keys that could be taken back",
            detail=rotation.reason if rotation else "the key was never changed",
        )
    _restore(tx, rotation, "called off by the operator")
    jobs.add(tx, ROTATE, str(rotation.id), {"rotation": rotation.id})
    after = rotations.by_id(tx, rotation.id)
    assert after is not None
    return after


def step(tx: Tx, ids: Ids, job: Job) -> None:
    """Take a change of keys one step further, and say when to look again."""
    rotation = rotations.by_id(tx, int(job.arguments["rotation"]))
    account = accounts.by_id(tx, rotation.account_id) if rotation else None
    if rotation is None or account is None or rotation.state not in rotations.OPEN:
        jobs.finish(tx, job)
    elif account.state is AccountState.GONE:
        rotations.move(tx, rotation, "done", "the account was deleted")
        jobs.finish(tx, job)
    elif rotation.state == "trying":
        _try(tx, ids, rotation, account)
        jobs.again(tx, job, tx.now + LOOK_EVERY)
    elif rotation.state == "spreading":
        over = _watch(tx, rotation, account)
        jobs.finish(tx, job) if over else jobs.again(tx, job, tx.now + min(WATCH_EVERY, rotations.KEPT))
    else:
        _take_back(tx, ids, rotation, account, job)


# ── trying ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _try(tx: Tx, ids: Ids, rotation: Rotation, account: Account) -> None:
    if rotation.update_id is None:
        found = [(inbox, host_of(inbox)) for inbox in rotations.canaries(tx, account.id, CANARIES)]
        shut = blocks.suspended_hosts(tx, {host for _, host in found}, account.id)
        chosen = [(inbox, host) for inbox, host in found if host not in shut]
        update = _say(tx, ids, account, rotation, chosen)
        rotations.link(tx, rotation, "update_id", update)
        if not chosen:
            _spread(tx, rotation, account, update, _UNTRIED)
            return
        hosts = ", ".join(host for _, host in chosen)
        rotations.move(tx, rotation, "trying", f"told with the old key: {hosts}; waiting for them to take it")
    elif rotation.probe_id is None:
        _ask(tx, ids, rotation, account)
    else:
        _judge(tx, rotation, account)


def _ask(tx: Tx, ids: Ids, rotation: Rotation, account: Account) -> None:
    assert rotation.update_id is not None
    answers = rotations.addressed(tx, rotation.update_id)
    late = tx.now - rotation.changed_at > PATIENCE
    if any(answer.state == "waiting" and not answer.attempts for answer in answers) and not late:
        return
    told = [(answer.inbox, answer.host) for answer in answers if answer.state == "delivered"]
    if not told:
        if late or all(answer.state != "waiting" for answer in answers):
            _restore(tx, rotation, "no server took the news, although it was signed with the old key")
        return
    probe = _say(tx, ids, account, rotation, told, after=PAUSE)
    rotations.link(tx, rotation, "probe_id", probe)
    hosts = ", ".join(host for _, host in told)
    rotations.move(tx, rotation, "trying", f"asked with the new key: {hosts}; waiting for their answer")


def _judge(tx: Tx, rotation: Rotation, account: Account) -> None:
    assert rotation.update_id is not None
    assert rotation.probe_id is not None
    answers = rotations.addressed(tx, rotation.probe_id)
    took = [answer.host for answer in answers if answer.state == "delivered"]
    refused = [answer.host for answer in answers if _refuses(answer)]
    for answer in answers:
        if answer.state == "waiting" and answer.status in _REFUSED and answer.attempts < REFUSALS:
            rotations.hasten(tx, rotation.probe_id, answer.inbox, tx.now + PAUSE)
    silent = len(answers) - len(took) - len(refused)
    if silent and tx.now - rotation.changed_at <= PATIENCE:
        return
    # Half is too many: what is at stake is every follower. One of three may be a server that verifies with what our
    # document says at this moment, which is the old key (Fedify's do).
    if not took or 2 * len(refused) >= len(took) + len(refused):
        words = f"the new key was refused by {', '.join(refused)}" if refused else "nobody answered to the new key"
        _restore(tx, rotation, words)
        return
    words = f"taken by {', '.join(took)}"
    if refused:
        words += f"; refused by {', '.join(refused)}"
    _spread(tx, rotation, account, rotation.update_id, f"{words}; everybody is being told")


def _refuses(answer: Addressed) -> bool:
    over = answer.state != "waiting" or answer.attempts >= REFUSALS
    return answer.state != "delivered" and over and answer.status in _REFUSED


# ── spreading ────────────────────────────────────────────────────────────────────────────────────────────────────


def _spread(tx: Tx, rotation: Rotation, account: Account, update: int, words: str) -> None:
    keys.set_state(tx, rotation.old_key_id, "old")
    keys.set_state(tx, rotation.new_key_id, "current")
    jobs.add(tx, FAN_OUT, str(update), {"activity": update})
    _decided(tx, rotation, account, "spreading", words)


def _watch(tx: Tx, rotation: Rotation, account: Account) -> bool:
    assert rotation.update_id is not None
    waiting = rotations.totals(tx, rotation.update_id).get("waiting", 0)
    if waiting or jobs.wanted(tx, FAN_OUT, str(rotation.update_id)) or tx.now - rotation.changed_at < rotations.KEPT:
        return False
    keys.set_state(tx, rotation.old_key_id, "retired")
    _decided(tx, rotation, account, "done", "everybody was told; the old key is forgotten")
    return True


# ── taking it back ───────────────────────────────────────────────────────────────────────────────────────────────


def _restore(tx: Tx, rotation: Rotation, words: str) -> None:
    account = accounts.by_id(tx, rotation.account_id)
    assert account is not None
    # Verifiable until everybody has heard: what was signed with it may still be on its way.
    keys.set_state(tx, rotation.new_key_id, "old")
    keys.set_state(tx, rotation.old_key_id, "current")
    said = [number for number in (rotation.update_id, rotation.probe_id) if number is not None]
    for number in said:
        jobs.drop(tx, FAN_OUT, str(number))
        ledger.mark_fanned_out(tx, number)
    rotations.call_off(tx, said, "the key change was taken back")
    _decided(tx, rotation, account, "restoring", f"{words}; whoever was told is told the old key again")


def _take_back(tx: Tx, ids: Ids, rotation: Rotation, account: Account, job: Job) -> None:
    if rotation.update_id is None:
        _rolled_back(tx, rotation, account, job)
        return
    if rotation.restore_id is None:
        rotations.link(tx, rotation, "restore_id", _say(tx, ids, account, rotation, [], restored=True))
        jobs.again(tx, job, tx.now)
        return
    if not job.arguments.get("addressed"):
        after = str(job.arguments.get("after", ""))
        chunk = ledger.recipients(tx, rotation.update_id, after=after, limit=_CHUNK)
        said = ledger.activity(tx, rotation.restore_id)
        assert said is not None
        ledger.add_deliveries(tx, said, chunk, lane=ledger.LANE_ANSWER)
        place = chunk[-1][0] if chunk else after
        jobs.progress(tx, job, {"rotation": rotation.id, "after": place, "addressed": len(chunk) < _CHUNK})
        jobs.again(tx, job, tx.now)
        return
    if rotations.totals(tx, rotation.restore_id).get("waiting", 0):
        jobs.again(tx, job, tx.now + LOOK_EVERY)
        return
    _rolled_back(tx, rotation, account, job)


def _rolled_back(tx: Tx, rotation: Rotation, account: Account, job: Job) -> None:
    keys.set_state(tx, rotation.new_key_id, "retired")
    because = rotation.reason.partition("; whoever")[0]
    _decided(tx, rotation, account, "rolled_back", f"{because}; the old key is in force")
    jobs.finish(tx, job)


# ── saying ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _say(
    tx: Tx,
    ids: Ids,
    account: Account,
    rotation: Rotation,
    inboxes: list[tuple[str, str]],
    *,
    after: timedelta = timedelta(0),
    restored: bool = False,
) -> int:
    """An Update with the account's document as it is once the change is over (or taken back); the activity's number.
    With which key it leaves is decided for each inbox, see `rotations.choose`."""
    by_number = {key.id: key for key in keys.every(tx, account.id)}
    old, new = by_number[rotation.old_key_id], by_number[rotation.new_key_id]
    described = outgoing.with_keys(
        profiles.document(tx, ids, account), _as_published(tx, account, *((old, new) if restored else (new, old)))
    )
    said = outgoing.update_actor(ids, account.id, described, tx.now)
    number = ledger.add_activity(
        tx,
        account_id=account.id,
        uri=document.id_of(said),
        kind="Update",
        order_key=ids.actor(account.id),
        body=outgoing.encode(said),
    )
    assert number is not None, "two Updates in one microsecond"
    activity = ledger.activity(tx, number)
    assert activity is not None
    ledger.add_deliveries(tx, activity, inboxes, lane=ledger.LANE_ANSWER, due_at=tx.now + after)
    ledger.mark_fanned_out(tx, number)
    return number


def _as_published(tx: Tx, account: Account, requests: OwnKey, beside: OwnKey) -> PublishedKeys:
    return PublishedKeys(requests, keys.published(tx, account.id).proofs, (beside,))


def _decided(tx: Tx, rotation: Rotation, account: Account, state: rotations.State, words: str) -> None:
    rotations.move(tx, rotation, state, words)
    accounts.touch(tx, account.id)
    subject = f"key change {rotation.id} of @{account.handle}"
    decisions.write(tx, "Key", words, subject=subject, host="", account_id=account.id)
    log.info("a key change went on", account=account.id, rotation=rotation.id, state=state, reason=words)
