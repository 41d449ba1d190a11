"""Actor documents: the accounts, what is left of a deleted one, and the server's own actor.

Rule: every document says that this is a bridge: in a line of the profile text, in words that the owner may choose, or
else in a field; and always in `generator` and `proxyOf`.
"""

from __future__ import annotations

from html import escape

from threadbridge.activitypub import text
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing.wording import (
    ACTIVITYSTREAMS,
    ACTOR_CONTEXT,
    IMPLEMENTS_TERM,
    SECURITY,
    Document,
    timestamp,
)
from threadbridge.domain.accounts import Account, Profile, is_web_address

# FEP-844e: what a server understands, said before anybody has to try it.
_IMPLEMENTS = (
    ("RFC-9421: HTTP Message Signatures", "https://datatracker.ietf.org/doc/html/rfc9421"),
    (
        "RFC-9421 signatures using the Ed25519 algorithm",
        "https://datatracker.ietf.org/doc/html/rfc9421#name-eddsa-using-curve-edwards25",
    ),
)


def actor(ids: Ids, account: Account, public_pem: str, profile: Profile = Profile()) -> Document:  # noqa: B008 (frozen)
    """The actor document of an account."""
    me = ids.actor(account.id)
    document: Document = {
        "@context": ACTOR_CONTEXT,
        "id": me,
        "type": "Person",
        "preferredUsername": account.handle,
        "webfinger": ids.acct(account.handle, account.domain),  # FEP-2c59
        "name": account.name or account.handle,
        # Pixelfed refuses actors without the key.
        "summary": bio_html(ids, account) + bridge_line_html(ids, account),
        "url": ids.profile(account.handle),
        "inbox": ids.inbox(account.id),
        "outbox": ids.collection(account.id, "outbox"),
        "followers": ids.collection(account.id, "followers"),
        "following": ids.collection(account.id, "following"),
        "featured": ids.featured(account.id),
        "featuredTags": ids.featured_tags(account.id),
        # Said outright: GoToSocial and Mastodon differ in what absence means.
        "manuallyApprovesFollowers": account.approves_followers,
        "discoverable": account.discoverable,
        "indexable": account.indexable,
        "memorial": False,
        "published": timestamp(account.joined_at or account.created_at),
        "publicKey": {"id": ids.key(account.id), "owner": me, "publicKeyPem": public_pem},
        "endpoints": {"sharedInbox": ids.shared_inbox},
        "attributionDomains": list(
            dict.fromkeys((ids.authority, *((account.domain,) if account.domain else ()), *account.credit_domains))
        ),
        "attachment": [{"type": "PropertyValue", "name": name, "value": value}
                       for name, value in _fields(ids, account, profile)],
        "tag": [],
        "generator": application(ids),
    }  # fmt: skip
    for key, picture, media_type, alt in (
        ("icon", account.avatar, account.avatar_type, account.avatar_alt),
        ("image", account.header, account.header_type, account.header_alt),
    ):
        if picture and media_type:
            document[key] = {"type": "Image", "mediaType": media_type, "url": ids.media(picture, media_type)}
            if alt:
                # Mastodon reads either; Pleroma's family knows `name`, newer servers `summary`.
                document[key] |= {"name": alt, "summary": alt}
    if profile.aliases:
        document["alsoKnownAs"] = [alias.uri for alias in profile.aliases]
    if account.source_url:
        document["proxyOf"] = [
            {"protocol": SOURCE_NETWORK, "proxied": account.source_url, "authoritative": True}  # FEP-fffd
        ]
    return document


_STUB = ("@context", "id", "type", "preferredUsername", "publicKey", "assertionMethod", "suspended")


def actor_stub(document: Document) -> Document:
    """What anybody may read of an actor while all else is for known readers: its keys, as GoToSocial serves them.
    Without an inbox on purpose: Mastodon would take it for the whole profile, and empty name and text."""
    return {name: document[name] for name in _STUB if name in document}


SOURCE_NETWORK = "https://www.threads.com/"


def application(ids: Ids) -> Document:
    """The software behind an actor, and what it understands (FEP-844e)."""
    return {
        "id": ids.instance,
        "type": "Application",
        "name": "threadbridge",
        "implements": [{"name": name, "href": href} for name, href in _IMPLEMENTS],
    }


