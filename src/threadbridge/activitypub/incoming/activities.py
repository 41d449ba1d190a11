"""Activities from elsewhere, each read into a small frozen type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from threadbridge.activitypub.document import (
    is_id,
    kind_of,
    line,
    one_id,
)
from threadbridge.activitypub.incoming.actors import ACTOR_KINDS
from threadbridge.activitypub.incoming.flags import Flag, read_flag
from threadbridge.activitypub.incoming.ground import check_own, same_origin, standing
from threadbridge.activitypub.incoming.notes import NOTE_KINDS, IncomingNote, author_of, read_note
from threadbridge.domain.people import ReactionKind
from threadbridge.errors import Invalid

# Pleroma and Misskey react with emoji; what they mean to the owner is "somebody liked it".
_LIKES = frozenset({"Like", "EmojiReact"})
EMOJI_MAX = 100
"""Longest emoji in characters, or `:name@host:` of one that is a picture."""


OTHER_KINDS = frozenset(
    {
        "Accept", "Add", "Arrive", "Dislike", "Ignore", "Invite", "Join", "Leave", "Listen", "Offer", "Question",
        "Read", "Reject", "Remove", "TentativeAccept", "TentativeReject", "Travel", "View",
    }
)  # fmt: skip
"""The kinds of ActivityStreams (vocabulary, section 3.1) that may come as `Other`. Any other name is the sender's
own, and there may be any number of them."""


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
    inner_emoji: str = ""


@dataclass(frozen=True, slots=True)
class Like:
    """A Like or EmojiReact (Misskey sends a Like with `content`); `emoji` is '' for a plain one."""

    id: str
    actor: str
    object: str
    emoji: str = ""


@dataclass(frozen=True, slots=True)
class Announce:
    id: str
    actor: str
    object: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An Accept or a Reject (`accepted` tells which) of something we said: `object` is its id, `inner_kind` its type
    where it is embedded, `result` what an Accept grants (FEP-044f)."""

    id: str
    actor: str
    accepted: bool
    object: str
    inner_kind: str | None
    result: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """A QuoteRequest (FEP-044f) or a ReplyRequest (GoToSocial): may the post `instrument` quote, or answer, `object`?
    `note` is that post where it came along; it is then the actor's own."""

    id: str
    actor: str
    kind: str
    object: str
    instrument: str
    note: IncomingNote | None

    @property
    def to_quote(self) -> bool:
        """Whether it asks to quote, rather than to answer."""
        return self.kind == "QuoteRequest"


@dataclass(frozen=True, slots=True)
class Move:
    """The actor says that it lives at `target` from now on; whether `target` agrees must be asked there."""

    id: str
    actor: str
    target: str


@dataclass(frozen=True, slots=True)
class Arrange:
    """An Add or a Remove: `object` is put into, or taken out of, the collection `target`."""

    id: str
    actor: str
    added: bool
    object: str
    target: str | None


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
    """Well-formed, and nothing that this server acts upon (View, Join, …). `kind` is one of a few names, since it is
    counted by it and everybody can make up names."""

    id: str
    actor: str
    kind: str


# Activity Streams 2.0's own, and what servers of this network say besides.
_NAMED = frozenset({
    "Accept", "Add", "Announce", "Arrive", "Block", "Create", "Delete", "Dislike", "EmojiReact", "FeatureRequest",
    "Flag", "Follow", "Ignore", "Invite", "Join", "Leave", "Like", "Listen", "Lock", "Move", "Offer", "Question",
    "Read", "Reject", "Remove", "TentativeAccept", "TentativeReject", "Travel", "Undo", "Update", "View",
})  # fmt: skip

