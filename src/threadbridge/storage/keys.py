"""Signing keys of our accounts and of the server's own actor (account None).

Rule: a private half is in the database only sealed, bound to its account and to its fragment, and leaves this module
only for the one who signs. A fragment is never used twice. Of each kind one key is current.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, and_, insert, select, update

from threadbridge.domain.keys import PROOF_FRAGMENT, RSA_FRAGMENT, KeyKind, KeyState, OwnKey, PublishedKeys
from threadbridge.errors import NotFound
from threadbridge.storage import schema
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import NewKey, Vault, new_ed25519_key

_k = schema.account_keys


def purpose(account_id: int | None, fragment: str = RSA_FRAGMENT) -> str:
    """Associated data of a sealed private key. That of a first RSA key does not name its fragment, since it was
    sealed when an account could have no other."""
    owner = account_id if account_id is not None else "instance"
    return f"account_keys/{owner}/private" if fragment == RSA_FRAGMENT else f"account_keys/{owner}/{fragment}/private"


def make(tx: Tx, vault: Vault, account_id: int | None, rsa: NewKey) -> None:
    """Store the first keys of an account: `rsa`, and an Ed25519 key made here (that takes microseconds)."""
    add(tx, vault, account_id, "rsa", rsa, fragment=RSA_FRAGMENT, state="current")
    add(tx, vault, account_id, "ed25519", new_ed25519_key(), fragment=PROOF_FRAGMENT, state="current")


def add(
    tx: Tx, vault: Vault, account_id: int | None, kind: KeyKind, key: NewKey, *, fragment: str, state: KeyState
) -> int:
    """Store one key; returns its number."""
    return int(
        tx.execute(
            insert(_k)
            .values(
                account_id=account_id,
                kind=kind,
                fragment=fragment,
                state=state,
                public_pem=key.public_pem,
                sealed_private=vault.seal(key.private_pem, purpose=purpose(account_id, fragment)),
                created_at=tx.now,
            )
            .returning(_k.c.id)
        ).scalar_one()
    )


def current(tx: Tx, account_id: int | None, kind: KeyKind = "rsa") -> OwnKey:
    """The key with which an account signs; raises NotFound."""
    found = _rows(tx, account_id, _k.c.kind == kind, _k.c.state == "current")
    if not found:
        raise NotFound("There is no key for this actor")
    return _key(found[0])


def public_key(tx: Tx, account_id: int | None) -> str:
    """SPKI PEM of an account's current RSA key, or of the instance actor's (None). Raises NotFound."""
    return current(tx, account_id).public_pem


def private_key(
    tx: Tx, vault: Vault, account_id: int | None, kind: KeyKind = "rsa", *, number: int | None = None
) -> tuple[OwnKey, bytes]:
    """A key with its PKCS#8 PEM: the current one of a kind, or the one with this number. Only for the one who signs.
    Raises NotFound, and BadConfiguration when the secret key is not the one it was sealed with."""
    which = _k.c.id == number if number is not None else and_(_k.c.kind == kind, _k.c.state == "current")
    found = _rows(tx, account_id, which)
    if not found:
        raise NotFound("There is no key for this actor")
    key = _key(found[0])
    return key, vault.open(found[0].sealed_private, purpose=purpose(account_id, key.fragment))


def every(tx: Tx, account_id: int | None) -> list[OwnKey]:
    """All keys of an account, oldest first."""
    return [_key(row) for row in _rows(tx, account_id)]


def published(tx: Tx, account_id: int | None) -> PublishedKeys:
    """What the actor document says of keys; raises NotFound when there is none."""
    held = [key for key in every(tx, account_id) if key.state != "retired"]
    requests = next((key for key in held if key.kind == "rsa" and key.state == "current"), None)
    if requests is None:
        raise NotFound("There is no key for this actor")
    proofs = next((key for key in held if key.kind == "ed25519" and key.state == "current"), None)
    return PublishedKeys(requests, proofs, tuple(key for key in held if key not in (requests, proofs)))


def set_state(tx: Tx, key_id: int, state: KeyState) -> None:
    """Move a key on."""
    tx.execute(update(_k).where(_k.c.id == key_id).values(state=state))


def ensure_instance_key(tx: Tx, vault: Vault, key: NewKey) -> None:
    """Store the instance actor's keys unless there are some."""
    if not has_instance_key(tx):
        # Machines may start for the first time together: the second one waits here for the first one's commit.
        made = tx.insert(schema.facts).values(name="instance_key", value="made").on_conflict_do_nothing()
        tx.execute(made)
    if not has_instance_key(tx):
        make(tx, vault, None, key)


def has_instance_key(tx: Tx) -> bool:
    """Whether the server has ever been started."""
    return bool(_rows(tx, None))


def without_proof_key(tx: Tx, limit: int = 500) -> list[int | None]:
    """Owners of keys, accounts and the instance actor, that have no Ed25519 key: they were made by an older
    version."""
    other = _k.alias("other")
    same = and_(other.c.kind == "ed25519", other.c.account_id.is_not_distinct_from(_k.c.account_id))
    lacking = select(_k.c.account_id).where(_k.c.kind == "rsa", ~select(other.c.id).where(same).exists())
    return [row.account_id for row in tx.execute(lacking.distinct().limit(limit))]


def add_missing(tx: Tx, vault: Vault) -> int:
    """Make Ed25519 keys for some of those that have none; returns for how many. Their documents change."""
    if tx.connection.dialect.name == "postgresql":
        # Machines may start together; SQLite lets one write at a time anyway.
        tx.execute(select(schema.facts).where(schema.facts.c.name == "base_url").with_for_update())
    owners = without_proof_key(tx)
    for account_id in owners:
        add(tx, vault, account_id, "ed25519", new_ed25519_key(), fragment=PROOF_FRAGMENT, state="current")
    return len(owners)


def _rows(tx: Tx, account_id: int | None, *conditions: Any) -> list[Row[Any]]:
    owner = _k.c.account_id.is_(None) if account_id is None else _k.c.account_id == account_id
    return list(tx.execute(select(_k).where(owner, *conditions).order_by(_k.c.id)))


def _key(row: Row[Any]) -> OwnKey:
    return OwnKey(row.id, row.kind, row.state, row.fragment, row.public_pem, row.created_at)
