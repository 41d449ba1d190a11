"""Actor documents: the accounts and the server's own actor."""

from __future__ import annotations

from html import escape

from threadbridge.activitypub import text
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing.wording import (
    ACTIVITYSTREAMS,
    ACTOR_CONTEXT,
    SECURITY,
    Document,
    timestamp,
)
from threadbridge.domain.accounts import Account


def actor(ids: Ids, account: Account, public_pem: str) -> Document:
    """The actor document of an account."""
    me = ids.actor(account.id)
    document: Document = {
        "@context": ACTOR_CONTEXT,
        "id": me,
        "type": "Person",
        "preferredUsername": account.handle,
        "webfinger": ids.acct(account.handle),  # FEP-2c59
        "name": account.name or account.handle,
        "summary": bio_html(ids, account),  # Pixelfed refuses actors without the key
        "url": ids.profile(account.handle),
        "inbox": ids.inbox(account.id),
        "outbox": ids.collection(account.id, "outbox"),
        "followers": ids.collection(account.id, "followers"),
        "following": ids.collection(account.id, "following"),
        "featured": ids.featured(account.id),
        "featuredTags": ids.featured_tags(account.id),
        # Said outright: GoToSocial and Mastodon differ in what absence means.
        "manuallyApprovesFollowers": False,
        "discoverable": account.discoverable,
        "indexable": account.discoverable,
        "memorial": False,
        "published": timestamp(account.joined_at or account.created_at),
        "publicKey": {"id": ids.key(account.id), "owner": me, "publicKeyPem": public_pem},
        "endpoints": {"sharedInbox": ids.shared_inbox},
        "attributionDomains": [ids.authority],
        "attachment": [],
        "tag": [],
    }
    if account.avatar and account.avatar_type:
        document["icon"] = {
            "type": "Image",
            "mediaType": account.avatar_type,
            "url": ids.media(account.avatar, account.avatar_type),
        }
    if account.source_url:
        shown = account.source_url.split("://", 1)[-1]
        document["attachment"].append(
            {
                "type": "PropertyValue",
                "name": "Threads",
                "value": f'<a href="{escape(account.source_url)}" rel="me nofollow noopener noreferrer" '
                f'target="_blank">{escape(shown)}</a>',
            }
        )
    return document


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
        "@context": [ACTIVITYSTREAMS, SECURITY, {"manuallyApprovesFollowers": "as:manuallyApprovesFollowers"}],
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
    }
