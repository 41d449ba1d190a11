"""Lists of rules: brought in as a file, followed at an address, previewed before either.

Rule: nothing of a list is taken over unless all of it is understood (a file), or nearly all (a followed list, which
nobody here can mend); a followed list that fails, comes empty or suddenly says much less changes nothing and says so.
A list only ever changes what it said itself: what it retracts is lifted, the operator's own rules stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from threadbridge.activitypub import blocklists
from threadbridge.activitypub.blocklists import Problem, Read, Row
from threadbridge.activitypub.ids import Ids
from threadbridge.domain.blocks import SEVERITIES, Rule, Severity, Somebody, Standing, judge
from threadbridge.errors import BadAnswer, Invalid, NetworkError
from threadbridge.federation import enforcement
from threadbridge.net.client import Client
from threadbridge.storage import accounts, blocks, decisions, jobs, parking
from threadbridge.storage.blocks import OPERATOR, Entry, Subscription
from threadbridge.storage.jobs import Job
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

READ_LIST = "read_list"
EVERY = timedelta(hours=24)
AGAIN = timedelta(hours=1)
"""After a failure."""
FETCH_SECONDS = 60.0
BAD_SHARE = 0.1
SHRUNK_SHARE = 0.5
SHRUNK_FROM = 10
"""A followed list of so many entries that loses more than half of them at once is believed only by hand."""


def import_file(tx: Tx, read: Read, *, account_id: int | None = None, replace: bool = False) -> tuple[int, int, int]:
    """Hold what a file says as the operator's own rules (or an owner's); (new or changed, as before, lifted). With
    `replace` rules that the file does not name are lifted. Raises Invalid when a row was not understood: then nothing
    is stored."""
    check(read)
    held_by = OPERATOR if account_id is None else blocks.owner(account_id)
    entries = [entry_of(row) for row in read.rows]
    changed = enforcement.add_rules(tx, held_by, entries, account_id=account_id)
    lifted: list[Entry] = []
    if replace:
        lifted = blocks.remove_missing(tx, held_by, [(entry.kind, entry.subject) for entry in entries])
        enforcement.ask(tx, lifted)
    return len(changed), len(entries) - len(changed), len(lifted)


def check(read: Read) -> None:
    """Raises Invalid, naming the first rows that were not understood with their lines."""
    if read.problems:
        named = "; ".join(f"line {problem.line}: {problem.words}" for problem in read.problems[:10])
        more = f"; and {len(read.problems) - 10} more" if len(read.problems) > 10 else ""
        raise Invalid("The list was not taken: not every row is understood", detail=named + more)
    if not read.rows:
        raise Invalid("The list names nobody")


def entry_of(row: Row, cap: Severity | None = None) -> Entry:
    """A row as a rule; no stricter than `cap`."""
    severity = row.severity
    if cap is not None and SEVERITIES.index(severity) > SEVERITIES.index(cap):
        severity = cap
    return Entry(row.kind, row.subject, severity, row.comment, row.reject_media, row.reject_reports, row.obfuscate)


def export(tx: Tx) -> bytes:
    """The operator's own rules about domains as Mastodon's CSV."""
    return blocklists.write(_rows(held.entry for held in blocks.of_holder(tx, OPERATOR)))


def _rows(entries: Iterable[Entry]) -> list[Row]:
    return [
        Row(0, e.kind, e.subject, e.severity, e.comment, e.reject_media, e.reject_reports, e.obfuscate)
        for e in entries
    ]  # fmt: skip


# ── preview ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Loss:
    """What one account would lose, by server."""

    handle: str
    host: str
    standing: Standing
    followers: int
    reactions: int
    replies: int
    mentions: int
    quotes: int
    votes: int
    requests: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What rules would change: servers that we know and whose standing would become stricter, and what that cuts."""

    hosts: tuple[tuple[str, Standing], ...]
    losses: tuple[Loss, ...]


def preview(tx: Tx, entries: Sequence[Entry], *, priority: int | None = None) -> Preview:
    """What would be cut if these rules held too (as the operator's own, or with a list's priority). Changes
    nothing; rules about single actors are counted with their servers' ones only where those are named whole."""
    added = {
        entry.subject: Rule(entry.kind, entry.subject, entry.severity, None, priority)
        for entry in entries
        if entry.kind == "domain"
    }
    stricter: dict[str, Standing] = {}
    for host in parking.hosts_met(tx):
        about = Somebody(None, host)
        new = [added[subject] for subject in about.subjects() if subject in added]
        if not new:
            continue
        present = blocks.about(tx, about.subjects())
        replaced = {rule.subject for rule in new} if priority is None else set()
        kept = [
            rule
            for rule in present
            if not (rule.account_id is None and rule.priority is None and rule.subject in replaced)
        ]
        before, after = judge(present, about).standing, judge([*kept, *new], about).standing
        if after > before:
            stricter[host] = after
    handles = {account.id: account.handle for account in accounts.listed(tx)}
    losses = tuple(
        Loss(handles[cut.account_id], cut.host, stricter[cut.host],
             cut.followers if stricter[cut.host] is Standing.SUSPENDED else 0, cut.reactions, cut.replies,
             cut.mentions if stricter[cut.host] is Standing.SUSPENDED else 0, cut.quotes, cut.votes,
             cut.requests if stricter[cut.host] is Standing.SUSPENDED else 0)
        for cut in parking.ties_by_host(tx)
        if cut.host in stricter
    )  # fmt: skip
    return Preview(tuple(sorted(stricter.items())), losses)


# ── followed lists ───────────────────────────────────────────────────────────────────────────────────────────────


