"""Owners' accounts: rows, states, consents and sign-in.

Rule: whatever changes what the public sees of an account calls `touch`; what changes its actor document calls
`described`, which also asks for the news to be told.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from threadbridge.domain.accounts import Account, AccountState, check_handle
from threadbridge.errors import Conflict, NotFound
from threadbridge.storage import jobs, keys, schema
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import NewKey, Vault

ANNOUNCE = "announce"
"""The kind of job that tells followers of a changed actor document; its key is the account's number."""
ANNOUNCE_AFTER = timedelta(seconds=2)
"""Changes that follow one another within this time are told together."""
ANNOUNCE_EVERY = timedelta(minutes=2)
"""An account's document is told at most this often; whatever changed in between is told at the end."""
FORMER_HANDLE_FOUND = timedelta(days=365)
"""How long WebFinger still answers to a handle that an account had before."""

_t = schema.accounts


def _selected() -> Select[Any]:
    avatar, header = schema.media.alias("avatar_file"), schema.media.alias("header_file")
    return select(_t, avatar.c.media_type.label("avatar_type"), header.c.media_type.label("header_type")).select_from(
        _t.outerjoin(avatar, avatar.c.sha256 == _t.c.avatar).outerjoin(header, header.c.sha256 == _t.c.header)
    )


def _account(row: Row[Any]) -> Account:
    return Account(
        id=row.id,
        handle=row.handle,
        name=row.name,
        bio=row.bio,
        source_url=row.source_url,
        avatar=row.avatar,
        avatar_type=row.avatar_type,
        state=AccountState(row.state),
        discoverable=row.discoverable,
        created_at=row.created_at,
        joined_at=row.joined_at,
        followers_count=row.followers_count,
        posts_count=row.posts_count,
        revision=row.revision,
        changed_at=row.changed_at,
        approves_followers=row.approves_followers,
        header=row.header,
        header_type=row.header_type,
        header_alt=row.header_alt,
        avatar_alt=row.avatar_alt,
        indexable=row.indexable,
        bridge_line=row.bridge_line,
        credit_domains=tuple(row.credit_domains.split()),
        featured_count=row.featured_count,
        domain=row.domain,
    )


_BY_ID = Prepared(lambda _: _selected().where(_t.c.id == bindparam("account")))
_BY_HANDLE = Prepared(lambda _: _selected().where(_t.c.handle == bindparam("lower")))


def by_id(tx: Tx, account_id: int) -> Account | None:
    row = _BY_ID.first(tx, account=account_id)
    return _account(row) if row else None


def by_handle(tx: Tx, handle: str) -> Account | None:
    """The account with this handle, whatever its case; None if there never was one."""
    row = _BY_HANDLE.first(tx, lower=handle.lower())
    return _account(row) if row else None


def by_former_handle(tx: Tx, handle: str) -> Account | None:
    """The account that had this handle until not long ago."""
    f = schema.former_handles
    left = select(f.c.account_id).where(f.c.handle == handle.lower(), f.c.left_at > tx.now - FORMER_HANDLE_FOUND)
    number = tx.execute(left).scalar_one_or_none()
    return by_id(tx, number) if number is not None else None


def former_handles(tx: Tx, account_id: int) -> list[str]:
    """Handles that an account had before, latest first."""
    f = schema.former_handles
    rows = tx.execute(select(f.c.handle).where(f.c.account_id == account_id).order_by(f.c.left_at.desc()))
    return [row.handle for row in rows]


def rename(tx: Tx, account_id: int, handle: str) -> Account:
    """Give an account another handle. Ids stay; the old handle stays its own for ever, and is found for a year.

    Raises Invalid, or Conflict when the handle is or was somebody else's. Handles are not passed on, since elsewhere
    people know somebody by it: not even after a deletion.
    """
    check_handle(handle)
    account = by_id(tx, account_id)
    if account is None or account.state is AccountState.GONE:
        raise NotFound("There is no such account here")
    if handle == account.handle:
        return account
    f = schema.former_handles
    owner = tx.execute(select(f.c.account_id).where(f.c.handle == handle)).scalar_one_or_none()
    if owner not in (None, account_id) or by_handle(tx, handle) is not None:
        raise Conflict(f"The handle {handle!r} is taken", hint="Choose another.")
    tx.execute(delete(f).where(f.c.handle == handle))
    tx.execute(insert(f).values(handle=account.handle, account_id=account_id, left_at=tx.now))
    tx.execute(update(_t).where(_t.c.id == account_id).values(handle=handle))
    described(tx, account_id)
    renamed = by_id(tx, account_id)
    assert renamed is not None
    return renamed


