"""What owners say of themselves beyond the account's row: fields, aliases, their own domain.

Rule: whatever changes the actor document goes through `accounts.described`, so that followers are told. A domain that
only the owner named is written down here and shown nowhere; it counts once the other side has agreed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from threadbridge.activitypub import outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing import Document
from threadbridge.domain.accounts import (
    ALIASES_MAX,
    ALT_LENGTH,
    CREDIT_DOMAINS_MAX,
    FEATURED_MAX,
    Account,
    Alias,
    Profile,
    ProfileField,
    check_bridge_line,
    check_domain,
    check_fields,
)
from threadbridge.errors import Conflict, Invalid, NotFound
from threadbridge.storage import accounts, jobs, keys, schema
from threadbridge.storage.store import Tx

CHECK_LINKS = "check_links"
"""The kind of job that looks whether the pages named in fields link back; its key is the account's number."""
CHECK_DOMAIN = "check_domain"
"""The kind of job that looks after an own domain; its key is the account's number."""


class _Unchanged:
    """The mark of what was not chosen."""


UNCHANGED = _Unchanged()

_f, _a, _d = schema.profile_fields, schema.aliases, schema.account_domains


def of_account(tx: Tx, account_id: int) -> Profile:
    """Fields in their order, and aliases."""
    fields = tx.execute(select(_f).where(_f.c.account_id == account_id).order_by(_f.c.position))
    aliases = tx.execute(select(_a).where(_a.c.account_id == account_id).order_by(_a.c.added_at, _a.c.uri))
    return Profile(
        tuple(ProfileField(r.name, r.value, r.verified_at, r.checked_at, r.trouble) for r in fields),
        tuple(Alias(r.uri, r.handle, r.name, r.added_at) for r in aliases),
    )


def document(tx: Tx, ids: Ids, account: Account) -> Document:
    """The actor document of an account: the one that is served and the one that is told."""
    published = keys.published(tx, account.id)
    described = outgoing.actor(ids, account, published.requests.public_pem, of_account(tx, account.id))
    return outgoing.with_keys(described, published)


def digest(described: Document) -> str:
    """What an actor document is told apart by (sha256, hex)."""
    return hashlib.sha256(outgoing.encode(described)).hexdigest()


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────


def set_fields(tx: Tx, account_id: int, given: Sequence[tuple[str, str]]) -> bool:
    """Replace all fields; True if anything changed. What was verified of an address stays with the address. Raises
    Invalid."""
    wanted = check_fields(given)
    held = of_account(tx, account_id).fields
    if tuple((field.name, field.value) for field in held) == wanted:
        return False
    known = {field.value: field for field in held}
    tx.execute(delete(_f).where(_f.c.account_id == account_id))
    for position, (name, value) in enumerate(wanted):
        before = known.get(value)
        tx.execute(
            insert(_f).values(
                account_id=account_id,
                position=position,
                name=name,
                value=value,
                verified_at=before.verified_at if before else None,
                checked_at=before.checked_at if before else None,
                trouble=before.trouble if before else None,
            )
        )
    if any(field.link for field in of_account(tx, account_id).fields):
        jobs.add(tx, CHECK_LINKS, str(account_id), {"account": account_id})
    accounts.described(tx, account_id)
    return True


def links_to_check(tx: Tx, account_id: int) -> list[str]:
    """The addresses among an account's fields, each once."""
    return list(dict.fromkeys(field.link for field in of_account(tx, account_id).fields if field.link))


def link_checked(tx: Tx, account_id: int, url: str, *, links_back: bool | None, trouble: str | None) -> bool:
    """Write down what was found at an address: it links back (True), it does not (False), or nobody can say now
    (None, which takes nothing away). True if a link that was verified is so no more."""
    row = tx.execute(select(_f).where(_f.c.account_id == account_id, _f.c.value == url)).first()
    if row is None:
        return False
    verified_at = (row.verified_at or tx.now) if links_back else (None if links_back is False else row.verified_at)
    tx.execute(
        update(_f)
        .where(_f.c.account_id == account_id, _f.c.value == url)
        .values(verified_at=verified_at, checked_at=tx.now, trouble=trouble)
    )
    if (verified_at is None) != (row.verified_at is None):
        accounts.touch(tx, account_id)
    return row.verified_at is not None and verified_at is None


# ── choices ──────────────────────────────────────────────────────────────────────────────────────────────────────


def choose(
    tx: Tx,
    account_id: int,
    host: str,
    *,
    line: str | _Unchanged | None = UNCHANGED,
    discoverable: bool | None = None,
    indexable: bool | None = None,
    featured: int | None = None,
    credit: Sequence[str] | None = None,
    avatar_alt: str | None = None,
    header_alt: str | None = None,
) -> bool:
    """Write what an owner chose, as far as given; True if anything changed. `line` says what the account is (None: in
    our words; '': a field says it); `host` is this server's name. Raises Invalid."""
    chosen: dict[str, Any] = {"discoverable": discoverable, "indexable": indexable}
    if featured is not None and not 0 <= featured <= FEATURED_MAX:
        raise Invalid(f"{featured} is no number of posts", hint=f"Choose 0 to {FEATURED_MAX}.")
    chosen["featured_count"] = featured
    if credit is not None:
        named = list(dict.fromkeys(check_domain(domain) for domain in credit))
        if len(named) > CREDIT_DOMAINS_MAX:
            raise Invalid(f"{CREDIT_DOMAINS_MAX} web sites at most can name you as an author")
        chosen["credit_domains"] = " ".join(named)
    for column, alt in (("avatar_alt", avatar_alt), ("header_alt", header_alt)):
        if alt is not None and len(alt) > ALT_LENGTH:
            raise Invalid(f"A description has {ALT_LENGTH} characters at most")
        chosen[column] = " ".join(alt.split()) if alt is not None else None
    wanted = {column: value for column, value in chosen.items() if value is not None}
    if not isinstance(line, _Unchanged):
        wanted["bridge_line"] = check_bridge_line(line, host) if line is not None else None
    return accounts.set_choices(tx, account_id, **wanted)


