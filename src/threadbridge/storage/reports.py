"""Complaints, in and out.

Rule: what comes in is for the operator alone; an owner never learns who complained about them. The same complaint
while one is open raises a number and makes no second row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, func, insert, select, update

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_r = schema.reports

Direction = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class Report:
    """One complaint. `by` is the actor that signed it (elsewhere its server's own), `subject` whom it is about,
    `objects` the posts that it names."""

    id: int
    direction: Direction
    account_id: int | None
    uri: str
    by: str
    host: str
    subject: str
    objects: tuple[str, ...]
    content: str
    times: int
    created_at: datetime
    resolved_at: datetime | None
    resolution: str | None


def add(
    tx: Tx,
    direction: Direction,
    *,
    uri: str,
    by: str,
    host: str,
    subject: str,
    objects: Sequence[str],
    content: str,
    account_id: int | None = None,
) -> tuple[int, bool]:
    """Keep a complaint; (its number, whether it is new). The same one, still open, is counted."""
    named = sorted(set(objects))
    digest = hashlib.sha256(json.dumps([direction, host, subject, named, content, account_id]).encode()).hexdigest()
    known = tx.execute(
        update(_r)
        .where(_r.c.digest == digest, _r.c.resolved_at.is_(None))
        .values(times=_r.c.times + 1, last_at=tx.now)
        .returning(_r.c.id)
    ).scalar_one_or_none()
    if known is not None:
        return int(known), False
    number = tx.execute(
        insert(_r)
        .values(
            direction=direction, account_id=account_id, uri=uri, digest=digest, by=by, host=host, subject=subject,
            objects=json.dumps(named), content=content, created_at=tx.now, last_at=tx.now,
        )
        .returning(_r.c.id)
    ).scalar_one()  # fmt: skip
    return int(number), True


def open_from(tx: Tx, host: str) -> int:
    """How many complaints from a server wait for the operator."""
    mine = (_r.c.direction == "in", _r.c.host == host, _r.c.resolved_at.is_(None))
    return int(tx.execute(select(func.count()).select_from(_r).where(*mine)).scalar_one())


def page(
    tx: Tx,
    *,
    direction: Direction | None = None,
    account_id: int | None = None,
    with_resolved: bool = False,
    limit: int = 50,
) -> list[Report]:
    """Complaints, latest first: open ones, or all."""
    query = select(_r)
    if direction is not None:
        query = query.where(_r.c.direction == direction)
    if account_id is not None:
        query = query.where(_r.c.account_id == account_id)
    if not with_resolved:
        query = query.where(_r.c.resolved_at.is_(None))
    return [_report(row) for row in tx.execute(query.order_by(_r.c.id.desc()).limit(limit))]


def by_id(tx: Tx, number: int) -> Report | None:
    row = tx.execute(select(_r).where(_r.c.id == number)).first()
    return _report(row) if row else None


def resolve(tx: Tx, number: int, resolution: str) -> bool:
    """Put a complaint aside with what was done; False if there is no such open one."""
    done = update(_r).where(_r.c.id == number, _r.c.resolved_at.is_(None))
    return bool(tx.execute(done.values(resolved_at=tx.now, resolution=resolution[:2000])).rowcount)


def _report(row: Row[Any]) -> Report:
    return Report(
        id=row.id,
        direction=row.direction,
        account_id=row.account_id,
        uri=row.uri,
        by=row.by,
        host=row.host,
        subject=row.subject,
        objects=tuple(json.loads(row.objects)),
        content=row.content,
        times=row.times,
        created_at=row.created_at,
        resolved_at=row.resolved_at,
        resolution=row.resolution,
    )


def author_of_reply(tx: Tx, uri: str, account_id: int | None) -> str | None:
    """Who wrote a reply that is held here (to a post of this account); None if there is none."""
    a = schema.replies
    query = select(a.c.peer_uri).where(a.c.uri == uri)
    if account_id is not None:
        query = query.where(a.c.account_id == account_id)
    return tx.execute(query).scalar_one_or_none()
