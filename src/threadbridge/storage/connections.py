"""Connections of accounts to their source: the sealed token, and how reading goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select, update

from threadbridge.storage import jobs, schema
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import Vault

READ = "read"
"""The kind of job that reads an account; its key is the account's number."""
_c = schema.connections


@dataclass(frozen=True, slots=True)
class Connection:
    """A live connection. `trouble` is None or one of `bridge.cadence.TROUBLES`; `speaks_since` is the time from which
    posts are news, by the source's clock when it was connected, by ours when a pause ended."""

    account_id: int
    source: str
    native_id: str
    graph_url: str
    connected_at: datetime
    history_done_at: datetime | None
    last_read_at: datetime | None
    last_new_at: datetime | None
    profile_read_at: datetime | None
    speaks_since: datetime | None
    failures: int
    trouble: str | None
    trouble_text: str | None


def _connection(row: Row[Any]) -> Connection:
    return Connection(
        account_id=row.account_id,
        source=row.source,
        native_id=row.native_id,
        graph_url=row.graph_url,
        connected_at=row.connected_at,
        history_done_at=row.history_done_at,
        last_read_at=row.last_read_at,
        last_new_at=row.last_new_at,
        profile_read_at=row.profile_read_at,
        speaks_since=row.speaks_since,
        failures=row.failures,
        trouble=row.trouble,
        trouble_text=row.trouble_text,
    )


def of_account(tx: Tx, account_id: int) -> Connection | None:
    row = tx.execute(select(_c).where(_c.c.account_id == account_id)).first()
    return _connection(row) if row else None


def by_native_id(tx: Tx, source: str, native_id: str) -> Connection | None:
    """The connection of a source's user, whatever handle it has here."""
    row = tx.execute(select(_c).where(_c.c.source == source, _c.c.native_id == native_id)).first()
    return _connection(row) if row else None


def token(tx: Tx, vault: Vault, account_id: int) -> str:
    """The access token. Only for the one who asks the source."""
    sealed = tx.execute(select(_c.c.sealed_token).where(_c.c.account_id == account_id)).scalar_one()
    return vault.open(sealed, purpose=_purpose(account_id)).decode()


def _purpose(account_id: int) -> str:
    return f"connections/{account_id}/token"


def connect(
    tx: Tx,
    vault: Vault,
    account_id: int,
    *,
    source: str,
    native_id: str,
    graph_url: str,
    access_token: str,
    since: datetime,
) -> Connection:
    """Keep a new token, or a renewed one: trouble ends, and what is history stays what it was. `since` is when the
    connection is made, by the source's clock."""
    sealed = vault.seal(access_token.encode(), purpose=_purpose(account_id))
    renewed = {
        "source": source,
        "native_id": native_id,
        "graph_url": graph_url,
        "sealed_token": sealed,
        "failures": 0,
        "trouble": None,
        "trouble_text": None,
    }
    tx.execute(
        tx.insert(_c)
        .values(account_id=account_id, connected_at=tx.now, speaks_since=since, **renewed)
        .on_conflict_do_update(index_elements=["account_id"], set_=renewed)
    )
    jobs.add(tx, READ, str(account_id), {"account": account_id})
    held = of_account(tx, account_id)
    assert held is not None
    return held


def hold_read(tx: Tx, account_id: int, seconds: float) -> None:
    """Keep workers from reading an account for a while, because somebody else is (`threadbridge connect`)."""
    j = schema.jobs
    tx.execute(
        update(j)
        .where(j.c.kind == READ, j.c.key == str(account_id))
        .values(leased_until=tx.now + timedelta(seconds=seconds), lease=j.c.lease + 1)
    )


def release_read(tx: Tx, account_id: int, *, due_at: datetime | None = None) -> None:
    """Let workers read it again, at once or at `due_at`."""
    j = schema.jobs
    due = due_at or tx.now
    # What was asked for meanwhile was this.
    free = {"leased_until": None, "due_at": due, "asked_again": None, "asked_arguments": None}
    tx.execute(update(j).where(j.c.kind == READ, j.c.key == str(account_id)).values(free))
    tx.wake(due)


def lock(tx: Tx, account_id: int) -> None:
    """Let one transaction at a time write what was read of an account (PostgreSQL; SQLite has one writer anyway)."""
    tx.execute(select(_c.c.account_id).where(_c.c.account_id == account_id).with_for_update())


def read_well(tx: Tx, account_id: int, *, newest: datetime | None) -> None:
    """A read succeeded; `newest` is the time of the latest post seen."""
    latest = {"last_new_at": newest} if newest is not None else {}
    tx.execute(
        update(_c)
        .where(_c.c.account_id == account_id)
        .values(last_read_at=tx.now, failures=0, trouble=None, trouble_text=None, **latest)
    )


def profile_read(tx: Tx, account_id: int, username: str) -> None:
    """The profile was read; `username` is what the account is called at its source now."""
    named = {"username": username.lstrip("@")[:128]} if username else {}
    tx.execute(update(_c).where(_c.c.account_id == account_id).values(profile_read_at=tx.now, **named))


def speak_from_now(tx: Tx, account_id: int) -> None:
    """Bridging resumes: what was posted in the meantime stays silent."""
    resumed = tx.execute(update(_c).where(_c.c.account_id == account_id).values(speaks_since=tx.now))
    if resumed.rowcount:
        jobs.add(tx, READ, str(account_id), {"account": account_id})


def history_again(tx: Tx, account_id: int) -> None:
    """Too much is new for the newest pages to bring it: the whole history is to be read once more."""
    tx.execute(update(_c).where(_c.c.account_id == account_id).values(history_done_at=None))


def history_done(tx: Tx, account_id: int) -> None:
    tx.execute(
        update(_c).where(_c.c.account_id == account_id, _c.c.history_done_at.is_(None)).values(history_done_at=tx.now)
    )


def read_badly(tx: Tx, account_id: int, trouble: str, words: str) -> int:
    """A read failed; returns failures in a row."""
    failures: int = tx.execute(
        update(_c)
        .where(_c.c.account_id == account_id)
        .values(failures=_c.c.failures + 1, trouble=trouble, trouble_text=words[:500])
        .returning(_c.c.failures)
    ).scalar_one()
    return failures


def bring_reads_forward(tx: Tx) -> None:
    """Let every account be read now, except those that the source asked to leave in peace."""
    rows = tx.execute(select(_c.c.account_id).where(_c.c.trouble.is_(None) | (_c.c.trouble == "unreachable")))
    for row in rows.all():
        jobs.add(tx, READ, str(row.account_id), {"account": row.account_id})


def count(tx: Tx) -> int:
    return int(tx.execute(select(func.count()).select_from(_c)).scalar_one())


def count_in_trouble(tx: Tx) -> int:
    return int(tx.execute(select(func.count()).select_from(_c).where(_c.c.trouble.is_not(None))).scalar_one())


def graph_urls(tx: Tx) -> list[str]:
    """Where the connected accounts are read, each address once."""
    c = schema.connections
    return list(tx.execute(select(c.c.graph_url).distinct().order_by(c.c.graph_url)).scalars())
