"""Deletions of accounts: how far each has come, who has to be told, and what is erased.

Rule: what stays are numbers and times: the account's row and its posts' rows, emptied, so that their addresses answer
410 and no number or handle is ever given again; the ledger without the texts. Everything else that belongs to the
account goes, whatever table it is in: a table that is added later goes too, unless it is named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import String, Table, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from threadbridge.domain.accounts import AccountState
from threadbridge.storage import accounts, connections, jobs, profiles, rollups, schema
from threadbridge.storage import held as not_left
from threadbridge.storage.store import Tx

FAREWELL = "farewell"
"""The kind of job that carries a deletion through; its key is the account's number."""

_w, _p, _m = schema.farewells, schema.posts, schema.media
_KEPT = frozenset(
    {
        "accounts",
        "account_states",
        "consents",
        "posts",
        "activities",
        "deliveries",
        "former_handles",
        "farewells",
        "certificates",
    }
)
_POST_NUMBERS = frozenset({"id", "account_id", "kind", "parent_id", "thread_id", "quoted_id"})


@dataclass(frozen=True, slots=True)
class Farewell:
    """A deletion. `phase`: 'cooling' (may be taken back until `due_at`), 'telling', 'keeping' (the key, for a while
    after the last delivery), 'erasing', 'done'."""

    account_id: int
    asked_at: datetime
    asked_by: str
    due_at: datetime
    state_before: AccountState
    phase: str
    activity_id: int | None
    told_at: datetime | None


def of_account(tx: Tx, account_id: int) -> Farewell | None:
    row = tx.execute(select(_w).where(_w.c.account_id == account_id)).first()
    if row is None:
        return None
    before = AccountState(row.state_before)
    return Farewell(
        row.account_id, row.asked_at, row.asked_by, row.due_at, before, row.phase, row.activity_id, row.told_at
    )


def ask(tx: Tx, account_id: int, *, asked_by: str, due_at: datetime, state_before: AccountState) -> None:
    """Write down that an account is to be deleted at `due_at`."""
    tx.execute(
        insert(_w).values(
            account_id=account_id,
            asked_at=tx.now,
            asked_by=asked_by,
            due_at=due_at,
            state_before=state_before.value,
            phase="cooling",
        )
    )
    jobs.add(tx, FAREWELL, str(account_id), {"account": account_id}, due_at=due_at)


def take_back(tx: Tx, account_id: int) -> bool:
    """Forget a deletion that has not begun; False if there is none."""
    gone = tx.execute(delete(_w).where(_w.c.account_id == account_id, _w.c.phase == "cooling"))
    if gone.rowcount:
        jobs.drop(tx, FAREWELL, str(account_id))
    return bool(gone.rowcount)


def move_on(tx: Tx, account_id: int, phase: str, **noted: Any) -> None:
    """The next phase has begun."""
    tx.execute(update(_w).where(_w.c.account_id == account_id).values(phase=phase, **noted))


def key_still_needed(tx: Tx, account_id: int) -> bool:
    """Whether the Delete of this account is on its way, or was until not long ago."""
    return tx.execute(
        select(_w.c.account_id).where(_w.c.account_id == account_id, _w.c.phase.in_(["telling", "keeping"]))
    ).first() is not None  # fmt: skip


# ── falling silent ───────────────────────────────────────────────────────────────────────────────────────────────


def silence(tx: Tx, account_id: int, *, fan_out: str) -> None:
    """Stop everything that the account does: reading, signing in, whatever is still to be addressed (`fan_out` is the
    kind of job that does so). What waits to be sent ends piece by piece, see `superseding.silence`."""
    for table in (schema.sessions, schema.sign_in_links, schema.connections):
        tx.execute(delete(table).where(table.c.account_id == account_id))
    key = str(account_id)
    for kind in (connections.READ, accounts.ANNOUNCE, profiles.CHECK_LINKS, profiles.CHECK_DOMAIN):
        jobs.drop(tx, kind, key)
    not_left.silence(tx, account_id)
    # At once, so that nothing is added to them any more; their texts go when everybody has been told.
    tx.execute(update(_p).where(_p.c.account_id == account_id, _p.c.deleted_at.is_(None)).values(deleted_at=tx.now))
    a = schema.activities
    open_ones = select(a.c.id).where(a.c.account_id == account_id, a.c.fanned_out_at.is_(None))
    for row in tx.execute(open_ones).all():
        jobs.drop(tx, fan_out, str(row.id))
    tx.execute(
        update(a).where(a.c.account_id == account_id, a.c.fanned_out_at.is_(None)).values(fanned_out_at=tx.now)
    )