def named(tx: Tx, handle: str) -> Account:
    """`by_handle` for commands: accepts `@handle` and `handle@host`, raises NotFound with what to do."""
    account = by_handle(tx, handle.strip().lstrip("@").split("@", 1)[0])
    if account is None:
        raise NotFound(f"There is no account {handle!r} here", hint="`threadbridge accounts` lists the accounts.")
    return account


def listed(tx: Tx) -> list[Account]:
    """All accounts, oldest first."""
    return [_account(row) for row in tx.execute(_selected().order_by(_t.c.id))]


def totals(tx: Tx) -> tuple[int, int]:
    """(accounts that are not gone, their live posts), for NodeInfo."""
    present = _t.c.state != AccountState.GONE.value
    people = tx.execute(select(func.count()).select_from(_t).where(present)).scalar_one()
    posts = tx.execute(select(func.coalesce(func.sum(_t.c.posts_count), 0)).where(present)).scalar_one()
    return people, int(posts)


def create(
    tx: Tx,
    vault: Vault,
    key: NewKey,
    *,
    handle: str,
    name: str,
    bio: str,
    source_url: str | None,
    joined_at: datetime | None,
    consent_kind: str,
    consent_wording: str,
) -> Account:
    """A new, active account with its keys (`key` is the RSA one) and the recorded consent. Raises Invalid or
    Conflict for the handle."""
    check_handle(handle)
    f = schema.former_handles
    if tx.execute(select(f.c.handle).where(f.c.handle == handle)).first() is not None:
        raise Conflict(f"The handle {handle!r} was another account's", hint="Choose another with --handle.")
    try:
        account_id = tx.execute(
            insert(_t)
            .values(
                handle=handle,
                name=name,
                bio=bio,
                source_url=source_url,
                state=AccountState.ACTIVE.value,
                discoverable=True,
                created_at=tx.now,
                joined_at=joined_at,
                changed_at=tx.now,
                announced="",
            )
            .returning(_t.c.id)
        ).scalar_one()
    except IntegrityError:
        raise Conflict(f"The handle {handle!r} is taken", hint="Choose another with --handle.") from None
    keys.make(tx, vault, account_id, key)
    _record_state(tx, account_id, AccountState.ACTIVE, f"consent: {consent_kind}")
    record_consent(tx, account_id, consent_kind, consent_wording)
    touch(tx, account_id)
    created = by_id(tx, account_id)
    assert created is not None
    return created


def record_consent(tx: Tx, account_id: int, kind: str, wording: str) -> None:
    """Keep what was agreed to, and how ('download', 'token')."""
    tx.execute(insert(schema.consents).values(account_id=account_id, kind=kind, wording=wording, at=tx.now))


def update_profile(
    tx: Tx,
    account_id: int,
    *,
    name: str | None = None,
    bio: str | None = None,
    source_url: str | None = None,
    avatar: str | None = None,
    joined_at: datetime | None = None,
    without_avatar: bool = False,
) -> bool:
    """Set what is given (None leaves as it is); True if anything changed. `avatar` is a media hash; `without_avatar`
    takes away the one that is there."""
    given = {"name": name, "bio": bio, "source_url": source_url, "avatar": avatar, "joined_at": joined_at}
    wanted: dict[str, Any] = {column: value for column, value in given.items() if value is not None}
    if without_avatar:
        wanted["avatar"] = None
    account = by_id(tx, account_id)
    if account is None:
        return False
    changes = {column: value for column, value in wanted.items() if getattr(account, column) != value}
    if not changes:
        return False
    tx.execute(update(_t).where(_t.c.id == account_id).values(**changes))
    described(tx, account_id)
    return True


