"""What a verb is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from threadbridge.activitypub import text
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.incoming import IncomingNote
from threadbridge.domain.people import Peer


@dataclass(frozen=True, slots=True)
class PreparedNote:
    """A foreign post made ready to be kept: its markup cleaned, so that nothing else of it is ever shown.

    Cleaning is done before the transaction, in a thread: it is the only slow step on a stranger's input.
    """

    uri: str
    author: str
    in_reply_to: str | None
    html: str
    url: str | None
    published: datetime | None
    updated: datetime | None
    public: bool
    is_vote: bool
    original: str
    named: tuple[str, ...] = ()
    """Everybody whom it is addressed to or mentions, by id."""
    copy_of: str | None = None
    quotes: str | None = None
    """What it quotes, by id."""
    name: str | None = None
    """The option that a vote is for."""


def prepare(note: IncomingNote, original: str) -> PreparedNote:
    """Clean a foreign post. `original` is the object as it came (JSON). Raises TooLarge."""
    return PreparedNote(
        uri=note.id,
        author=note.author,
        in_reply_to=note.in_reply_to,
        html=text.clean(note.html),
        url=note.url,
        published=note.published,
        updated=note.updated,
        public=note.public,
        is_vote=bool(note.name) and not note.html,
        original=original,
        named=tuple(dict.fromkeys((*note.mentioned, *note.to, *note.cc))),
        copy_of=note.copy_of,
        quotes=note.quotes,
        name=note.name,
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """One verified activity as the verbs get it. `note` is the post inside a Create or Update, `peer` the one who
    speaks, as its own server describes it; `peer_is_news` when that is not in the database yet, and `host_is_news`
    when its server has not been heard from for a while."""

    ids: Ids
    peer: Peer
    note: PreparedNote | None = None
    peer_is_news: bool = True
    host_is_news: bool = True
    closed: frozenset[int] = frozenset()
    """The accounts here whose owners do not want it: it has its effect for the others alone (`admission` says so)."""
    limited: frozenset[int] = frozenset()
    """The accounts here for which it is kept and hidden: nothing is granted by itself."""


@dataclass(frozen=True, slots=True)
class Done:
    """The activity had its effect."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The activity was understood and has no effect here; `reason` is counted."""

    reason: str


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A rule of the operator or of an owner does not let it in; nothing was kept. A sender that is turned away
    `silently` is answered as if it had been heard."""

    reason: str
    silently: bool = False


Outcome = Done | Dropped | TurnedAway
