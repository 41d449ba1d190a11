"""The sum that always has to come out: what was accepted for delivery is delivered, pending, or dropped for a reason.

Rule: each side is counted by itself, in one snapshot, and a row that is in no part of the sum is named: nothing is
made to fit. Reading it looks at every delivery, so it is for a person who asks and for tests, not for every minute.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import String, and_, cast, func, not_, or_, select

from threadbridge.storage import farewells, schema
from threadbridge.storage.store import Tx

_a, _d, _f, _j, _t = schema.activities, schema.deliveries, schema.farewells, schema.jobs, schema.delivery_totals

NAMED = 20


@dataclass(frozen=True, slots=True)
class Balance:
    """Activities as said (each is addressed, about to be, or was given up with a reason) and the deliveries made of
    them. `astray` names a few rows that are in no part of the sum; it is empty, or something is broken here."""

    said: int
    addressed: int
    to_address: int
    not_addressed: int
    """Addressing them failed for good; their jobs hold the reason."""
    accepted: int
    delivered: int
    pending: int
    dropped: int
    astray: tuple[str, ...]

    @property
    def comes_out(self) -> bool:
        """Whether both sums are exact."""
        return (
            self.said == self.addressed + self.to_address + self.not_addressed
            and self.accepted == self.delivered + self.pending + self.dropped
            and not self.astray
        )


def account_for(tx: Tx, *, fan_out: str) -> Balance:
    """Count everything; `fan_out` is the kind of job that addresses activities (`delivery.outbox.FAN_OUT`)."""
    said = tx.execute(
        select(func.count().label("all"), func.count(_a.c.fanned_out_at).label("addressed")).select_from(_a)
    ).one()
    own_job = and_(_j.c.kind == fan_out, _j.c.key == cast(_a.c.id, String))
    # The last word of an account is addressed by the job that deletes it.
    last_word = and_(
        _f.c.activity_id == _a.c.id, _j.c.kind == farewells.FAREWELL, _j.c.key == cast(_f.c.account_id, String)
    )
    open_ones = _a.c.fanned_out_at.is_(None)
    wanted, failed = (
        or_(
            select(_j.c.id).where(own_job, condition).exists(),
            select(_j.c.id).join(_f, last_word).where(condition).exists(),
        )
        for condition in (_j.c.failed_at.is_(None), and_(_j.c.failed_at.is_not(None), _j.c.reason.is_not(None)))
    )
    to_address = tx.execute(select(func.count()).select_from(_a).where(open_ones, wanted)).scalar_one()
    not_addressed = tx.execute(
        select(func.count()).select_from(_a).where(open_ones, not_(wanted), failed)
    ).scalar_one()
    lost = tx.execute(select(_a.c.id).where(open_ones, not_(wanted), not_(failed)).limit(NAMED)).scalars().all()

    delivered = and_(_d.c.state == "delivered", _d.c.ended_at.is_not(None))
    pending = and_(schema.waiting, _d.c.ended_at.is_(None))
    dropped = and_(
        _d.c.state.not_in(["waiting", "delivered"]), _d.c.ended_at.is_not(None), func.coalesce(_d.c.reason, "") != ""
    )
    rows = tx.execute(
        select(
            func.count().label("all"), func.count().filter(delivered).label("delivered"),
            func.count().filter(pending).label("pending"), func.count().filter(dropped).label("dropped"),
        ).select_from(_d)
    ).one()  # fmt: skip
    # What ended long ago is kept as figures (`rollups`), which hold only what has ended.
    rolled = tx.execute(
        select(
            func.coalesce(func.sum(_t.c.count), 0).label("all"),
            func.coalesce(func.sum(_t.c.count).filter(_t.c.state == "delivered"), 0).label("delivered"),
        )
    ).one()
    astray = [f"activity {number}: nobody is about to address it" for number in lost]
    if rows.all != rows.delivered + rows.pending + rows.dropped:
        outside = not_(or_(delivered, pending, dropped))
        named = tx.execute(select(_d.c.id, _d.c.state).where(outside).order_by(_d.c.id).limit(NAMED))
        astray += [f"delivery {row.id}: {row.state}, without its end or its reason" for row in named]
    return Balance(
        said=said.all,
        addressed=said.addressed,
        to_address=to_address,
        not_addressed=not_addressed,
        accepted=rows.all + int(rolled.all),
        delivered=rows.delivered + int(rolled.delivered),
        pending=rows.pending,
        dropped=rows.dropped + int(rolled.all) - int(rolled.delivered),
        astray=tuple(astray),
    )
