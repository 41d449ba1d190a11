"""Every document and activity that we say, as plain dictionaries, by one name: `outgoing`.

wording      contexts, media types, times, bytes          posts        Note, Question, Tombstone
actors       the accounts and the server's own actor      activities   Create, Update, Delete, Accept, …
collections  collections and their pages                  discovery    WebFinger, host-meta, NodeInfo
"""

from threadbridge.activitypub.outgoing.activities import accept, create, delete, follow_said, update, update_actor
from threadbridge.activitypub.outgoing.actors import actor, bio_html, instance_actor, threads_profile
from threadbridge.activitypub.outgoing.collections import (
    featured,
    featured_tags,
    ordered_collection,
    ordered_page,
    post_collection,
)
from threadbridge.activitypub.outgoing.discovery import (
    host_meta,
    host_meta_xml,
    instance_webfinger,
    nodeinfo,
    nodeinfo_links,
    webfinger,
)
from threadbridge.activitypub.outgoing.posts import (
    SENT_ATTACHMENTS,
    PostSurroundings,
    note,
    replies,
    tombstone,
    with_context,
)
from threadbridge.activitypub.outgoing.wording import (
    ACTIVITY_JSON,
    ACTIVITYSTREAMS,
    JRD_JSON,
    Document,
    encode,
    timestamp,
)

__all__ = [
    "ACTIVITYSTREAMS",
    "ACTIVITY_JSON",
    "JRD_JSON",
    "SENT_ATTACHMENTS",
    "Document",
    "PostSurroundings",
    "accept",
    "actor",
    "bio_html",
    "create",
    "delete",
    "encode",
    "featured",
    "featured_tags",
    "follow_said",
    "host_meta",
    "host_meta_xml",
    "instance_actor",
    "instance_webfinger",
    "nodeinfo",
    "nodeinfo_links",
    "note",
    "ordered_collection",
    "ordered_page",
    "post_collection",
    "replies",
    "threads_profile",
    "timestamp",
    "tombstone",
    "update",
    "update_actor",
    "webfinger",
    "with_context",
]
