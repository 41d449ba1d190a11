"""Actors from elsewhere, and the keys they publish, read into small frozen types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from threadbridge.activitypub.document import (
    address,
    is_id,
    kind_of,
    line,
    listed,
    one_id,
    web_link,
)
from threadbridge.activitypub.incoming.copies import copy_of
from threadbridge.activitypub.incoming.ground import NAME_MAX, check_own, same_origin, standing
from threadbridge.errors import Invalid
from threadbridge.signatures.keys import PEM_MAX
from threadbridge.signatures.multikey import pem_of

ACTOR_KINDS = frozenset({"Person", "Service", "Application", "Group", "Organization"})
SERVER_KINDS = frozenset({"Application"})
"""Actors that are a server, a relay or a program rather than somebody."""
USERNAME_MAX = 200
KEYS_MAX = 10
ALIASES_MAX = 100


@dataclass(frozen=True, slots=True)
class IncomingKey:
    """A key that an actor publishes; the PEM is not looked into yet. `asserts` when it is one for integrity
    proofs."""

    id: str
    pem: str
    asserts: bool = False


@dataclass(frozen=True, slots=True)
class IncomingActor:
    """An actor as its own document describes it. `key_id` and `key_pem` are the first of `keys`. Names are one line
    of plain text; `preferred_username` is empty where a server's own actor has none."""

    id: str
    kind: str
    preferred_username: str
    name: str
    inbox: str
    shared_inbox: str | None
    url: str | None
    key_id: str
    key_pem: str = field(repr=False)
    keys: tuple[IncomingKey, ...] = field(repr=False)
    moved_to: str | None
    also_known_as: tuple[str, ...]
    icon: str | None
    copy_of: str | None = None
    """Whom a bridge says that this actor stands for."""


def read_actor(document: Mapping[str, Any]) -> IncomingActor:
    """An actor, as fetched or from `Update.profile`; raises Invalid. That a fetched document came from the address
    that its id names must be checked by whoever fetched it."""
    kind = standing(document)
    if kind not in ACTOR_KINDS:
        raise Invalid("The document is not an actor", detail=f"its type is {kind}")
    actor_id = one_id(document.get("id"), "id")
    endpoints = document.get("endpoints")
    shared = endpoints.get("sharedInbox") if isinstance(endpoints, dict) else None
    keys = _keys(document.get("publicKey"), document.get("assertionMethod"), actor_id)
    moved = document.get("movedTo")
    aliases = [alias for alias in listed(document.get("alsoKnownAs")) if is_id(alias)]
    return IncomingActor(
        id=actor_id,
        kind=kind,
        preferred_username=line(document.get("preferredUsername"), USERNAME_MAX),
        name=line(document.get("name"), NAME_MAX),
        inbox=address(document.get("inbox"), "inbox"),
        shared_inbox=address(shared, "endpoints.sharedInbox") if shared not in (None, "") else None,
        url=web_link(document.get("url")),
        key_id=keys[0].id,
        key_pem=keys[0].pem,
        keys=keys,
        moved_to=one_id(moved, "movedTo") if moved not in (None, "") else None,
        also_known_as=tuple(aliases[:ALIASES_MAX]),
        icon=_picture(document.get("icon")),
        copy_of=copy_of(document),
    )


def key_owner(document: Mapping[str, Any]) -> str:
    """The actor to whom the document behind a key id belongs; raises Invalid.

    The document is the actor itself (or GoToSocial's stub of it at `/main-key`), or a bare key with `owner` or
    `controller`. Either way the answer is only a hint: the actor must be fetched from its own id and must list the
    key (`read_actor(…).keys`).
    """
    if kind_of(document) in ACTOR_KINDS:
        return one_id(document.get("id"), "id")
    owner = one_id(document.get("owner", document.get("controller")), "owner")
    check_own(one_id(document.get("id"), "id"), owner, "The key")
    return owner


def is_bare_key(document: Mapping[str, Any]) -> bool:
    """Whether the document behind a key id is the key alone, rather than its actor or a stub of that."""
    return isinstance(document.get("publicKeyPem"), str)


def read_key_of(
    document: Mapping[str, Any], key_id: str, bare: Mapping[str, Any] | None
) -> tuple[IncomingActor, IncomingKey | None]:
    """The actor, and its key `key_id`, if it lists that: whole, or by its id when the key was fetched as a document
    of its own (`bare`), and then with no other PEM than that one has. Raises Invalid. (`read_actor` sees to it that
    keys are the actor's own and live at its origin.)"""
    named = [bare if bare is not None and key == key_id else key for key in listed(document.get("publicKey"))]
    actor = read_actor({**document, "publicKey": named})
    for key in actor.keys:
        if key.id == key_id and (bare is None or key.pem == bare["publicKeyPem"]):
            return actor, key
    return actor, None


def _keys(value: Any, asserting: Any, actor_id: str) -> tuple[IncomingKey, ...]:
    """What stands in `publicKey`, then the Multikeys (FEP-521a). Mitra lists its RSA key in both: the first is
    taken."""
    keys = []
    for item in listed(value)[:KEYS_MAX]:
        pem = item.get("publicKeyPem") if isinstance(item, dict) else None
        if not isinstance(pem, str) or not 0 < len(pem) <= PEM_MAX:
            continue
        key_id = one_id(item, "publicKey.id")
        owner = item.get("owner", item.get("controller"))
        if owner is not None and one_id(owner, "publicKey.owner") != actor_id:
            raise Invalid("A key of the actor belongs to somebody else")
        check_own(key_id, actor_id, "A key of the actor")
        keys.append(IncomingKey(key_id, pem))
    if len({key.id for key in keys}) != len(keys):
        raise Invalid("The actor has two keys of the same id")
    named = {key.id for key in keys}
    keys += [key for key in _multikeys(asserting, actor_id) if key.id not in named]
    if not keys:
        raise Invalid("The actor has no public key that can be read")
    return tuple(keys)


def _multikeys(value: Any, actor_id: str) -> list[IncomingKey]:
    """Multikeys of the actor's own. What else may stand here (a DID, a key of another kind, somebody else's) is
    passed over; of two with one id neither counts, since readers would differ."""
    found: list[IncomingKey] = []
    for item in listed(value)[:KEYS_MAX]:
        multibase = item.get("publicKeyMultibase") if isinstance(item, dict) else None
        if not isinstance(multibase, str) or item.get("type") != "Multikey" or item.get("controller") != actor_id:
            continue
        pem = pem_of(multibase)
        if pem is not None and same_origin(str(item.get("id")), actor_id):
            found.append(IncomingKey(str(item["id"]), pem, asserts=True))
    named = Counter(key.id for key in found)
    return [key for key in found if named[key.id] == 1]


def _picture(value: Any) -> str | None:
    """The address of the first image in `icon`: an Image, a plain address, or a list of them."""
    for item in listed(value):
        found = web_link(item.get("url", item.get("href")) if isinstance(item, dict) else item)
        if found is not None:
            return found
    return None
