"""What other servers say, read into small frozen types.

Rule: from a decoded document to one of the types here, or Invalid; nothing that is not in these types is believed.
Everything that the document alone can prove about who speaks for what is proven here: an activity lives on its
actor's server, a created or updated object too and is the actor's own work, an actor's keys are its own. Whether the
actor is the one who signed, and whether the object of a Delete or Undo was ever his, is for those who know more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from threadbridge.activitypub.document import (
    address,
    audience,
    is_id,
    kind_of,
    line,
    listed,
    moment,
    names_activitystreams,
    one_id,
    web_link,
)
from threadbridge.activitypub.ids import PUBLIC
from threadbridge.errors import Invalid
from threadbridge.signatures.keys import PEM_MAX, origin

ACTOR_KINDS = frozenset({"Person", "Service", "Application", "Group", "Organization"})
NOTE_KINDS = frozenset({"Note", "Question", "Article", "Page"})
# Pleroma and Misskey react with emoji; what they mean to the owner is "somebody liked it".
_LIKES = frozenset({"Like", "EmojiReact"})
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,3}")

NAME_MAX = 2048
USERNAME_MAX = 200
KEYS_MAX = 10
ALIASES_MAX = 100


@dataclass(frozen=True, slots=True)
class Follow:
    id: str
    actor: str
    object: str


@dataclass(frozen=True, slots=True)
class UndoOf:
    """What is undone: its id where given, and, when it is embedded, its kind and what that was about. EmojiReact is
    called Like, as everywhere here. At least `inner_id`, or both of the others, are there."""

    id: str
    actor: str
    inner_id: str | None
    inner_kind: str | None
    inner_object: str | None


@dataclass(frozen=True, slots=True)
class Like:
    """A Like or EmojiReact (Misskey sends a Like with `content`)."""

    id: str
    actor: str
    object: str


@dataclass(frozen=True, slots=True)
class Announce:
    id: str
    actor: str
    object: str


@dataclass(frozen=True, slots=True)
class IncomingNote:
    """A post from elsewhere. `html` is as it came: not sanitised, not limited. Times are UTC; `to` and `cc` spell the
    public collection in full; `public` is true for quiet public posts too; `name` is the answer of a poll vote."""

    id: str
    kind: str
    author: str
    html: str
    in_reply_to: str | None
    published: datetime | None
    updated: datetime | None
    url: str | None
    to: tuple[str, ...]
    cc: tuple[str, ...]
    public: bool
    name: str | None
    language: str | None
    attachments: int


@dataclass(frozen=True, slots=True)
class Create:
    """`note` is None when the object is only named or not a kind that we read."""

    id: str
    actor: str
    object_id: str
    object_kind: str | None
    note: IncomingNote | None


@dataclass(frozen=True, slots=True)
class Update:
    """Like Create; or, when an actor updates itself, `profile` is the document for `read_actor`."""

    id: str
    actor: str
    object_id: str
    object_kind: str | None
    note: IncomingNote | None
    profile: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Delete:
    id: str
    actor: str
    object: str


@dataclass(frozen=True, slots=True)
class Block:
    id: str
    actor: str
    object: str


@dataclass(frozen=True, slots=True)
class Other:
    """Well-formed, and nothing that this server acts upon (Accept, Add, Flag, Move, …)."""

    id: str
    actor: str
    kind: str


Activity = Follow | UndoOf | Like | Announce | Create | Update | Delete | Block | Other


@dataclass(frozen=True, slots=True)
class IncomingKey:
    """A key that an actor publishes; the PEM is not looked into yet."""

    id: str
    pem: str


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


def same_origin(first: str, second: str) -> bool:
    """Whether two ids live at the same scheme, host and port. False when either is no http(s) URL."""
    return (found := origin(first)) is not None and found == origin(second)


# ── activities ───────────────────────────────────────────────────────────────────────────────────────────────────


def read(document: Mapping[str, Any]) -> Activity:
    """The activity in a decoded document; raises Invalid with the property that is wrong."""
    kind = _standing(document)
    said_by = document.get("actor")
    actor = one_id(said_by[0] if isinstance(said_by, list) and len(said_by) == 1 else said_by, "actor")
    activity_id = one_id(document.get("id"), "id")
    if not same_origin(activity_id, actor):
        raise Invalid("The activity's id and its actor are not on the same server")
    match kind:
        case "Follow":
            return Follow(activity_id, actor, one_id(document.get("object"), "object"))
        case "Undo":
            return _undo(activity_id, actor, document.get("object"))
        case "Like" | "EmojiReact":
            return Like(activity_id, actor, one_id(document.get("object"), "object"))
        case "Announce":
            return Announce(activity_id, actor, one_id(document.get("object"), "object"))
        case "Create" | "Update":
            return _authored(kind, activity_id, actor, document)
        case "Delete":
            deleted = one_id(document.get("object"), "object")
            # Or anybody could have ids of other servers written down as deleted before they come.
            _check_own(deleted, actor, "The object")
            return Delete(activity_id, actor, deleted)
        case "Block":
            return Block(activity_id, actor, one_id(document.get("object"), "object"))
        case _:
            return Other(activity_id, actor, kind)


def _standing(document: Mapping[str, Any]) -> str:
    """The type of a document that stands by itself."""
    if not names_activitystreams(document):
        raise Invalid("The document does not name ActivityStreams in @context")
    kind = kind_of(document)
    if kind is None:
        raise Invalid("The document has no type")
    return kind


def _undo(activity_id: str, actor: str, inner: Any) -> UndoOf:
    if not isinstance(inner, dict):
        inner_id = one_id(inner, "object")
        _check_own(inner_id, actor, "The undone activity")
        return UndoOf(activity_id, actor, inner_id, None, None)
    # Some embed without an id (it was a transient activity); kind and object then say what it was.
    found = one_id(inner, "object") if inner.get("id") is not None else None
    if found is not None:
        _check_own(found, actor, "The undone activity")
    if inner.get("actor") is not None and one_id(inner["actor"], "object.actor") != actor:
        raise Invalid("Only the actor of an activity may undo it")
    kind = kind_of(inner)
    about = inner.get("object")
    about_id = one_id(about, "object.object") if isinstance(about, (str, dict)) else None
    if found is None and (kind is None or about_id is None):
        raise Invalid("The Undo does not say what is undone")
    return UndoOf(activity_id, actor, found, "Like" if kind in _LIKES else kind, about_id)


def _authored(kind: str, activity_id: str, actor: str, document: Mapping[str, Any]) -> Create | Update:
    made = document.get("object")
    object_id = one_id(made, "object")
    _check_own(object_id, actor, "The object")
    object_kind, note, profile = kind_of(made), None, None
    if isinstance(made, dict):
        if object_kind in NOTE_KINDS:
            note = read_note(made, to=document.get("to"), cc=document.get("cc"))
        elif kind == "Update" and object_kind in ACTOR_KINDS:
            if object_id != actor:
                raise Invalid("An actor may only update itself")
            # Embedded, it has no context of its own; with it, it stands by itself and is read like a fetched one.
            profile = {**made, "@context": document.get("@context")}
        # A post must name its author; of things that we do not read it is checked where it is said.
        if (note is not None or made.get("attributedTo") is not None) and _author(made["attributedTo"]) != actor:
            raise Invalid("The object is not attributed to the actor of the activity")
    if kind == "Create":
        return Create(activity_id, actor, object_id, object_kind, note)
    return Update(activity_id, actor, object_id, object_kind, note, profile)


def _check_own(named: str, actor: str, what: str) -> None:
    if not same_origin(named, actor):
        raise Invalid(f"{what} is not on the server of the actor")


# ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_note(made: Mapping[str, Any], *, to: Any = None, cc: Any = None) -> IncomingNote:
    """A post, embedded or fetched; raises Invalid. `to` and `cc` are those of the activity around it, for a post that
    has none of its own. Its author must live where it lives."""
    note_id, kind = one_id(made.get("id"), "object.id"), kind_of(made)
    if kind not in NOTE_KINDS:
        raise Invalid("The object is not a post", detail=f"its type is {kind}")
    author = _author(made.get("attributedTo"))
    _check_own(note_id, author, "The post")
    own_to, own_cc = made.get("to"), made.get("cc")
    if own_to is None and own_cc is None:
        own_to, own_cc = to, cc
    direct, copied = audience(own_to), audience(own_cc)
    html, language = _content(made)
    return IncomingNote(
        id=note_id,
        kind=kind,
        author=author,
        html=html,
        in_reply_to=_in_reply_to(made.get("inReplyTo")),
        published=moment(made.get("published")),
        updated=moment(made.get("updated")),
        url=web_link(made.get("url")),
        to=direct,
        cc=copied,
        public=PUBLIC in direct or PUBLIC in copied,
        name=line(made.get("name"), NAME_MAX) or None,
        language=language,
        attachments=sum(isinstance(item, dict) for item in listed(made.get("attachment"))),
    )


def _author(value: Any) -> str:
    """The author in `attributedTo`. PeerTube lists the person and the channel: the first that is a person, or else
    the first that is named, counts."""
    several = listed(value)
    if not several:
        raise Invalid("attributedTo is missing")
    person = next((item for item in several if isinstance(item, dict) and item.get("type") == "Person"), several[0])
    return one_id(person, "attributedTo")


def _in_reply_to(value: Any) -> str | None:
    several = listed(value)
    if len(several) > 1:
        raise Invalid("inReplyTo must be one id")
    if not several or (isinstance(several[0], str) and not is_id(several[0])):
        # OStatus-era `tag:` URIs, Friendica's empty string: an answer to nothing that we could know.
        return None
    return one_id(several[0], "inReplyTo")


def _content(made: Mapping[str, Any]) -> tuple[str, str | None]:
    """(HTML, language): `content`, with the language under which `contentMap` has the same text, or the first text of
    the map when there is no `content`."""
    content, mapped = made.get("content"), made.get("contentMap")
    texts = (
        {tag: text for tag, text in mapped.items() if isinstance(text, str) and _LANGUAGE.fullmatch(tag)}
        if isinstance(mapped, dict)
        else {}
    )
    if isinstance(content, str):
        return content, next((tag for tag, text in texts.items() if text == content), None)
    tag, text = next(iter(texts.items()), (None, ""))
    return text, tag


# ── actors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def read_actor(document: Mapping[str, Any]) -> IncomingActor:
    """An actor, as fetched or from `Update.profile`; raises Invalid. That a fetched document came from the address
    that its id names must be checked by whoever fetched it."""
    kind = _standing(document)
    if kind not in ACTOR_KINDS:
        raise Invalid("The document is not an actor", detail=f"its type is {kind}")
    actor_id = one_id(document.get("id"), "id")
    endpoints = document.get("endpoints")
    shared = endpoints.get("sharedInbox") if isinstance(endpoints, dict) else None
    keys = _keys(document.get("publicKey"), actor_id)
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
    _check_own(one_id(document.get("id"), "id"), owner, "The key")
    return owner


def _keys(value: Any, actor_id: str) -> tuple[IncomingKey, ...]:
    keys = []
    for item in listed(value)[:KEYS_MAX]:
        pem = item.get("publicKeyPem") if isinstance(item, dict) else None
        if not isinstance(pem, str) or not 0 < len(pem) <= PEM_MAX:
            continue
        key_id = one_id(item, "publicKey.id")
        owner = item.get("owner", item.get("controller"))
        if owner is not None and one_id(owner, "publicKey.owner") != actor_id:
            raise Invalid("A key of the actor belongs to somebody else")
        _check_own(key_id, actor_id, "A key of the actor")
        keys.append(IncomingKey(key_id, pem))
    if not keys:
        raise Invalid("The actor has no public key in PEM form")
    if len({key.id for key in keys}) != len(keys):
        raise Invalid("The actor has two keys of the same id")
    return tuple(keys)


def _picture(value: Any) -> str | None:
    """The address of the first image in `icon`: an Image, a plain address, or a list of them."""
    for item in listed(value):
        found = web_link(item.get("url", item.get("href")) if isinstance(item, dict) else item)
        if found is not None:
            return found
    return None
