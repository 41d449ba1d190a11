"""Rules about who may speak here: kept, looked up by those whom they concern.

Rule: nothing here decides; `domain.blocks` does. A holder (the operator, one owner, one subscribed list, the
allow-list setting) has one rule per subject, and only ever changes its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, insert, or_, select, update

from threadbridge.domain.blocks import EVERYWHERE, Rule, Severity, Somebody, Standing, SubjectKind, judge
from threadbridge.storage import schema
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx

_b, _l = schema.blocks, schema.block_lists
_CHUNK = 500

OPERATOR = "operator"
SETTING = "setting"


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule as its holder wrote it."""

    kind: SubjectKind
    subject: str
    severity: Severity
    comment: str = ""
    reject_media: bool = False
    reject_reports: bool = False
    obfuscate: bool = False
    actor: str | None = field(default=None, compare=False)
    """Whom the handle that is the subject names, by id, where that is known."""


@dataclass(frozen=True, slots=True)
class Held:
    """An entry with its holder and its time."""

    id: int
    held_by: str
    account_id: int | None
    entry: Entry
    at: datetime


def owner(account_id: int) -> str:
    """The holder's name of an owner's rules."""
    return f"owner:{account_id}"


def of_list(list_id: int) -> str:
    """The holder's name of a subscribed list."""
    return f"list:{list_id}"


# ── whom they concern ────────────────────────────────────────────────────────────────────────────────────────────


def about(tx: Tx, subjects: Iterable[str]) -> list[Rule]:
    """Every rule about any of these subjects, of all holders."""
    asked = list(dict.fromkeys(subjects))
    found: list[Rule] = []
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        some += some[-1:] * (_AT_ONCE - len(some))
        found += [_rule(row) for row in _ABOUT.all(tx, **dict(zip(_PLACES, some, strict=True)))]
    return found


_AT_ONCE = 16
_PLACES = [f"subject_{number}" for number in range(_AT_ONCE)]
_ASKED: list[Any] = [bindparam(place) for place in _PLACES]
_ABOUT = Prepared(
    lambda _: _rules().where(or_(_b.c.subject.in_(_ASKED), _b.c.actor_uri.in_(_ASKED)), _b.c.kind != "keyword")
)
_WORDED = Prepared(lambda _: select(_b.c.id).where(_b.c.kind == "keyword").limit(1))
_KEYWORDS = Prepared(
    lambda _: _rules().where(
        _b.c.kind == "keyword", _b.c.account_id.is_(None) | (_b.c.account_id == bindparam("owner"))
    )
)


def _rules() -> Select[Any]:
    columns = (_b.c.kind, _b.c.subject, _b.c.severity, _b.c.account_id, _b.c.held_by, _b.c.actor_uri, _l.c.priority)
    return select(*columns).join(_l, _l.c.id == _b.c.list_id, isouter=True)


def _rule(row: Row[Any]) -> Rule:
    return Rule(row.kind, row.subject, row.severity, row.account_id, row.priority, row.held_by, row.actor_uri)


def suspended_hosts(tx: Tx, hosts: Iterable[str], account_id: int | None = None) -> set[str]:
    """Those of these hosts which the operator has suspended, or the owner of this account."""
    asked = {host: Somebody(None, host) for host in hosts}
    rules = about(tx, [subject for somebody in asked.values() for subject in somebody.subjects()])
    return {
        host for host, somebody in asked.items() if judge(rules, somebody, account_id).standing is Standing.SUSPENDED
    }


def any_keywords(tx: Tx) -> bool:
    """Whether anybody holds a rule about words at all."""
    return _WORDED.first(tx) is not None


def keywords(tx: Tx, account_id: int | None) -> list[Rule]:
    """The keyword rules of the operator and of one owner."""
    # Nothing equals NULL: without an owner only the operator's are found.
    return [_rule(row) for row in _KEYWORDS.all(tx, owner=account_id)]


# ── holding rules ────────────────────────────────────────────────────────────────────────────────────────────────


