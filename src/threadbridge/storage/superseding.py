"""What need not be said any more, because something later makes it pointless.

    an edit, new figures   what waits of earlier edits and figures of the same post    "replaced by a later edit"
    a new profile          what waits of earlier ones                                  "replaced by a later edit"
    an answer              what waits of earlier answers to the same one               "replaced by a later answer"
    a deletion             what waits of the post itself, its edits and figures        "the post was deleted before …"
    an account's deletion  everything that waits of it                                 "the account was deleted …"

Rule: at most one of these waits per object and inbox, and nothing leaves of a post after its deletion was said, but
for what is under way at that moment. Saying so costs the same whatever waits: the later activity is written on the
earlier one, and rows end where somebody comes by them (when they are taken, when the later one is addressed to the
same inbox, when an attempt has failed). No row that somebody holds is touched: whoever holds it settles it. Every row
that ends here says why. The later activity goes to everybody to whom an earlier one was addressed, so nobody is left
with what is old; a deletion spares those whom surely nothing ever reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)

from threadbridge.storage import schema
from threadbridge.storage.store import Tx

_a, _d, _r = schema.activities, schema.deliveries, schema.key_rotations

EDITED = "replaced by a later edit"
ANSWERED = "replaced by a later answer"
DELETED = "the post was deleted before this left"
DELETED_AFTER_A_TRY = "the post was deleted before this arrived"
ACCOUNT_DELETED = "the account was deleted before"

EDITS = ("Update", "Refresh")
"""What the ledger calls an edit of a post, and a change of it that is no edit."""
ENDS = ("Delete", "Undo")
"""What it calls the end of a post, and of a repost."""
REPLACING = (*EDITS, *ENDS)
_SAID_BY = ("Create", "Announce", *EDITS)

UNSEEN = timedelta(minutes=15)
"""So long after a post was said we are sure that a server has not got it when nothing was sent there. Later somebody
may have looked for it, or a boost have led there; such a server hears of the deletion too."""


def _unheld(tx: Tx) -> ColumnElement[bool]:
    return or_(_d.c.leased_until.is_(None), _d.c.leased_until < tx.now)


def replace(tx: Tx, number: int) -> list[int]:
    """Activity `number` was just said: note it on the earlier ones that it makes pointless. Returns those of them
    whose recipients are not all written down yet; nobody needs to do that any more."""
    said = tx.execute(select(_a.c.kind, _a.c.account_id, _a.c.post_id).where(_a.c.id == number)).one()
    if said.post_id is not None and said.kind in (*EDITS, *ENDS):
        kinds = _SAID_BY if said.kind in ENDS else EDITS
        which = and_(_a.c.post_id == said.post_id, _a.c.kind.in_(kinds))
    elif said.post_id is None and said.kind == "Update":
        # Written out for the partial index. What tells of a change of keys is proof of who knows which key, and must
        # be signed by the old one: it is never replaced.
        of_keys = exists().where(
            or_(_r.c.update_id == _a.c.id, _r.c.probe_id == _a.c.id, _r.c.restore_id == _a.c.id)
        ).correlate(_a)  # fmt: skip
        profile = (_a.c.kind == literal_column("'Update'"), _a.c.post_id.is_(None))
        which = and_(_a.c.account_id == said.account_id, *profile, ~of_keys)
    else:
        return []
    pointless = and_(which, _a.c.id < number, _a.c.replaced_by.is_(None))
    unaddressed = [row.id for row in tx.execute(select(_a.c.id).where(pointless, _a.c.fanned_out_at.is_(None)))]
    now = bindparam(None, tx.now, _a.c.fanned_out_at.type)
    addressed_at = func.coalesce(_a.c.fanned_out_at, now)
    tx.execute(update(_a).where(pointless).values(replaced_by=number, fanned_out_at=addressed_at))
    return unaddressed


def answered_anew(tx: Tx, order_key: str, inbox: str) -> None:
    """Somebody is about to be answered anew: end what waits of earlier answers about the same."""
    tx.execute(
        update(_d)
        .where(_d.c.order_key == order_key, _d.c.inbox == inbox, schema.waiting, _unheld(tx))
        .values(state="superseded", ended_at=tx.now, reason=ANSWERED, leased_until=None)
    )


def end(tx: Tx, deliveries: Sequence[int]) -> int:
    """End these deliveries, as far as they wait, nobody holds them, and something made them pointless. Returns how
    many."""
    if not deliveries:
        return 0
    return _ended(tx, _d.c.id.in_(deliveries))


def end_at(tx: Tx, number: int, order_key: str, inboxes: Sequence[str]) -> None:
    """Activity `number` is about to be addressed to these inboxes: end what is pointless there now."""
    _ended(tx, and_(_d.c.order_key == order_key, _d.c.inbox.in_(inboxes), _d.c.activity_id < number))


def _ended(tx: Tx, which: ColumnElement[bool]) -> int:
    later = _a.alias("later")
    pointless = exists().where(_a.c.id == _d.c.activity_id, _a.c.replaced_by.is_not(None)).correlate(_d)
    by_its_end = (
        exists()
        .where(_a.c.id == _d.c.activity_id, later.c.id == _a.c.replaced_by, later.c.kind.in_(ENDS))
        .correlate(_d)
    )
    of_account = (
        exists()
        .where(_a.c.id == _d.c.activity_id, later.c.id == _a.c.replaced_by, later.c.post_id.is_(None))
        .correlate(_d)
    )
    why = case(
        (and_(by_its_end, of_account), literal(ACCOUNT_DELETED)),
        (and_(by_its_end, _d.c.lease > 0), literal(DELETED_AFTER_A_TRY)), (by_its_end, literal(DELETED)),
        else_=literal(EDITED),
    )  # fmt: skip
    return tx.execute(
        update(_d)
        .where(which, schema.waiting, _unheld(tx), pointless)
        .values(state="superseded", ended_at=tx.now, reason=why, leased_until=None)
    ).rowcount


def spared(tx: Tx, number: int, inboxes: Sequence[str]) -> set[str]:
    """Which of these inboxes need not hear activity `number`, the end of a post, since surely nothing of it ever
    got there: all that was addressed to them was never taken for sending, and the post is so young that nobody else
    can have brought it there. Call it after `end_at`, which decides about what waits."""
    said = tx.execute(
        select(_a.c.kind, _a.c.account_id, _a.c.post_id, _a.c.created_at).where(_a.c.id == number)
    ).one()
    if said.kind not in ENDS or said.post_id is None:
        return set()
    first = tx.execute(
        select(_a.c.created_at, _a.c.fanned_out_at)
        .where(_a.c.post_id == said.post_id, _a.c.kind.in_(["Create", "Announce"]))
        .order_by(_a.c.id)
        .limit(1)
    ).first()
    if first is None or said.created_at - first.created_at > UNSEEN:
        return set()
    rows = tx.execute(
        select(_d.c.inbox, func.max(_d.c.lease).label("taken"))
        .where(_d.c.post_id == said.post_id, _d.c.inbox.in_(inboxes), _d.c.activity_id < number)
        .group_by(_d.c.inbox)
    )
    taken = {row.inbox: row.taken for row in rows}
    untouched = {inbox for inbox, times in taken.items() if not times}
    if first.fanned_out_at == said.created_at:
        # The deletion came while the post was still being addressed, and ended that: who is not written down yet got
        # nothing, but for those who began to follow meanwhile and may have looked around.
        f = schema.followers
        fresh = tx.execute(
            select(f.c.inbox).where(
                f.c.account_id == said.account_id, f.c.inbox.in_(inboxes), f.c.since >= first.created_at
            )
        )
        untouched |= set(inboxes) - taken.keys() - {row.inbox for row in fresh}
    return untouched


def replace_all(tx: Tx, account_id: int, number: int) -> None:
    """Activity `number` is the last word of an account: note so on everything that it said before."""
    tx.execute(
        update(_a)
        .where(_a.c.account_id == account_id, _a.c.id < number, _a.c.replaced_by.is_(None))
        .values(replaced_by=number)
    )


def silence(tx: Tx, account_id: int, limit: int) -> int:
    """End some of what waits of an account that has said its last word and that nobody holds; returns how many ended.
    0: nothing is left but what is under way (`under_way`)."""
    some = select(_d.c.id).where(*_of_account(account_id), _unheld(tx)).limit(limit)
    return _ended(tx, _d.c.id.in_(some.with_for_update(skip_locked=True)))


def under_way(tx: Tx, account_id: int) -> bool:
    """Whether somebody holds a delivery of this account just now, other than its last word."""
    held = select(_d.c.id).where(*_of_account(account_id), _d.c.leased_until >= tx.now)
    return tx.execute(held.limit(1)).first() is not None


def _of_account(account_id: int) -> list[ColumnElement[bool]]:
    last_words = select(schema.farewells.c.activity_id).where(schema.farewells.c.activity_id.is_not(None))
    lanes = _d.c.lane.in_(range(4))  # named since the index begins with them
    return [schema.waiting, lanes, _d.c.account_id == account_id, _d.c.activity_id.not_in(last_words)]
