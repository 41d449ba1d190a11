"""What other servers say, read into small frozen types.

Rule: from a decoded document to one of the types here, or Invalid; nothing that is not in these types is believed.
Everything that the document alone can prove about who speaks for what is proven here: an activity lives on its
actor's server, a created or updated object too and is the actor's own work, an actor's keys are its own. Whether the
actor is the one who signed, and whether the object of a Delete or Undo was ever his, is for those who know more.
"""

from threadbridge.activitypub.incoming.activities import (
    OTHER_KINDS,
    Activity,
    Announce,
    Answer,
    Arrange,
    Block,
    Create,
    Delete,
    Follow,
    Like,
    Move,
    Other,
    Request,
    UndoOf,
    Update,
    name_of,
    reaction_kind,
    read,
)
from threadbridge.activitypub.incoming.actors import (
    ACTOR_KINDS,
    SERVER_KINDS,
    IncomingActor,
    IncomingKey,
    is_bare_key,
    key_owner,
    read_actor,
    read_key_of,
)
from threadbridge.activitypub.incoming.collections import IncomingPage, read_page, related_collections
from threadbridge.activitypub.incoming.flags import Flag
from threadbridge.activitypub.incoming.ground import is_tombstone, same_origin
from threadbridge.activitypub.incoming.jrd import IncomingJrd, read_jrd
from threadbridge.activitypub.incoming.nodeinfo import Software, read_nodeinfo, read_nodeinfo_links
from threadbridge.activitypub.incoming.notes import NOTE_KINDS, IncomingNote, read_note
from threadbridge.activitypub.incoming.stamps import forged_stamp

__all__ = [
    "ACTOR_KINDS",
    "NOTE_KINDS",
    "OTHER_KINDS",
    "SERVER_KINDS",
    "Activity",
    "Announce",
    "Answer",
    "Arrange",
    "Block",
    "Create",
    "Delete",
    "Flag",
    "Follow",
    "IncomingActor",
    "IncomingJrd",
    "IncomingKey",
    "IncomingNote",
    "IncomingPage",
    "Like",
    "Move",
    "Other",
    "Request",
    "Software",
    "UndoOf",
    "Update",
    "forged_stamp",
    "is_bare_key",
    "is_tombstone",
    "key_owner",
    "name_of",
    "reaction_kind",
    "read",
    "read_actor",
    "read_jrd",
    "read_key_of",
    "read_nodeinfo",
    "read_nodeinfo_links",
    "read_note",
    "read_page",
    "related_collections",
    "same_origin",
]
