"""New posts that have not left yet, and those that never will.

Rule: what is held has no row among the posts and no number, so that no page, feed, collection or search can show it,
whoever writes one later. It becomes a post in the transaction that takes it from here.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Row, delete, func, insert, select, update

from threadbridge.domain.posts import fingerprint
from threadbridge.domain.source import MediaKind, PostKind, SourceMedia, SourcePoll, SourcePost, SourceReference
from threadbridge.errors import Invalid
from threadbridge.storage import jobs, schema
from threadbridge.storage.posts import NewAttachment, Origin
from threadbridge.storage.store import Tx

SHARE = "share"
"""The kind of job that lets held posts leave; its key is the account's number."""
MINUTES = range(16)
"""For how many minutes an owner may hold new posts."""
State = Literal["held", "unshared"]

_h, _f, _acc = schema.held_posts, schema.held_files, schema.accounts


@dataclass(frozen=True, slots=True)
class Held:
    """A post as its source told it last, with its files; leaves at `due_at`, or never ('unshared', for `reason`)."""

    id: int
    account_id: int
    source: str
    post: SourcePost
    language: str | None
    attachments: tuple[NewAttachment, ...]
    state: State
    reason: str | None
    held_at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a held post without reading it."""

    id: int
    fingerprint: str
    state: State
    due_at: datetime


# ── the owner's choice ───────────────────────────────────────────────────────────────────────────────────────────


def minutes(tx: Tx, account_id: int) -> int:
    """How long new posts of an account are held; 0: not at all."""
    found = tx.execute(select(_acc.c.hold_minutes).where(_acc.c.id == account_id)).scalar_one_or_none()
    return int(found or 0)


def choose(tx: Tx, account_id: int, chosen: int) -> None:
    """Hold new posts for so many minutes from now on; what is held already keeps its time. Raises Invalid."""
    if chosen not in MINUTES:
        raise Invalid(f"New posts can be held for 0 to {MINUTES[-1]} minutes, not {chosen}")
    tx.execute(update(_acc).where(_acc.c.id == account_id).values(hold_minutes=chosen))


# ── keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────


def keep(
    tx: Tx,
    account_id: int,
    source: str,
    post: SourcePost,
    attachments: Sequence[NewAttachment],
    language: str | None,
    *,
    due_at: datetime,
    unshared: str | None = None,
) -> None:
    """Hold a new post until `due_at`; for ever when `unshared` says why."""
    number = tx.execute(
        insert(_h)
        .values(
            account_id=account_id, source=source, native_id=post.native_id, published=post.published, kind=post.kind,
            parent=post.parent.native_id if post.parent else None, fingerprint=fingerprint(post), told=dump(post),
            language=language, state="held" if unshared is None else "unshared", reason=unshared, held_at=tx.now,
            due_at=due_at,
        )
        .returning(_h.c.id)
    ).scalar_one()  # fmt: skip
    _add_files(tx, account_id, number, attachments)
    if unshared is None:
        ask(tx, account_id, due_at)


def fold(
    tx: Tx, account_id: int, held_id: int, post: SourcePost, attachments: Sequence[NewAttachment] | None,
    language: str | None,
) -> None:  # fmt: skip
    """The source tells a held post anew; `attachments` None when its media are the same."""
    told: dict[str, Any] = {"told": dump(post), "fingerprint": fingerprint(post)}
    if attachments is not None:
        tx.execute(delete(_f).where(_f.c.held_id == held_id))
        _add_files(tx, account_id, held_id, attachments)
        told["language"] = language
    tx.execute(update(_h).where(_h.c.id == held_id).values(**told))


def _add_files(tx: Tx, account_id: int, held_id: int, attachments: Sequence[NewAttachment]) -> None:
    if attachments:
        tx.execute(
            insert(_f),
            [
                {"held_id": held_id, "position": position, "account_id": account_id, **asdict(item)}
                for position, item in enumerate(attachments)
            ],
        )


def ask(tx: Tx, account_id: int, due_at: datetime) -> None:
    """Ask that what is due be shared."""
    jobs.add(tx, SHARE, str(account_id), {"account": account_id}, due_at=due_at)


def go_on(tx: Tx, account_id: int) -> None:
    """An account speaks again: what was held when it fell silent is looked at."""
    if next_due(tx, account_id) is not None:
        ask(tx, account_id, tx.now)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────


def known(tx: Tx, account_id: int, source: str, native_ids: Collection[str]) -> dict[str, Entry]:
    """{source's id: what is held of it}, unshared ones too."""
    if not native_ids:
        return {}
    rows = tx.execute(
        select(_h.c.id, _h.c.native_id, _h.c.fingerprint, _h.c.state, _h.c.due_at).where(
            _h.c.account_id == account_id, _h.c.source == source, _h.c.native_id.in_(list(native_ids))
        )
    )
    return {row.native_id: Entry(row.id, row.fingerprint, row.state, row.due_at) for row in rows}


def since(
    tx: Tx, account_id: int, source: str, kinds: Iterable[PostKind], moment: datetime, limit: int
) -> list[Origin]:
    """Held posts of these kinds published at or after a time, as if they were posts (number 0)."""
    rows = tx.execute(
        select(_h.c.native_id, _h.c.fingerprint)
        .where(
            _h.c.account_id == account_id, _h.c.source == source, _h.c.kind.in_(list(kinds)),
            _h.c.published >= moment,
        )
        .limit(limit)
    )  # fmt: skip
    return [Origin(row.native_id, 0, row.fingerprint) for row in rows]


def files(tx: Tx, account_id: int, source: str, native_ids: Collection[str]) -> dict[str, tuple[MediaKind, str]]:
    """{source key: (kind, sha256)} of the files of these held posts."""
    rows = tx.execute(
        select(_f.c.source_key, _f.c.kind, _f.c.sha256)
        .join(_h, _h.c.id == _f.c.held_id)
        .where(
            _h.c.account_id == account_id, _h.c.source == source, _h.c.native_id.in_(list(native_ids)),
            _f.c.sha256.is_not(None),
        )
    )  # fmt: skip
    return {row.source_key: (row.kind, row.sha256) for row in rows}


def told_already(tx: Tx, account_id: int, post: SourcePost) -> bool:
    """Whether a post, read from another source, is one that is held or not to be shared: of the same second and the
    same text."""
    second = post.published.replace(microsecond=0)
    rows = tx.execute(
        select(_h.c.told).where(
            _h.c.account_id == account_id, _h.c.published >= second, _h.c.published < second + timedelta(seconds=1)
        )
    )
    return any(_words(load(row.told).text) == _words(post.text) for row in rows)


def _words(told: str) -> str:
    return " ".join(unicodedata.normalize("NFC", told).split())


def listed(tx: Tx, account_id: int, *, limit: int = 100) -> list[Held]:
    """What is held, the next to leave first; then what is not shared, the latest first."""
    waiting = select(_h).where(_h.c.account_id == account_id, _h.c.state == "held").order_by(_h.c.due_at, _h.c.id)
    never = select(_h).where(_h.c.account_id == account_id, _h.c.state == "unshared").order_by(_h.c.published.desc())
    return [_held(tx, row) for query in (waiting, never) for row in tx.execute(query.limit(limit)).all()]


def anything(tx: Tx, account_id: int) -> bool:
    """Whether an account has any post that is held, or not to be shared."""
    return tx.execute(select(_h.c.id).where(_h.c.account_id == account_id).limit(1)).first() is not None


def by_id(tx: Tx, account_id: int, held_id: int) -> Held | None:
    """A held post of this account."""
    row = tx.execute(select(_h).where(_h.c.id == held_id, _h.c.account_id == account_id)).first()
    return _held(tx, row) if row is not None else None


def next_due(tx: Tx, account_id: int) -> datetime | None:
    """When the next held post is to leave."""
    due = select(func.min(_h.c.due_at)).where(_h.c.account_id == account_id, _h.c.state == "held")
    return tx.execute(due).scalar()


def foremost(tx: Tx, account_id: int) -> Held | None:
    """The first held post whose time is over; a thread's posts in its order."""
    row = tx.execute(
        select(_h)
        .where(_h.c.account_id == account_id, _h.c.state == "held", _h.c.due_at <= tx.now)
        .order_by(_h.c.due_at, _h.c.id)
        .limit(1)
    ).first()
    return _held(tx, row) if row is not None else None


def line_of(tx: Tx, held: Held, *, before: bool) -> list[int]:
    """Numbers of the held posts that this one continues (`before`), or that continue it, with their own in turn."""
    found: list[int] = []
    names = [held.post.parent.native_id if held.post.parent else None] if before else [held.post.native_id]
    while names:
        which = _h.c.native_id.in_(names) if before else _h.c.parent.in_(names)
        rows = tx.execute(
            select(_h.c.id, _h.c.native_id, _h.c.parent).where(
                _h.c.account_id == held.account_id, _h.c.source == held.source, which, _h.c.id.not_in(found)
            )
        ).all()
        found += [row.id for row in rows]
        names = [row.parent if before else row.native_id for row in rows]
        names = [name for name in names if name is not None]
    return found


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def leave_now(tx: Tx, account_id: int, held_ids: Collection[int]) -> None:
    """Let these be due, also what was not to be shared."""
    tx.execute(
        update(_h).where(_h.c.id.in_(held_ids), _h.c.account_id == account_id).values(
            state="held", reason=None, due_at=tx.now
        )
    )  # fmt: skip
    ask(tx, account_id, tx.now)


def unshare(tx: Tx, account_id: int, held_ids: Collection[int], reason: str) -> int:
    """These never leave; returns how many were still to."""
    changed = tx.execute(
        update(_h)
        .where(_h.c.id.in_(held_ids), _h.c.account_id == account_id, _h.c.state == "held")
        .values(state="unshared", reason=reason)
    )
    return changed.rowcount


def silence(tx: Tx, account_id: int) -> None:
    """An account is deleted: nothing of it leaves any more. Its files are named here until they are erased."""
    jobs.drop(tx, SHARE, str(account_id))
    tx.execute(
        update(_h)
        .where(_h.c.account_id == account_id, _h.c.state == "held")
        .values(state="unshared", reason="the account was deleted before")
    )


def remove(tx: Tx, held_ids: Collection[int]) -> int:
    """Take these out: they have left, or are gone at their source."""
    tx.execute(delete(_f).where(_f.c.held_id.in_(list(held_ids))))
    return tx.execute(delete(_h).where(_h.c.id.in_(list(held_ids)))).rowcount


def files_of_account(tx: Tx, account_id: int) -> set[str]:
    """Hashes of the files of everything that is held of an account."""
    return set(
        tx.execute(select(_f.c.sha256).where(_f.c.account_id == account_id, _f.c.sha256.is_not(None))).scalars()
    )


# ── as text ──────────────────────────────────────────────────────────────────────────────────────────────────────


def dump(post: SourcePost) -> str:
    """A source post as JSON."""
    return json.dumps(asdict(post), default=lambda moment: moment.isoformat())


def load(told: str) -> SourcePost:
    """A source post that was dumped."""
    said = json.loads(told)
    references = {
        name: SourceReference(**said[name]) if said[name] else None for name in ("parent", "quoted", "reposted")
    }
    poll = said["poll"]
    return SourcePost(
        **{
            **said,
            **references,
            "published": datetime.fromisoformat(said["published"]),
            "media": tuple(SourceMedia(**item) for item in said["media"]),
            "poll": SourcePoll(
                options=tuple(poll["options"]),
                votes=tuple(poll["votes"]) if poll["votes"] is not None else None,
                closes_at=datetime.fromisoformat(poll["closes_at"]) if poll["closes_at"] else None,
            )
            if poll
            else None,
            "spoilers": tuple((start, end) for start, end in said["spoilers"]),
            "expires_at": datetime.fromisoformat(said["expires_at"]) if said["expires_at"] else None,
        }
    )


def _held(tx: Tx, row: Row[Any]) -> Held:
    attached = tx.execute(select(_f).where(_f.c.held_id == row.id).order_by(_f.c.position))
    return Held(
        id=row.id,
        account_id=row.account_id,
        source=row.source,
        post=load(row.told),
        language=row.language,
        attachments=tuple(
            NewAttachment(item.kind, item.alt, item.source_key, item.sha256, item.missing) for item in attached
        ),
        state=row.state,
        reason=row.reason,
        held_at=row.held_at,
        due_at=row.due_at,
    )