Activity = (
    Follow | UndoOf | Like | Announce | Create | Update | Delete | Block | Answer | Move | Arrange | Request | Flag
    | Other
)  # fmt: skip


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
            return Like(activity_id, actor, one_id(document.get("object"), "object"), emoji_of(document))
        case "Announce":
            return Announce(activity_id, actor, one_id(document.get("object"), "object"))
        case "Create" | "Update":
            return _authored(kind, activity_id, actor, document)
        case "Delete":
            deleted = one_id(document.get("object"), "object")
            # Or anybody could have ids of other servers written down as deleted before they come.
            check_own(deleted, actor, "The object")
            return Delete(activity_id, actor, deleted)
        case "Accept" | "Reject" if names_one(document.get("object")):
            return _answer(kind == "Accept", activity_id, actor, document)
        case "QuoteRequest" | "ReplyRequest":
            return _request(kind, activity_id, actor, document)
        case "Move":
            return _move(activity_id, actor, document)
        case "Add" | "Remove" if names_one(document.get("object")):
            into = document.get("target")
            target = one_id(into, "target") if names_one(into) else None
            return Arrange(activity_id, actor, kind == "Add", one_id(document.get("object"), "object"), target)
        case "Block":
            return Block(activity_id, actor, one_id(document.get("object"), "object"))
        case "Flag":
            return read_flag(activity_id, actor, document)
        case _:
            return Other(activity_id, actor, kind if kind in _NAMED else "Activity")


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
    emoji = emoji_of(inner) if kind in _LIKES else ""
    return UndoOf(activity_id, actor, found, "Like" if kind in _LIKES else kind, about_id, emoji)


def emoji_of(made: Mapping[str, Any]) -> str:
    """The emoji of a reaction: characters, or `:name:` where it is a picture of the sender's server. Pleroma's family
    writes `content`, Misskey's `content` and `_misskey_reaction`; '' where it is a plain Like."""
    for value in (made.get("content"), made.get("_misskey_reaction")):
        found = line(value, EMOJI_MAX + 1)
        if found:
            # Whatever is too long for an emoji is a sentence; that somebody liked the post stays true.
            return found if len(found) <= EMOJI_MAX and not any(letter in "<>& \t" for letter in found) else ""
    return ""


def names_one(value: Any) -> bool:
    """Whether `value` is an id, or an object that has one. Misskey embeds what it accepts without an id."""
    return is_id(value.get("id") if isinstance(value, dict) else value)


def _request(kind: str, activity_id: str, actor: str, document: Mapping[str, Any]) -> Request:
    about = one_id(document.get("object"), "object")
    made = document.get("instrument")
    instrument = one_id(made, "instrument")
    check_own(instrument, actor, "The instrument")
    note = None
    if isinstance(made, dict) and kind_of(made) in NOTE_KINDS:
        note = read_note(made, to=document.get("to"), cc=document.get("cc"))
        if note.author != actor:
            raise Invalid("The instrument is not attributed to the actor of the request")
        named = note.quotes if kind == "QuoteRequest" else note.in_reply_to
        if named is not None and named != about:
            raise Invalid("The instrument is about something else than the request")
    return Request(activity_id, actor, kind, about, instrument, note)


def _answer(accepted: bool, activity_id: str, actor: str, document: Mapping[str, Any]) -> Answer:
    answered, result = document.get("object"), document.get("result")
    granted = one_id(result, "result") if names_one(result) else None
    return Answer(activity_id, actor, accepted, one_id(answered, "object"), kind_of(answered), granted)


def _move(activity_id: str, actor: str, document: Mapping[str, Any]) -> Move:
    if one_id(document.get("object"), "object") != actor:
        raise Invalid("Only an actor itself may say that it moves")
    target = one_id(document.get("target"), "target")
    if target == actor:
        raise Invalid("An actor can not move to itself")
    return Move(activity_id, actor, target)


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


_REACTIONS: dict[str, ReactionKind] = {"Like": "like", "EmojiReact": "like", "Announce": "announce"}


def reaction_kind(undone: UndoOf) -> ReactionKind | None:
    """What kind of reaction is taken back, as far as the Undo says; None when it says another or none."""
    return _REACTIONS.get(undone.inner_kind or "")


def name_of(activity: Activity) -> str:
    """The activity's ActivityStreams name, for counting; "Other" for what its sender made up."""
    if isinstance(activity, Other):
        return activity.kind if activity.kind in OTHER_KINDS else "Other"
    if isinstance(activity, Request):
        return activity.kind
    if isinstance(activity, Answer):
        return "Accept" if activity.accepted else "Reject"
    if isinstance(activity, Arrange):
        return "Add" if activity.added else "Remove"
    return "Undo" if isinstance(activity, UndoOf) else type(activity).__name__
