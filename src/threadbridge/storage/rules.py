"""What owners chose about their posts, and the answers that were let through where not everybody may answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import bindparam, exists, func, select, update

from threadbridge.domain.posts import QuoteRule, ReplyRule
from threadbridge.domain.rules import Rules, answers_to
from threadbridge.storage import schema
from threadbridge.storage.accounts import touch
from threadbridge.storage.store import Tx

_r, _p, _a = schema.post_rules, schema.posts, schema.approvals
USUAL = Rules()
_FOR_ONE = (
    select(_p.c.reply_rule, _p.c.quote_rule, _p.c.audience, _r.c.replies, _r.c.quotes)
    .outerjoin(_r, _r.c.account_id == _p.c.account_id)
    .where(_p.c.id == bindparam("post"))
)


def of_accounts(tx: Tx, account_ids: Collection[int]) -> dict[int, Rules]:
    """{account id: what its owner chose}, also for those who chose nothing."""
    chosen: dict[int, Rules] = dict.fromkeys(account_ids, USUAL)
    for row in tx.execute(select(_r).where(_r.c.account_id.in_(list(chosen)))):
        chosen[row.account_id] = Rules(row.replies, row.quotes, row.spoiler_words, row.link_cards, row.own_pages)
    return chosen


def of_account(tx: Tx, account_id: int) -> Rules:
    """What the owner of an account chose."""
    return of_accounts(tx, [account_id])[account_id]


def for_answers(tx: Tx, post_id: int) -> ReplyRule:
    """Who may answer a post; never 'source'. Asked for every answer that arrives, so in one query."""
    row = tx.execute(_FOR_ONE, {"post": post_id}).first()
    return answers_to(row.reply_rule or row.replies or USUAL.replies, row.audience) if row else "nobody"


def for_quotes(tx: Tx, post_id: int) -> QuoteRule:
    """Who may quote a post."""
    row = tx.execute(_FOR_ONE, {"post": post_id}).first()
    return (row.quote_rule or row.quotes or USUAL.quotes) if row else "nobody"


def choose(tx: Tx, account_id: int, rules: Rules) -> None:
    """Take over what an owner chose for all posts."""
    values = asdict(rules)
    tx.execute(
        tx.insert(_r)
        .values(account_id=account_id, **values)
        .on_conflict_do_update(index_elements=["account_id"], set_=values)
    )
    touch(tx, account_id)


def choose_for_post(
    tx: Tx, account_id: int, post_id: int, replies: ReplyRule | None, quotes: QuoteRule | None
) -> bool:
    """Take over what an owner chose for one post (None: as for all); False if nothing changed."""
    changed = tx.execute(
        update(_p)
        .where(
            _p.c.id == post_id,
            _p.c.account_id == account_id,
            _p.c.reply_rule.is_distinct_from(replies) | _p.c.quote_rule.is_distinct_from(quotes),
        )
        .values(reply_rule=replies, quote_rule=quotes)
    )
    if not changed.rowcount:
        return False
    touch(tx, account_id)
    return True


def audiences(tx: Tx, post_ids: Collection[int]) -> dict[int, str | None]:
    """{post id: who may answer, in the source's word}."""
    if not post_ids:
        return {}
    rows = tx.execute(select(_p.c.id, _p.c.audience).where(_p.c.id.in_(list(post_ids))))
    return {row.id: row.audience for row in rows}


def set_audience(tx: Tx, post_id: int, audience: str | None) -> bool:
    """Learn that the source lets others answer than before; False if that is known."""
    changed = tx.execute(
        update(_p).where(_p.c.id == post_id, _p.c.audience.is_distinct_from(audience)).values(audience=audience)
    )
    return bool(changed.rowcount)


# ── answers let through ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Approval:
    """An answer that was let through; `ended` when it was deleted or taken back, `parked` while a rule holds."""

    id: int
    account_id: int
    post_id: int
    uri: str
    peer_uri: str
    ended: bool
    parked: bool = False


def _approval(row: Any) -> Approval:
    ended, parked = row.ended_at is not None, row.parked is not None
    return Approval(row.id, row.account_id, row.post_id, row.uri, row.peer_uri, ended, parked)


def approve(tx: Tx, account_id: int, post_id: int, uri: str, peer_uri: str) -> Approval | None:
    """Let an answer through; None when it was let through before and that has ended, or is somebody else's."""
    tx.execute(
        tx.insert(_a)
        .values(account_id=account_id, post_id=post_id, uri=uri, peer_uri=peer_uri, at=tx.now)
        .on_conflict_do_nothing()
    )
    held = _approval(tx.execute(select(_a).where(_a.c.uri == uri)).one())
    return held if (held.post_id, held.peer_uri, held.ended) == (post_id, peer_uri, False) else None


def unused_from(tx: Tx, host: str) -> int:
    """How many answers of a server's people were let through and never came."""
    people, answers = schema.peers, schema.replies
    mine = select(func.count()).select_from(_a.join(people, people.c.uri == _a.c.peer_uri))
    came = exists().where(answers.c.uri == _a.c.uri)
    return int(tx.execute(mine.where(people.c.host == host, _a.c.ended_at.is_(None), ~came)).scalar_one())


def approval(tx: Tx, account_id: int, number: int) -> Approval | None:
    """The approval with this number."""
    row = tx.execute(select(_a).where(_a.c.id == number, _a.c.account_id == account_id)).first()
    return _approval(row) if row else None


def approval_of(tx: Tx, uri: str) -> Approval | None:
    """The approval of this answer, if it stands."""
    row = tx.execute(select(_a).where(_a.c.uri == uri, _a.c.ended_at.is_(None))).first()
    return _approval(row) if row else None


def end_approval(tx: Tx, uri: str, peer_uri: str) -> None:
    """The answer is gone, and with it what let it through."""
    tx.execute(
        update(_a).where(_a.c.uri == uri, _a.c.peer_uri == peer_uri, _a.c.ended_at.is_(None)).values(ended_at=tx.now)
    )