# ── who has to be told ───────────────────────────────────────────────────────────────────────────────────────────


def receivers(tx: Tx, account_id: int, after: tuple[int, str], limit: int) -> list[tuple[int, str, str]]:
    """(activity, inbox, host) of everything that was ever addressed, in order, after a place. Answers to one person
    (Accept, Reject) are left out: they went to people who are known by what they did."""
    d, a = schema.deliveries, schema.activities
    rows = tx.execute(
        select(d.c.activity_id, d.c.inbox, d.c.host)
        .join(a, a.c.id == d.c.activity_id)
        .where(
            a.c.account_id == account_id,
            a.c.kind.not_in(["Accept", "Reject"]),
            or_(a.c.id > after[0], (a.c.id == after[0]) & (d.c.inbox > after[1])),
        )
        .order_by(a.c.id, d.c.inbox)
        .limit(limit)
    )
    return [(row.activity_id, row.inbox, row.host) for row in rows]


def acquainted_by() -> list[str]:
    """Names of the tables that tie people to accounts (followers, reactions, replies, …), in a fixed order."""
    return sorted(
        name for name, table in schema.metadata.tables.items() if {"account_id", "peer_uri"} <= set(table.c.keys())
    )


def acquainted(tx: Tx, table: str, account_id: int, after: str, limit: int) -> list[tuple[str, str]]:
    """(actor, inbox) of people whom a table ties to the account, now or once; by actor, after one."""
    t, p = schema.metadata.tables[table], schema.peers
    rows = tx.execute(
        select(p.c.uri, func.coalesce(p.c.shared_inbox, p.c.inbox).label("inbox"))
        .join(t, t.c.peer_uri == p.c.uri)
        .where(t.c.account_id == account_id, p.c.uri > after, p.c.gone_at.is_(None))
        .group_by(p.c.uri, p.c.shared_inbox, p.c.inbox)
        .order_by(p.c.uri)
        .limit(limit)
    )
    return [(row.uri, row.inbox) for row in rows]


def still_telling(tx: Tx, activity_id: int) -> bool:
    """Whether deliveries of the Delete still wait."""
    d = schema.deliveries
    return tx.execute(select(d.c.id).where(d.c.activity_id == activity_id, schema.waiting)).first() is not None


# ── erasing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def destroy_keys(tx: Tx, account_id: int) -> None:
    """From now on nothing can be signed in this account's name, by anybody."""
    k = schema.account_keys
    tx.execute(delete(k).where(k.c.account_id == account_id))


def posts_to_erase(tx: Tx, account_id: int, after: int, limit: int) -> list[int]:
    """Numbers of the account's posts, in order, after one."""
    rows = tx.execute(
        select(_p.c.id).where(_p.c.account_id == account_id, _p.c.id > after).order_by(_p.c.id).limit(limit)
    )
    return [row.id for row in rows]


def files_of_posts(tx: Tx, post_ids: Sequence[int]) -> list[tuple[str, str]]:
    """(hash, media type) of files that no other post and no profile shows."""
    held: set[str] = set()
    for column in _file_columns():
        if "post_id" in column.table.c:
            rows = tx.execute(select(column).where(column.table.c.post_id.in_(post_ids), column.is_not(None)))
            held |= {row[0] for row in rows}
    others = _shown_elsewhere(tx, held, post_ids=post_ids)
    return _with_types(tx, held - others)


def files_of_profile(tx: Tx, account_id: int) -> list[tuple[str, str]]:
    """The same of avatar and header, and of posts that never left; call it when the posts are erased."""
    account = accounts.by_id(tx, account_id)
    held = {sha256 for sha256 in (account.avatar, account.header) if sha256} if account else set()
    held |= not_left.files_of_account(tx, account_id)
    return _with_types(tx, held - _shown_elsewhere(tx, held, account_id=account_id))


