"""How accounts are found, and what the server says of itself: WebFinger, host-meta, NodeInfo."""

from __future__ import annotations

from html import escape

from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.outgoing.wording import (
    ACTIVITYSTREAMS,
    Document,
)
from threadbridge.domain.accounts import Account


def webfinger(ids: Ids, account: Account, *, asked_domain: str | None = None) -> Document:
    """The JRD of an account: one `self` link, before all others of its kind (Misskey takes the first). Who asks for
    the name under a domain that the owner only wants so far (`asked_domain`) is told that name: the other side agrees
    by sending people here."""
    links: list[Document] = [
        {"rel": "self", "type": "application/activity+json", "href": ids.actor(account.id)},
        {
            "rel": "http://webfinger.net/rel/profile-page",
            "type": "text/html",
            "href": ids.profile(account.handle),
        },
    ]
    if account.avatar and account.avatar_type:
        links.append(
            {
                "rel": "http://webfinger.net/rel/avatar",
                "type": account.avatar_type,
                "href": ids.media(account.avatar, account.avatar_type),
            }
        )
    return {
        "subject": f"acct:{ids.acct(account.handle, asked_domain or account.domain)}",
        "aliases": [ids.profile(account.handle), ids.actor(account.id)],
        "links": links,
    }


def instance_webfinger(ids: Ids) -> Document:
    """The JRD of the server's own actor; FEP-d556 asks for it by the server's address."""
    return {
        "subject": f"acct:{ids.authority}@{ids.authority}",
        "aliases": [ids.instance],
        "links": [
            {"rel": "self", "type": "application/activity+json", "href": ids.instance},
            {"rel": f"{ACTIVITYSTREAMS}#Service", "type": "application/activity+json", "href": ids.instance},
        ],
    }


def host_meta_xml(ids: Ids) -> bytes:
    """XRD with the LRDD template: Akkoma and Takahē ask for it before WebFinger."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0">\n'
        f'  <Link rel="lrdd" template="{escape(ids.base)}/.well-known/webfinger?resource={{uri}}"/>\n'
        "</XRD>\n"
    ).encode()


def host_meta(ids: Ids) -> Document:
    """The same as JSON (RFC 6415)."""
    return {"links": [{"rel": "lrdd", "template": f"{ids.base}/.well-known/webfinger?resource={{uri}}"}]}


def nodeinfo_links(ids: Ids) -> Document:
    """Where the NodeInfo documents are; the last link is FEP-2677."""
    schema = "http://nodeinfo.diaspora.software/ns/schema"
    return {
        "links": [
            {"rel": f"{schema}/2.0", "href": f"{ids.base}/nodeinfo/2.0"},
            {"rel": f"{schema}/2.1", "href": f"{ids.base}/nodeinfo/2.1"},
            {"rel": f"{ACTIVITYSTREAMS}#Application", "href": ids.instance},
        ]
    }


def nodeinfo(version: str, *, software_version: str, users: int, posts: int, name: str) -> Document:
    """NodeInfo 2.0 or 2.1."""
    software: Document = {"name": "threadbridge", "version": software_version}
    return {
        "version": version,
        "software": software,
        "protocols": ["activitypub"],
        "services": {"inbound": [], "outbound": []},
        "openRegistrations": False,
        "usage": {
            "users": {"total": users, "activeMonth": users, "activeHalfyear": users},
            "localPosts": posts,
        },
        "metadata": {"nodeName": name, "nodeDescription": "A bridge: Threads accounts in the Fediverse"},
    }
