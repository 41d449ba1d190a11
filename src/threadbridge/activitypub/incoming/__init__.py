"""What other servers say, read into small frozen types.

Rule: from a decoded document to one of the types here, or Invalid; nothing that is not in these types is believed.
Everything that the document alone can prove about who speaks for what is proven here: an activity lives on its
actor's server, a created or updated object too and is the actor's own work, an actor's keys are its own. Whether the
actor is the one who signed, and whether the object of a Delete or Undo was ever his, is for those who know more.
"""

from threadbridge.activitypub.incoming.activities import (
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
    read,
)
from threadbridge.activitypub.incoming.actors import (
    ACTOR_KINDS,
    IncomingActor,
    IncomingKey,
    key_owner,
    read_actor,
)
from threadbridge.activitypub.incoming.collections import IncomingPage, read_page, related_collections
from threadbridge.activitypub.incoming.flags import Flag
from threadbridge.activitypub.incoming.ground import same_origin
from threadbridge.activitypub.incoming.notes import NOTE_KINDS, IncomingNote, read_note
from threadbridge.activitypub.incoming.stamps import forged_stamp

__all__ = [
    "ACTOR_KINDS",
    "NOTE_KINDS",
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
    "IncomingKey",
    "IncomingNote",
    "IncomingPage",
    "Like",
    "Move",
    "Other",
    "Request",
    "UndoOf",
    "Update",
    "forged_stamp",
    "key_owner",
    "read",
    "read_actor",
    "read_note",
    "read_page",
    "related_collections",
    "same_origin",
]