def set_choices(tx: Tx, /, account_id: int, **chosen: Any) -> bool:
    """Set columns that the owner chooses (`discoverable`, `bridge_line`, `header`, …); True if anything changed."""
    held = tx.execute(select(_t).where(_t.c.id == account_id)).one()
    changes = {column: value for column, value in chosen.items() if getattr(held, column) != value}
    if not changes:
        return False
    tx.execute(update(_t).where(_t.c.id == account_id).values(**changes))
    described(tx, account_id)
    return True


def set_state(tx: Tx, account_id: int, state: AccountState, cause: str) -> bool:
    """Change the state and write down why; False if it was that already. A gone account stays gone."""
    account = by_id(tx, account_id)
    if account is None or account.state == state:
        return False
    if account.state is AccountState.GONE:
        raise Conflict("This account has been deleted for good")
    tx.execute(update(_t).where(_t.c.id == account_id).values(state=state.value))
    _record_state(tx, account_id, state, cause)
    # While it was paused nothing was told.
    (described if state is AccountState.ACTIVE else touch)(tx, account_id)
    return True


def set_approval(tx: Tx, account_id: int, on: bool) -> bool:
    """Whether the owner lets each follower in by hand; False if it was so already."""
    changed = tx.execute(
        update(_t).where(_t.c.id == account_id, _t.c.approves_followers != on).values(approves_followers=on)
    )
    if changed.rowcount:
        described(tx, account_id)
    return bool(changed.rowcount)


def _record_state(tx: Tx, account_id: int, state: AccountState, cause: str) -> None:
    tx.execute(insert(schema.account_states).values(account_id=account_id, state=state.value, cause=cause, at=tx.now))


_TOUCH = Prepared(
    lambda _: (
        update(_t)
        .where(_t.c.id == bindparam("account"))
        .values(revision=_t.c.revision + 1, changed_at=bindparam("moment", type_=_t.c.changed_at.type))
    )
)


def touch(tx: Tx, account_id: int, *, figures_only: bool = False) -> None:
    """Say that public documents of this account changed.

    Content changes also drop the ready documents of this process at commit. `figures_only` (a like, a follower)
    leaves them to the watcher, which looks every second, so that a storm of likes does not rebuild documents.
    """
    _TOUCH.run(tx, account=account_id, moment=tx.now)
    if not figures_only:
        tx.touched.add(account_id)


def lock(tx: Tx, account_id: int) -> None:
    """Let one transaction at a time change, or tell of, an account (PostgreSQL; SQLite has one writer anyway)."""
    tx.execute(select(_t.c.id).where(_t.c.id == account_id).with_for_update())


def described(tx: Tx, account_id: int) -> None:
    """Say that the actor document may have changed: served anew at once, told to followers soon, and together with
    whatever else changes until then. Where nobody follows nobody is told, and nobody knows the old one."""
    touch(tx, account_id)
    row = tx.execute(select(_t.c.announced_at, _t.c.followers_count, _t.c.state).where(_t.c.id == account_id)).one()
    if not row.followers_count:
        set_announced(tx, account_id, "", told=False)
    elif row.state == AccountState.ACTIVE.value:
        due_at = tx.now + ANNOUNCE_AFTER
        if row.announced_at is not None:
            due_at = max(due_at, row.announced_at + ANNOUNCE_EVERY)
        jobs.add(tx, ANNOUNCE, str(account_id), {"account": account_id}, due_at=due_at)


def announced(tx: Tx, account_id: int) -> str | None:
    """The hash of the actor document that was told last; '' when nobody has to be told of the one before, None when
    that is not known (the account is older than this memory)."""
    return tx.execute(select(_t.c.announced).where(_t.c.id == account_id)).scalar_one_or_none()


def set_announced(tx: Tx, account_id: int, digest: str, *, told: bool) -> None:
    """Remember what followers know; `told` when they are being told now."""
    at = {"announced_at": tx.now} if told else {}
    tx.execute(update(_t).where(_t.c.id == account_id).values(announced=digest, **at))