def _file_columns() -> list[ColumnElement[Any]]:
    """Every column that names a file of the media store."""
    return [
        key.parent
        for table in schema.metadata.sorted_tables
        for key in sorted(table.foreign_keys, key=lambda key: str(key.parent))
        if key.column.table is _m
    ]


def _shown_elsewhere(
    tx: Tx, held: set[str], *, post_ids: Sequence[int] = (), account_id: int | None = None
) -> set[str]:
    found: set[str] = set()
    for column in _file_columns():
        query = select(column).where(column.in_(held))
        if "post_id" in column.table.c and post_ids:
            query = query.where(column.table.c.post_id.not_in(post_ids))
        if "account_id" in column.table.c and account_id is not None:
            query = query.where(column.table.c.account_id != account_id)
        found |= {row[0] for row in tx.execute(query)}
    a = schema.accounts
    for column in (a.c.avatar, a.c.header):
        query = select(column).where(column.in_(held))
        if account_id is not None:
            query = query.where(a.c.id != account_id)
        found |= {row[0] for row in tx.execute(query)}
    return found


def _with_types(tx: Tx, hashes: set[str]) -> list[tuple[str, str]]:
    rows = tx.execute(select(_m.c.sha256, _m.c.media_type).where(_m.c.sha256.in_(hashes)).order_by(_m.c.sha256))
    return [(row.sha256, row.media_type) for row in rows]


def erase_posts(tx: Tx, account_id: int, post_ids: Sequence[int], files: Sequence[str]) -> None:
    """Empty these posts, with all that hangs on them; `files` are hashes whose files are gone from the disk."""
    for table in reversed(schema.metadata.sorted_tables):
        if table.name not in _KEPT and "post_id" in table.c:
            tx.execute(delete(table).where(table.c.post_id.in_(post_ids)))
    tx.execute(
        update(_p).where(_p.c.id.in_(post_ids), _p.c.account_id == account_id).values(**_emptied(_p, _POST_NUMBERS))
    )
    forget_files(tx, files)


def forget_files(tx: Tx, files: Sequence[str]) -> None:
    """Forget files that are gone from the disk, unless somebody showed one meanwhile (then it was written anew)."""
    unused = set(files) - _shown_elsewhere(tx, set(files))
    tx.execute(delete(_m).where(_m.c.sha256.in_(unused)))


def erase_profile(tx: Tx, account_id: int) -> None:
    """Empty the account's own row; handle, numbers and times stay. What never left goes with it."""
    a = schema.accounts
    for table in (schema.held_files, schema.held_posts):
        tx.execute(delete(table).where(table.c.account_id == account_id))
    kept = frozenset({"id", "handle", "state"})
    tx.execute(
        update(a)
        .where(a.c.id == account_id)
        .values(posts_count=0, followers_count=0, discoverable=False, indexable=False, **_emptied(a, kept))
    )
    accounts.touch(tx, account_id)


def erase_rows(tx: Tx, account_id: int, limit: int) -> bool:
    """Delete some of what is left in other tables, and the texts of what was said; True while there may be more."""
    for table in reversed(schema.metadata.sorted_tables):
        if table.name in _KEPT or "account_id" not in table.c:
            continue
        keys = list(table.primary_key.columns)
        some = select(*keys).where(table.c.account_id == account_id).limit(limit)
        if tx.execute(delete(table).where(tuple_(*keys).in_(some))).rowcount:
            return True
    a = schema.activities
    said = select(a.c.id, a.c.body).where(a.c.account_id == account_id, func.length(a.c.body) > 0).limit(limit)
    rows = tx.execute(said).all()
    rollups.erase_words(tx, rows)
    return bool(rows)


def _emptied(table: Table, kept: frozenset[str]) -> dict[str, Any]:
    """Every text of a row, as nothing."""
    return {
        column.name: None if column.nullable else ""
        for column in table.columns
        if column.name not in kept and isinstance(column.type, String)
    }