def put(
    tx: Tx, held_by: str, entries: Sequence[Entry], *, account_id: int | None = None, list_id: int | None = None
) -> list[Entry]:
    """Hold these rules; those that the holder has already are changed to what is said now. Returns the entries that
    are new or have another severity: they change what may be said here."""
    changed: list[Entry] = []
    for start in range(0, len(entries), _CHUNK):
        chunk = {(entry.kind, entry.subject): entry for entry in entries[start : start + _CHUNK]}
        mine = _b.c.held_by == held_by
        rows = tx.execute(select(_b).where(mine, _b.c.subject.in_([subject for _, subject in chunk])))
        before = {(row.kind, row.subject): row for row in rows}
        for key, entry in chunk.items():
            known = before.get(key)
            values = {
                "severity": entry.severity, "comment": entry.comment, "reject_media": entry.reject_media,
                "reject_reports": entry.reject_reports, "obfuscate": entry.obfuscate,
            }  # fmt: skip
            if known is None:
                of = {"held_by": held_by, "account_id": account_id, "list_id": list_id, "created_at": tx.now}
                named = {"kind": entry.kind, "subject": entry.subject, "actor_uri": entry.actor}
                tx.execute(insert(_b).values(**named, **of, **values))
            elif _entry(known) != entry:
                tx.execute(update(_b).where(_b.c.id == known.id).values(**values))
            if known is None or known.severity != entry.severity:
                changed.append(entry)
    return changed


def pin(tx: Tx, subject: str, actor_uri: str) -> bool:
    """Write down whose handle (`@user@host`) this is, in every rule about it where that is not known yet; False if
    there is none. Changing the handle helps nobody from then on."""
    unknown = (_b.c.kind == "actor", _b.c.subject == subject, _b.c.actor_uri.is_(None))
    return bool(tx.execute(update(_b).where(*unknown).values(actor_uri=actor_uri)).rowcount)


def pinned(tx: Tx, subject: str) -> set[str]:
    """Whose handle this is according to the rules about it."""
    whose = select(_b.c.actor_uri).where(_b.c.subject == subject, _b.c.actor_uri.is_not(None))
    return set(tx.execute(whose).scalars())


def remove(tx: Tx, held_by: str, kind: SubjectKind, subject: str) -> bool:
    """Lift one rule of a holder; False if there is none."""
    mine = (_b.c.held_by == held_by, _b.c.kind == kind, _b.c.subject == subject)
    return bool(tx.execute(delete(_b).where(*mine)).rowcount)


def remove_missing(tx: Tx, held_by: str, kept: Iterable[tuple[str, str]]) -> list[Entry]:
    """Lift every rule of a holder but those about the (kind, subject)s in `kept`; returns what was lifted."""
    keep = set(kept)
    gone = [held for held in of_holder(tx, held_by) if (held.entry.kind, held.entry.subject) not in keep]
    for start in range(0, len(gone), _CHUNK):
        tx.execute(delete(_b).where(_b.c.id.in_([held.id for held in gone[start : start + _CHUNK]])))
    return [held.entry for held in gone]


def of_holder(tx: Tx, held_by: str) -> list[Held]:
    """Everything that a holder has ruled, by kind and subject."""
    rows = tx.execute(select(_b).where(_b.c.held_by == held_by).order_by(_b.c.kind, _b.c.subject))
    return [_held(row) for row in rows]


def everything(tx: Tx, *, subject: str | None = None, with_owners: bool = False) -> list[Held]:
    """The operator's rules and those of lists, by kind and subject; with owners' rules too when asked for."""
    query = select(_b)
    if not with_owners:
        query = query.where(_b.c.account_id.is_(None))
    if subject is not None:
        query = query.where(_b.c.subject == subject)
    return [_held(row) for row in tx.execute(query.order_by(_b.c.kind, _b.c.subject, _b.c.held_by))]


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        kind=row.kind,
        subject=row.subject,
        severity=row.severity,
        comment=row.comment,
        reject_media=row.reject_media,
        reject_reports=row.reject_reports,
        obfuscate=row.obfuscate,
        actor=row.actor_uri,
    )