def subscribe(tx: Tx, url: str, *, name: str, priority: int, severity_cap: Severity) -> int:
    """Follow a list; it is read at once, and every day."""
    if severity_cap == "allow":
        raise Invalid("A list is capped at limit or suspend")
    list_id = blocks.subscribe(tx, url, name or url, priority, severity_cap)
    ask(tx, list_id)
    return list_id


def ask(tx: Tx, list_id: int, *, force: bool = False) -> None:
    """Have a followed list read now; with `force` it is believed although it has shrunk."""
    jobs.add(tx, READ_LIST, str(list_id), {"list": list_id, **({"force": True} if force else {})})


def unsubscribe(tx: Tx, url: str) -> bool:
    """Follow a list no more; what only it had ruled is lifted."""
    of_it = next((one for one in blocks.subscriptions(tx) if one.url == url), None)
    if of_it is None:
        return False
    lifted = [held.entry for held in blocks.of_holder(tx, blocks.of_list(of_it.id))]
    blocks.unsubscribe(tx, url)
    enforcement.ask(tx, lifted)
    return True


def unchanged(tx: Tx, job: Job, list_id: int) -> None:
    """The list says what it said before."""
    blocks.list_unchanged(tx, list_id)
    _later(tx, job, EVERY)


def failed(tx: Tx, job: Job, followed: Subscription, words: str) -> None:
    """The list could not be had, or is not to be believed: everything stays as it is."""
    blocks.list_failed(tx, followed.id, words)
    decisions.write_once(tx, "list", f"not taken over: {words}", subject=followed.url, host="")
    _later(tx, job, AGAIN)


def _later(tx: Tx, job: Job, delay: timedelta) -> None:
    # Once more by itself; what was wanted only this time is forgotten.
    jobs.progress(tx, job, {"list": job.arguments["list"]})
    jobs.again(tx, job, tx.now + delay)


def taken(
    tx: Tx, ids: Ids, job: Job, followed: Subscription, read: Read, etag: str | None, *, force: bool = False
) -> str | None:
    """Take over what a followed list says now; returns why not, and then changes nothing. What it says about this
    server itself is passed over: our accounts talk to each other, whatever others think of us."""
    if (trouble := doubt(read, followed.entries, force=force)) is not None:
        failed(tx, job, followed, trouble)
        return trouble
    held_by = blocks.of_list(followed.id)
    said = [entry_of(row, followed.severity_cap) for row in read.rows]
    entries = [entry for entry in said if not enforcement.names_us(ids.authority, entry)]
    if len(entries) < len(said):
        words = "the list names this server itself, which is passed over"
        log.warning(words, url=followed.url)
        decisions.write_once(tx, "list", words, subject=followed.url, host="")
    added = enforcement.add_rules(tx, held_by, entries, list_id=followed.id)
    lifted = blocks.remove_missing(tx, held_by, [(entry.kind, entry.subject) for entry in entries])
    enforcement.ask(tx, lifted)
    blocks.list_taken(tx, followed.id, len(entries), etag, _remark(read.problems))
    if added or lifted:
        words = f"{len(added)} rules new or changed, {len(lifted)} retracted"
        decisions.write(tx, "list", words, subject=followed.url, host="")
    _later(tx, job, EVERY)
    return None


def doubt(read: Read, entries_before: int, *, force: bool = False) -> str | None:
    """Why a followed list is not taken over; None when it is believed."""
    rows = len(read.rows)
    if not rows:
        return "the list is empty"
    if len(read.problems) > BAD_SHARE * (rows + len(read.problems)):
        first = read.problems[0]
        return f"{len(read.problems)} rows are not understood, the first in line {first.line}: {first.words}"
    if not force and entries_before >= SHRUNK_FROM and rows < SHRUNK_SHARE * entries_before:
        return f"the list has shrunk from {entries_before} entries to {rows}; take it over by hand if that is meant"
    return None


def _remark(problems: Sequence[Problem]) -> str | None:
    if not problems:
        return None
    named = "; ".join(f"line {problem.line}: {problem.words}" for problem in problems[:5])
    return f"{len(problems)} rows left out: {named}"


async def fetch(client: Client, url: str, etag: str | None = None) -> tuple[Read | None, str | None]:
    """(what a list says, its ETag); None for the list when it has not changed. Raises NetworkError, Invalid."""
    headers = {"Accept": "text/csv, text/plain;q=0.9", **({"If-None-Match": etag} if etag else {})}
    answer = await client.get(url, headers=headers, limit=blocklists.SIZE_MAX, deadline=FETCH_SECONDS)
    if answer.status == 304 and etag:
        return None, etag
    if answer.status != 200:
        raise BadAnswer(f"{url} answered {answer.status}", status=answer.status)
    read = await asyncio.to_thread(blocklists.read, answer.body)
    return read, answer.headers.get("etag")


async def read_followed(store: Store, client: Client, ids: Ids, job: Job) -> str | None:
    """Read one followed list and settle the job; returns why it was not taken over."""
    followed = await store.read(blocks.subscription, int(job.arguments["list"]))
    if followed is None:
        await store.transact(jobs.finish, job)
        return "the list is not followed any more"
    force = bool(job.arguments.get("force"))
    try:
        read, etag = await fetch(client, followed.url, None if force else followed.etag)
    except (NetworkError, Invalid) as error:
        log.warning("a block list was not taken over", url=followed.url, reason=str(error))
        await store.transact(failed, job, followed, str(error))
        return str(error)
    if read is None:
        await store.transact(unchanged, job, followed.id)
        return None
    trouble = await store.transact(taken, ids, job, followed, read, etag, force=force)
    if trouble is not None:
        log.warning("a block list was not taken over", url=followed.url, reason=trouble)
    else:
        log.info("a block list was taken over", url=followed.url, entries=len(read.rows), left_out=len(read.problems))
    return trouble
