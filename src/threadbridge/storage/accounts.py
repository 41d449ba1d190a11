"""Owners' accounts: rows, states, consents, keys and sign-in.

Rule: whatever changes what the public sees of an account calls `touch`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from threadbridge.domain.accounts import Account, AccountState, check_handle
from threadbridge.errors import Conflict, NotFound
from threadbridge.storage import schema
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import NewKey, Vault

_t = schema.accounts


def _selected() -> Select[Any]:
    return select(_t, schema.media.c.media_type.label("avatar_type")).select_from(
        _t.outerjoin(schema.media, schema.media.c.sha256 == _t.c.avatar)
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
    )


def by_id(tx: Tx, account_id: int) -> Account | None:
    row = tx.execute(_selected().where(_t.c.id == account_id)).first()
    return _account(row) if row else None


def by_handle(tx: Tx, handle: str) -> Account | None:
    """The account with this handle, whatever its case; None if there never was one."""
    row = tx.execute(_selected().where(_t.c.handle == handle.lower())).first()
    return _account(row) if row else None


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
    """A new, active account with its key and the recorded consent. Raises Invalid or Conflict for the handle."""
    check_handle(handle)
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
            )
            .returning(_t.c.id)
        ).scalar_one()
    except IntegrityError:
        raise Conflict(f"The handle {handle!r} is taken", hint="Choose another with --handle.") from None
    tx.execute(
        insert(schema.account_keys).values(
            account_id=account_id,
            public_pem=key.public_pem,
            sealed_private=vault.seal(key.private_pem, purpose=key_purpose(account_id)),
            created_at=tx.now,
        )
    )
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
) -> bool:
    """Set what is given (None leaves as it is); True if anything changed. `avatar` is a media hash."""
    given = {"name": name, "bio": bio, "source_url": source_url, "avatar": avatar, "joined_at": joined_at}
    wanted = {column: value for column, value in given.items() if value is not None}
    account = by_id(tx, account_id)
    if account is None:
        return False
    changes = {column: value for column, value in wanted.items() if getattr(account, column) != value}
    if not changes:
        return False
    tx.execute(update(_t).where(_t.c.id == account_id).values(**changes))
    touch(tx, account_id)
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
    touch(tx, account_id)
    return True


def _record_state(tx: Tx, account_id: int, state: AccountState, cause: str) -> None:
    tx.execute(insert(schema.account_states).values(account_id=account_id, state=state.value, cause=cause, at=tx.now))


_TOUCH = (
    update(_t)
    .where(_t.c.id == bindparam("account"))
    .values(revision=_t.c.revision + 1, changed_at=bindparam("moment", type_=_t.c.changed_at.type))
)


def touch(tx: Tx, account_id: int, *, figures_only: bool = False) -> None:
    """Say that public documents of this account changed.

    Content changes also drop the ready documents of this process at commit. `figures_only` (a like, a follower)
    leaves them to the watcher, which looks every second, so that a storm of likes does not rebuild documents.
    """
    tx.execute(_TOUCH, {"account": account_id, "moment": tx.now})
    if not figures_only:
        tx.touched.add(account_id)


def changed_since(tx: Tx, moment: datetime) -> dict[int, int]:
    """{account id: revision} of accounts changed at or after `moment`."""
    rows = tx.execute(select(_t.c.id, _t.c.revision).where(_t.c.changed_at >= moment))
    return {row.id: row.revision for row in rows}


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def key_purpose(account_id: int | None) -> str:
    """Associated data of a sealed private key."""
    return f"account_keys/{account_id if account_id is not None else 'instance'}/private"


def public_key(tx: Tx, account_id: int | None) -> str:
    """SPKI PEM of an account's key, or of the instance actor's (None). Raises NotFound."""
    return str(_key_row(tx, account_id).public_pem)


def private_key(tx: Tx, vault: Vault, account_id: int | None) -> bytes:
    """PKCS#8 PEM of a signing key. Only for the one who signs."""
    return vault.open(_key_row(tx, account_id).sealed_private, purpose=key_purpose(account_id))


def ensure_instance_key(tx: Tx, vault: Vault, key: NewKey) -> None:
    """Store the instance actor's key unless there is one."""
    if not has_instance_key(tx):
        # Machines may start for the first time together: the second one waits here for the first one's commit.
        made = tx.insert(schema.facts).values(name="instance_key", value="made").on_conflict_do_nothing()
        tx.execute(made)
    if not has_instance_key(tx):
        tx.execute(
            insert(schema.account_keys).values(
                account_id=None,
                public_pem=key.public_pem,
                sealed_private=vault.seal(key.private_pem, purpose=key_purpose(None)),
                created_at=tx.now,
            )
        )


def has_instance_key(tx: Tx) -> bool:
    return (
        tx.execute(select(schema.account_keys.c.id).where(schema.account_keys.c.account_id.is_(None))).first()
        is not None
    )


def _key_row(tx: Tx, account_id: int | None) -> Row[Any]:
    k = schema.account_keys
    owner = k.c.account_id.is_(None) if account_id is None else k.c.account_id == account_id
    row = tx.execute(select(k).where(owner).order_by(k.c.id)).first()
    if row is None:
        raise NotFound("There is no key for this actor")
    return row


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
