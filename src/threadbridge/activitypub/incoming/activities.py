"""Activities from elsewhere, each read into a small frozen type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from threadbridge.activitypub.document import (
    kind_of,
    one_id,
)
from threadbridge.activitypub.incoming.actors import ACTOR_KINDS
from threadbridge.activitypub.incoming.ground import check_own, same_origin, standing
from threadbridge.activitypub.incoming.notes import NOTE_KINDS, IncomingNote, author_of, read_note
from threadbridge.errors import Invalid

# Pleroma and Misskey react with emoji; what they mean to the owner is "somebody liked it".
_LIKES = frozenset({"Like", "EmojiReact"})


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


def read(document: Mapping[str, Any]) -> Activity:
    """The activity in a decoded document; raises Invalid with the property that is wrong."""
    kind = standing(document)
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
            check_own(deleted, actor, "The object")
            return Delete(activity_id, actor, deleted)
        case "Block":
            return Block(activity_id, actor, one_id(document.get("object"), "object"))
        case _:
            return Other(activity_id, actor, kind)


def _undo(activity_id: str, actor: str, inner: Any) -> UndoOf:
    if not isinstance(inner, dict):
        inner_id = one_id(inner, "object")
        check_own(inner_id, actor, "The undone activity")
        return UndoOf(activity_id, actor, inner_id, None, None)
    # Some embed without an id (it was a transient activity); kind and object then say what it was.
    found = one_id(inner, "object") if inner.get("id") is not None else None
    if found is not None:
        check_own(found, actor, "The undone activity")
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
    check_own(object_id, actor, "The object")
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
        if (note is not None or made.get("attributedTo") is not None) and author_of(made["attributedTo"]) != actor:
            raise Invalid("The object is not attributed to the actor of the activity")
    if kind == "Create":
        return Create(activity_id, actor, object_id, object_kind, note)
    return Update(activity_id, actor, object_id, object_kind, note, profile)
