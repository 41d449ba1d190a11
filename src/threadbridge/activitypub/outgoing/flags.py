"""Flag: a complaint of ours to another server."""

from __future__ import annotations

from collections.abc import Sequence

from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing.wording import ACTIVITYSTREAMS, Document


def flag(ids: Ids, number: int, person: str, posts: Sequence[str], content: str) -> Document:
    """A complaint about an actor and its posts, said by the server's own actor so that it names nobody here.
    Mastodon takes whom it is about from the list itself; GoToSocial asks for the actor to be in it, too."""
    return {
        "@context": ACTIVITYSTREAMS,
        "id": f"{ids.instance}#flags/{number}",
        "type": "Flag",
        "actor": ids.instance,
        "to": [person],
        "content": content,
        "object": [person, *posts],
    }