def after(tx: Tx, account_id: int, limit: int) -> list[Account]:
    """Accounts that are bridged, by number, after a number."""
    active = _selected().where(_t.c.id > account_id, _t.c.state == AccountState.ACTIVE.value)
    return [_account(row) for row in tx.execute(active.order_by(_t.c.id).limit(limit))]


def changed_since(tx: Tx, moment: datetime) -> dict[int, int]:
    """{account id: revision} of accounts changed at or after `moment`."""
    rows = tx.execute(select(_t.c.id, _t.c.revision).where(_t.c.changed_at >= moment))
    return {row.id: row.revision for row in rows}


# ── facts about the place ────────────────────────────────────────────────────────────────────────────────────────


def fact(tx: Tx, name: str) -> str | None:
    """A single value that belongs to the data, such as 'base_url'."""
    f = schema.facts
    return tx.execute(select(f.c.value).where(f.c.name == name)).scalar_one_or_none()


def set_fact(tx: Tx, name: str, value: str) -> None:
    kept = tx.insert(schema.facts).values(name=name, value=value)
    tx.execute(kept.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


# ── signing in ───────────────────────────────────────────────────────────────────────────────────────────────────

SIGN_IN_LINK_LIFE = timedelta(minutes=15)
SESSION_LIFE = timedelta(days=7)
SESSION_IDLE = timedelta(hours=12)


def add_sign_in_link(tx: Tx, account_id: int, token_hash: str) -> datetime:
    """Keep a one-time link's hash; returns when it ends."""
    expires_at = tx.now + SIGN_IN_LINK_LIFE
    tx.execute(
        insert(schema.sign_in_links).values(
            token_hash=token_hash, account_id=account_id, created_at=tx.now, expires_at=expires_at
        )
    )
    return expires_at


def use_sign_in_link(tx: Tx, link_hash: str, *, session_hash: str, form_token: str) -> Account | None:
    """Turn an unused, unexpired link into a session; None if there is no such link (any more)."""
    links = schema.sign_in_links
    account_id = tx.execute(
        update(links)
        .where(links.c.token_hash == link_hash, links.c.used_at.is_(None), links.c.expires_at > tx.now)
        .values(used_at=tx.now)
        .returning(links.c.account_id)
    ).scalar_one_or_none()
    account = by_id(tx, account_id) if account_id is not None else None
    if account is None or account.state is AccountState.GONE:
        return None
    tx.execute(
        insert(schema.sessions).values(
            token_hash=session_hash,
            account_id=account.id,
            form_token=form_token,
            created_at=tx.now,
            seen_at=tx.now,
            expires_at=tx.now + SESSION_LIFE,
        )
    )
    return account


def session(tx: Tx, session_hash: str) -> tuple[Account, str] | None:
    """(account, form token) of a live session."""
    s = schema.sessions
    row = tx.execute(
        select(s).where(s.c.token_hash == session_hash, s.c.expires_at > tx.now, s.c.seen_at > tx.now - SESSION_IDLE)
    ).first()
    account = by_id(tx, row.account_id) if row else None
    return (account, row.form_token) if row and account else None


def session_seen(tx: Tx, session_hash: str) -> None:
    """Push back the idle end of a session."""
    s = schema.sessions
    tx.execute(update(s).where(s.c.token_hash == session_hash).values(seen_at=tx.now))


def forget_sign_ins(tx: Tx, before: datetime) -> None:
    """Forget links and sessions that ended before a time."""
    for table in (schema.sign_in_links, schema.sessions):
        tx.execute(delete(table).where(table.c.expires_at < before))


def end_session(tx: Tx, session_hash: str) -> None:
    """Sign out: the row goes, so the cookie opens nothing any more."""
    s = schema.sessions
    tx.execute(s.delete().where(s.c.token_hash == session_hash))


def damage(tx: Tx) -> str | None:
    """What SQLite's own check finds wrong with the file; None when all is well (PostgreSQL checks itself)."""
    if tx.connection.dialect.name != "sqlite":
        return None
    found = str(tx.connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    return None if found == "ok" else found