def _held(row: Row[Any]) -> Held:
    return Held(row.id, row.held_by, row.account_id, _entry(row), row.created_at)


def rejects_reports(tx: Tx, subjects: Iterable[str]) -> bool:
    """Whether the operator takes no reports from a server."""
    about_it = _b.c.subject.in_(list(subjects)) & (_b.c.kind == "domain") & _b.c.account_id.is_(None)
    return tx.execute(select(_b.c.id).where(about_it, _b.c.reject_reports).limit(1)).first() is not None


def restrict_to_allowed(tx: Tx, wanted: bool) -> bool:
    """Have allow-list mode as the setting says; True when that is a change."""
    if not wanted:
        return remove(tx, SETTING, "domain", EVERYWHERE)
    return bool(put(tx, SETTING, [Entry("domain", EVERYWHERE, "suspend", "allow-list mode")]))


# ── subscribed lists ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Subscription:
    """A list that the operator follows. `severity_cap` is the strictest that it may say."""

    id: int
    url: str
    name: str
    priority: int
    severity_cap: Severity
    entries: int
    etag: str | None
    asked_at: datetime | None
    taken_at: datetime | None
    trouble: str | None


def subscribe(tx: Tx, url: str, name: str, priority: int, severity_cap: Severity) -> int:
    """Follow a list, or change how; returns its number. Its entries come with the first fetch."""
    how = {"name": name[:200], "priority": priority, "severity_cap": severity_cap, "etag": None}
    return int(
        tx.execute(
            tx.insert(_l)
            .values(url=url, created_at=tx.now, **how)
            .on_conflict_do_update(index_elements=["url"], set_=how)
            .returning(_l.c.id)
        ).scalar_one()
    )


def unsubscribe(tx: Tx, url: str) -> bool:
    """Follow a list no more: what only it had ruled is lifted. False if it was not followed."""
    list_id = tx.execute(select(_l.c.id).where(_l.c.url == url)).scalar_one_or_none()
    if list_id is None:
        return False
    tx.execute(delete(_b).where(_b.c.list_id == list_id))
    tx.execute(delete(_l).where(_l.c.id == list_id))
    return True


def subscriptions(tx: Tx) -> list[Subscription]:
    """The lists that are followed, the one that goes first at the top."""
    rows = tx.execute(select(_l).order_by(_l.c.priority.desc(), _l.c.id))
    return [_subscription(row) for row in rows]


def subscription(tx: Tx, list_id: int) -> Subscription | None:
    row = tx.execute(select(_l).where(_l.c.id == list_id)).first()
    return _subscription(row) if row else None


def _subscription(row: Row[Any]) -> Subscription:
    return Subscription(
        row.id, row.url, row.name, row.priority, row.severity_cap, row.entries, row.etag, row.asked_at, row.taken_at,
        row.trouble,
    )  # fmt: skip


def list_unchanged(tx: Tx, list_id: int) -> None:
    """A list was asked for and has not changed."""
    tx.execute(update(_l).where(_l.c.id == list_id).values(asked_at=tx.now, trouble=None))


def list_failed(tx: Tx, list_id: int, trouble: str) -> None:
    """A list could not be taken over; what it said before goes on to hold."""
    tx.execute(update(_l).where(_l.c.id == list_id).values(asked_at=tx.now, trouble=trouble[:500]))


def list_taken(tx: Tx, list_id: int, entries: int, etag: str | None, remark: str | None) -> None:
    """A list's entries were taken over; `remark` names rows that were left out."""
    taken = {"asked_at": tx.now, "taken_at": tx.now, "entries": entries, "etag": etag, "trouble": remark}
    tx.execute(update(_l).where(_l.c.id == list_id).values(**taken))


def accounts_with_domains(tx: Tx) -> list[int]:
    """The accounts whose owners have suspended a server."""
    theirs = (_b.c.account_id.is_not(None), _b.c.kind == "domain", _b.c.severity == "suspend")
    return list(tx.execute(select(_b.c.account_id).where(*theirs).distinct()).scalars())