def set_header(tx: Tx, account_id: int, sha256: str | None) -> bool:
    """The picture across the top of the profile, a file of the media store; None takes it away."""
    return accounts.set_choices(tx, account_id, header=sha256)


# ── aliases ──────────────────────────────────────────────────────────────────────────────────────────────────────


def add_alias(tx: Tx, account_id: int, uri: str, *, handle: str, name: str) -> bool:
    """Say that another actor is the same person; False if that is said already. Raises Invalid, Conflict."""
    held = of_account(tx, account_id).aliases
    if uri in {alias.uri for alias in held}:
        return False
    if len(uri) > 2048:
        raise Invalid("The id of that actor is too long")
    if len(held) >= ALIASES_MAX:
        raise Conflict(f"There are {ALIASES_MAX} aliases already", hint="Remove one of them first.")
    tx.execute(insert(_a).values(account_id=account_id, uri=uri, handle=handle, name=name, added_at=tx.now))
    accounts.described(tx, account_id)
    return True


def remove_alias(tx: Tx, account_id: int, uri: str) -> None:
    """Say it no more. Raises NotFound."""
    if not tx.execute(delete(_a).where(_a.c.account_id == account_id, _a.c.uri == uri)).rowcount:
        raise NotFound("That is none of this account's aliases")
    accounts.described(tx, account_id)


# ── an own domain ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class OwnDomain:
    """`state`: 'asked' (the other side has not agreed yet), 'confirmed', or 'broken' (it agreed, and then for long
    did not). `findings` are (level, words) of the last look."""

    domain: str
    state: str
    set_at: datetime
    confirmed_at: datetime | None
    checked_at: datetime | None
    broken_since: datetime | None
    findings: tuple[tuple[str, str], ...]


def own_domain(tx: Tx, account_id: int) -> OwnDomain | None:
    row = tx.execute(select(_d).where(_d.c.account_id == account_id)).first()
    if row is None:
        return None
    findings = tuple((str(level), str(words)) for level, words in json.loads(row.findings))
    return OwnDomain(row.domain, row.state, row.set_at, row.confirmed_at, row.checked_at, row.broken_since, findings)


def with_own_domain(tx: Tx) -> list[tuple[Account, OwnDomain]]:
    """Every account that wants, or has, an own domain."""
    rows = tx.execute(select(_d.c.account_id).order_by(_d.c.account_id)).all()
    held = [(accounts.by_id(tx, row.account_id), own_domain(tx, row.account_id)) for row in rows]
    return [(account, domain) for account, domain in held if account is not None and domain is not None]


def ask_for_domain(tx: Tx, account_id: int, domain: str) -> None:
    """The owner wants to be found under a domain. Another one than before is given up at once."""
    held = own_domain(tx, account_id)
    if held is None or held.domain != domain:
        _forget_domain(tx, account_id)
        tx.execute(insert(_d).values(account_id=account_id, domain=domain, set_at=tx.now, state="asked"))
        accounts.touch(tx, account_id)
    jobs.add(tx, CHECK_DOMAIN, str(account_id), {"account": account_id})


def remove_domain(tx: Tx, account_id: int) -> bool:
    """Be found under this server's name alone; False if that was so."""
    had = own_domain(tx, account_id) is not None
    _forget_domain(tx, account_id)
    if had:
        accounts.touch(tx, account_id)
    return had


def _forget_domain(tx: Tx, account_id: int) -> None:
    jobs.drop(tx, CHECK_DOMAIN, str(account_id))
    tx.execute(delete(_d).where(_d.c.account_id == account_id))
    accounts.set_choices(tx, account_id, domain=None)


def domain_asked(tx: Tx, handle: str, domain: str) -> Account | None:
    """The account whose owner wants to be found as `@handle@domain`, whether the other side agreed yet or not."""
    account = accounts.by_handle(tx, handle)
    if account is None:
        return None
    asked = select(_d.c.account_id).where(_d.c.account_id == account.id, _d.c.domain == domain.lower())
    return account if tx.execute(asked).first() is not None else None


def domain_checked(tx: Tx, account_id: int, state: str, findings: Sequence[tuple[str, str]]) -> None:
    """Write down what a look at the domain found, and what it means now."""
    held = own_domain(tx, account_id)
    if held is None:
        return
    good = not any(level == "error" for level, _ in findings)
    tx.execute(
        update(_d)
        .where(_d.c.account_id == account_id)
        .values(
            state=state,
            checked_at=tx.now,
            confirmed_at=(held.confirmed_at or tx.now) if state == "confirmed" else held.confirmed_at,
            broken_since=None if good else held.broken_since or tx.now,
            findings=json.dumps([list(pair) for pair in findings]),
        )
    )
    accounts.set_choices(tx, account_id, domain=held.domain if state == "confirmed" else None)
