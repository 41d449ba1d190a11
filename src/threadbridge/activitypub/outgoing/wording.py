"""What all documents share: their contexts, their media types, their times, and the one way to make bytes of them.

Rule: keys are in a fixed order: the same state gives the same bytes, so that ETags hold and pollers are answered 304.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

Document = dict[str, Any]

ACTIVITY_JSON = "application/activity+json; charset=utf-8"
JRD_JSON = "application/jrd+json; charset=utf-8"
ACTIVITYSTREAMS = "https://www.w3.org/ns/activitystreams"
SECURITY = "https://w3id.org/security/v1"

IMPLEMENTS_TERM = {"@id": "https://w3id.org/fep/844e#implements", "@container": "@set"}

ACTOR_CONTEXT: list[Any] = [
    ACTIVITYSTREAMS,
    SECURITY,
    {
        # Defined here rather than by its address: few readers have that document, and some would fetch it.
        "webfinger": {
            "@id": "https://purl.archive.org/socialweb/webfinger#webfinger",
            "@type": "http://www.w3.org/2001/XMLSchema#string",
        },
        "manuallyApprovesFollowers": "as:manuallyApprovesFollowers",
        "toot": "http://joinmastodon.org/ns#",
        "featured": {"@id": "toot:featured", "@type": "@id"},
        "featuredTags": {"@id": "toot:featuredTags", "@type": "@id"},
        "alsoKnownAs": {"@id": "as:alsoKnownAs", "@type": "@id"},
        "movedTo": {"@id": "as:movedTo", "@type": "@id"},
        "schema": "http://schema.org#",
        "PropertyValue": "schema:PropertyValue",
        "value": "schema:value",
        "discoverable": "toot:discoverable",
        "memorial": "toot:memorial",
        "indexable": "toot:indexable",
        "attributionDomains": {"@id": "toot:attributionDomains", "@container": "@set"},
        "Hashtag": "as:Hashtag",
        "implements": IMPLEMENTS_TERM,
        "proxyOf": {"@id": "https://w3id.org/fep/fffd#proxyOf", "@container": "@set"},
        "protocol": {"@id": "https://w3id.org/fep/fffd#protocol", "@type": "@id"},
        "proxied": "https://w3id.org/fep/fffd#proxied",
        "authoritative": "https://w3id.org/fep/fffd#authoritative",
    },
]

POST_CONTEXT: list[Any] = [
    ACTIVITYSTREAMS,
    {
        "ostatus": "http://ostatus.org#",
        "conversation": "ostatus:conversation",
        "sensitive": "as:sensitive",
        "toot": "http://joinmastodon.org/ns#",
        "votersCount": "toot:votersCount",
        "blurhash": "toot:blurhash",
        "Hashtag": "as:Hashtag",
        "quote": {"@id": "https://w3id.org/fep/044f#quote", "@type": "@id"},
        "quoteUri": "http://fedibird.com/ns#quoteUri",
        "quoteUrl": "as:quoteUrl",
        "_misskey_quote": "https://misskey-hub.net/ns#_misskey_quote",
        "gts": "https://gotosocial.org/ns#",
        "interactionPolicy": {"@id": "gts:interactionPolicy", "@type": "@id"},
        "canQuote": {"@id": "gts:canQuote", "@type": "@id"},
        "automaticApproval": {"@id": "gts:automaticApproval", "@type": "@id"},
        "quoteAuthorization": {"@id": "https://w3id.org/fep/044f#quoteAuthorization", "@type": "@id"},
        "manualApproval": {"@id": "gts:manualApproval", "@type": "@id"},
        "canReply": {"@id": "gts:canReply", "@type": "@id"},
    },
]

APPROVAL_CONTEXT: list[Any] = [
    ACTIVITYSTREAMS,
    {
        "QuoteRequest": "https://w3id.org/fep/044f#QuoteRequest",
        "QuoteAuthorization": "https://w3id.org/fep/044f#QuoteAuthorization",
        "gts": "https://gotosocial.org/ns#",
        "ReplyRequest": "gts:ReplyRequest",
        "ReplyAuthorization": "gts:ReplyAuthorization",
        "interactingObject": {"@id": "gts:interactingObject", "@type": "@id"},
        "interactionTarget": {"@id": "gts:interactionTarget", "@type": "@id"},
    },
]


def encode(document: Document) -> bytes:
    """The bytes of a document: made once, kept, signed and sent as they are."""
    return orjson.dumps(document)


def timestamp(moment: datetime) -> str:
    """UTC, whole seconds, 'Z'."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