def leaving_actor(ids: Ids, account: Account, public_pem: str) -> Document:
    """A deleted account while its Delete is on the way: nothing but the key with which the Delete can be verified."""
    me = ids.actor(account.id)
    return {
        "@context": [*ACTOR_CONTEXT[:-1], {**ACTOR_CONTEXT[-1], "suspended": "toot:suspended"}],
        "id": me,
        "type": "Person",
        "preferredUsername": account.handle,
        "name": account.handle,
        "summary": "",
        "url": ids.profile(account.handle),
        "inbox": ids.inbox(account.id),
        "outbox": ids.collection(account.id, "outbox"),
        "followers": ids.collection(account.id, "followers"),
        "following": ids.collection(account.id, "following"),
        "manuallyApprovesFollowers": True,
        "discoverable": False,
        "indexable": False,
        "suspended": True,
        "publicKey": {"id": ids.key(account.id), "owner": me, "publicKeyPem": public_pem},
        "endpoints": {"sharedInbox": ids.shared_inbox},
    }


def actor_tombstone(ids: Ids, account: Account) -> Document:
    """What stands at the address of a deleted account for ever."""
    return {"@context": ACTIVITYSTREAMS, "id": ids.actor(account.id), "type": "Tombstone", "formerType": "Person"}


def _fields(ids: Ids, account: Account, profile: Profile) -> list[tuple[str, str]]:
    """Names and values as markup: where it comes from, what the owner put there, and the statement that this is a
    bridge where no line of the text makes it."""
    fields = [(field.name, field_html(field.value)) for field in profile.fields]
    if account.source_url and account.source_url not in {field.value for field in profile.fields}:
        fields.insert(0, ("Threads", field_html(account.source_url)))
    if account.bridge_line == "":
        fields.append(("Bridged by", _link(f"{ids.base}/about", ids.authority)))
    # PropertyValue names are plain text to Mastodon and markup to others: escaped, both show the same.
    return [(escape(name, quote=False), value) for name, value in fields]


def field_html(value: str) -> str:
    """A field's value as markup; an address becomes a link with rel=me, by which its owner can be recognised."""
    return _link(value, value.split("://", 1)[-1], me=True) if is_web_address(value) else escape(value, quote=False)


def _link(href: str, words: str, *, me: bool = False) -> str:
    rel = "me nofollow noopener noreferrer" if me else "nofollow noopener noreferrer"
    return f'<a href="{escape(href)}" rel="{rel}" target="_blank">{escape(words)}</a>'


def bridge_line_html(ids: Ids, account: Account) -> str:
    """The line that says what this account is, as markup; '' when a field says it."""
    if account.bridge_line is None:
        return f"<p>Bridged from Threads by {_link(f'{ids.base}/about', ids.authority)}</p>"
    return f"<p>{escape(account.bridge_line, quote=False)}</p>" if account.bridge_line else ""


def bio_html(ids: Ids, account: Account) -> str:
    """The profile text as markup."""
    return text.render(account.bio, mentions={}, tag_url=ids.tag, profile_url=threads_profile).html


def threads_profile(username: str) -> str:
    """Where a Threads user name leads."""
    return f"https://www.threads.com/@{username}"


def instance_actor(ids: Ids, public_pem: str) -> Document:
    """The server's own actor: signs our GETs, and is readable without a signature by everybody, since servers in
    secure mode need our key to verify the request with which we ask for theirs (Takahē and Mastodon deadlocked)."""
    return {
        "@context": [
            ACTIVITYSTREAMS,
            SECURITY,
            {"manuallyApprovesFollowers": "as:manuallyApprovesFollowers", "implements": IMPLEMENTS_TERM},
        ],
        "id": ids.instance,
        "type": "Application",
        "preferredUsername": ids.authority,
        "name": ids.authority,
        "summary": "",
        "url": f"{ids.base}/about",
        "inbox": f"{ids.instance}/inbox",
        "outbox": f"{ids.instance}/outbox",
        "manuallyApprovesFollowers": True,
        "endpoints": {"sharedInbox": ids.shared_inbox},
        "publicKey": {"id": ids.instance_key, "owner": ids.instance, "publicKeyPem": public_pem},
        "implements": application(ids)["implements"],
    }
