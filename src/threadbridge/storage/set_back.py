"""A clock that was set back: what was written down in a time that has not come yet would wait until it comes.

Rule: the latest time that anybody worked at is remembered. Whoever finds that it lies ahead moves what was written
since to now, each by as much as it was ahead, and lets go what was held until then. A lead of less than a few minutes
is how far apart the clocks of two machines may be.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, bindparam, select, update

from threadbridge.storage import accounts, connections, schema
from threadbridge.storage.store import Tx

FACT = "latest_time"
LEAD = timedelta(minutes=5)
CHUNK = 1000
_d, _h, _j = schema.deliveries, schema.hosts, schema.jobs


def noticed(tx: Tx) -> timedelta | None:
    """Remember the time; returns by how much the clock was set back, once."""
    known = accounts.fact(tx, FACT)
    latest = datetime.fromisoformat(known) if known else tx.now
    if tx.now < latest - LEAD:
        return latest - tx.now
    if known is None or tx.now > latest:
        accounts.set_fact(tx, FACT, tx.now.isoformat())
    return None


def mend(tx: Tx) -> bool:
    """Move some of what was written ahead of time; False when nothing is left of it, and the time counts from now."""
    moved = sum(_moved(tx, table, condition) for table, condition in ((_d, schema.waiting), (_j, _open)))
    if moved:
        return True
    tx.execute(update(_h).where(_h.c.held_until > _at(tx.now + timedelta(hours=1), _h)).values(held_until=tx.now))
    connections.bring_reads_forward(tx)
    accounts.set_fact(tx, FACT, tx.now.isoformat())
    return False


_open = _j.c.failed_at.is_(None)


def _moved(tx: Tx, table: Table, condition: ColumnElement[bool]) -> int:
    t = table.c
    ahead = (t.created_at > tx.now + timedelta(seconds=1)) | (t.leased_until > tx.now + LEAD)
    rows = tx.execute(select(t.id, t.created_at, t.due_at, t.leased_until).where(condition, ahead).limit(CHUNK)).all()
    if rows:
        tx.execute(
            update(table)
            .where(t.id == bindparam("row"))
            .values(
                due_at=bindparam("due", type_=t.due_at.type),
                created_at=bindparam("created", type_=t.created_at.type),
                leased_until=None,
                lease=t.lease + 1,
            ),
            [
                {
                    "row": row.id,
                    "due": row.due_at - max(row.created_at - tx.now, timedelta(0)),
                    "created": min(row.created_at, tx.now),
                }
                for row in rows
            ],
        )
        tx.wakes = True
    return len(rows)


def _at(moment: datetime, table: Table) -> ColumnElement[datetime]:
    return bindparam(None, moment, table.c.held_until.type)
