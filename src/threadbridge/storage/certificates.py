"""Deletions of which their owner may have a certificate: what went, who was told, what each answered.

Rule: only what a certificate needs is kept, and it is of no person: numbers, digests, servers, times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from threadbridge.storage import rollups, schema
from threadbridge.storage.rollups import Answer
from threadbridge.storage.store import Tx

_c, _a, _acc, _p = schema.certificates, schema.activities, schema.accounts, schema.posts
_SAYING = ("Create", "Announce", "Update", "Refresh")
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion: of a post, or of the whole account (`post_id` None). `told_at` is when all who have to be told were
    written down; None while they are looked for."""

    account_id: int
    post_id: int | None
    activity_id: int
    deleted_at: datetime
    told_at: datetime | None
    packed: bytes | None


@dataclass(frozen=True, slots=True)
class Said:
    """What was last said of an object: of a post, or (`post_id` None) of the actor. `digest` is the SHA-256 of its
    canonical form, `kind` and `at` of the activity that said it."""

    post_id: int | None
    kind: str
    digest: str
    at: datetime


def add(tx: Tx, account_id: int, post_id: int | None, activity_id: int) -> None:
    """Something was deleted, and this activity tells it."""
    tx.execute(
        tx.insert(_c)
        .values(account_id=account_id, post_id=post_id, activity_id=activity_id, deleted_at=tx.now)
        .on_conflict_do_nothing()
    )


def of(tx: Tx, account_id: int, post_id: int | None) -> Deletion | None:
    """The deletion of a post of this account, or of the account itself."""
    which = _c.c.post_id == post_id if post_id is not None else _c.c.post_id.is_(None)
    row = tx.execute(
        select(_c, _a.c.fanned_out_at)
        .join(_a, _a.c.id == _c.c.activity_id)
        .where(_c.c.account_id == account_id, which)
    ).first()
    if row is None:
        return None
    return Deletion(
        row.account_id, row.post_id, row.activity_id, row.deleted_at, row.fanned_out_at, row.answers
    )  # fmt: skip


def handle_of(tx: Tx, handle: str) -> int | None:
    """The number of an account, deleted or not."""
    return tx.execute(select(_acc.c.id).where(_acc.c.handle == handle)).scalar_one_or_none()


def answers(tx: Tx, deletion: Deletion) -> list[Answer]:
    """What each host answered, by host."""
    if deletion.packed is not None:
        return rollups.unpack(deletion.packed)
    return rollups.answers(tx, deletion.activity_id)


def objects(tx: Tx, deletion: Deletion) -> Iterator[Said]:
    """What was last said of everything that the deletion is about, the actor first; what never left the house is not
    among it."""
    of_account = (_a.c.account_id == deletion.account_id, _a.c.kind.in_(_SAYING), _a.c.id < deletion.activity_id)
    if deletion.post_id is not None:
        latest = select(func.max(_a.c.id)).where(*of_account, _a.c.post_id == deletion.post_id)
    else:
        actor = select(func.max(_a.c.id)).where(*of_account, _a.c.post_id.is_(None), _a.c.kind == "Update")
        row = _of_activity(tx, tx.execute(actor).scalar())
        if row is not None:
            yield row
        latest = select(func.max(_a.c.id)).where(*of_account, _a.c.post_id.is_not(None))
    after = 0
    while True:
        # By the post, through its index, since a page of activities would cut a post's in two.
        page = tx.execute(
            latest.where(_a.c.post_id > after).group_by(_a.c.post_id).order_by(_a.c.post_id).limit(_CHUNK)
        ).scalars().all()  # fmt: skip
        for number in page:
            row = _of_activity(tx, number)
            assert row is not None and row.post_id is not None  # noqa: PT018 (one and the same)
            after = row.post_id
            yield row
        if len(page) < _CHUNK:
            return


def _of_activity(tx: Tx, number: int | None) -> Said | None:
    row = tx.execute(select(_a).where(_a.c.id == number)).first() if number is not None else None
    if row is None:
        return None
    return Said(row.post_id, row.kind, row.digest or rollups.digest_of(row.body), row.created_at)
