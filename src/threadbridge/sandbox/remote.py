"""A small server on the other side of the Fediverse, for the demo and for trying things: one person who follows,
likes and answers, with a timeline to look at.

Rule: it believes nothing that is not signed by who says it, and it knows the bridge only by what the bridge serves
to everybody: WebFinger, actor documents and signed deliveries.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from threadbridge.activitypub import document, incoming, text
from threadbridge.activitypub.ids import PUBLIC
from threadbridge.domain.people import Peer
from threadbridge.errors import Invalid, NetworkError, SignatureRefused
from threadbridge.net.client import Client
from threadbridge.net.peers import Peers
from threadbridge.signatures import schemes
from threadbridge.signatures.keys import signing_key, verifying_key
from threadbridge.signatures.knocking import Manner
from threadbridge.storage.vault import new_rsa_key

AS = "https://www.w3.org/ns/activitystreams"


@dataclass(slots=True)
class Shown:
    """A post on the timeline."""

    uri: str
    author: str
    html: str
    published: str
    url: str
    pictures: list[tuple[str, str]] = field(default_factory=list)
    edited: bool = False


class RemoteServer:
    """One person, `visitor`, on a server of their own at `base_url`."""

    def __init__(self, base_url: str, client: Client) -> None:
        self.base = base_url
        self.me = f"{base_url}/users/visitor"
        self.handle = f"visitor@{base_url.split('://', 1)[1]}"
        key = new_rsa_key()
        self._public_pem = key.public_pem
        self._key = signing_key(f"{self.me}#main-key", key.private_pem)
        self._client = client
        self.peers = Peers(client, self._sign_get)
        self.timeline: dict[str, Shown] = {}
        self._followed: dict[str, str] = {}
        self.heard: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._number = 0

    async def _sign_get(self, url: str, _manner: Manner) -> dict[str, str]:
        return self._signed("GET", url, None)

    def _signed(self, method: str, url: str, body: bytes | None) -> dict[str, str]:
        kind = "application/activity+json" if body is not None else None
        return schemes.sign(
            "cavage", self._key, method=method, url=url, body=body, date=datetime.now(UTC), content_type=kind
        )

    # ── what the person does ─────────────────────────────────────────────────────────────────────────────────────

    async def follow(self, actor: Peer) -> str:
        """Send a Follow to an actor's inbox; returns its id."""
        self._followed[actor.uri] = actor.handle
        return await self._say(actor.inbox, {"type": "Follow", "object": actor.uri})

    async def like(self, actor: Peer, post: str) -> str:
        """Send a Like of a post; returns its id."""
        return await self._say(actor.inbox, {"type": "Like", "object": post})

    async def reply(self, actor: Peer, post: str, html: str) -> str:
        """Answer a post; returns the id of the answer."""
        self._number += 1
        uri = f"{self.me}/posts/{self._number}"
        note = {
            "id": uri,
            "type": "Note",
            "attributedTo": self.me,
            "inReplyTo": post,
            "content": html,
            "published": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "to": [PUBLIC],
            "cc": [actor.uri],
            "tag": [{"type": "Mention", "href": actor.uri, "name": f"@{actor.handle}"}],
        }
        await self._say(actor.inbox, {"type": "Create", "object": note, "to": [PUBLIC], "cc": [actor.uri]})
        return uri

    async def _say(self, inbox: str, what: dict[str, Any]) -> str:
        self._number += 1
        uri = f"{self.me}/activities/{self._number}"
        body = orjson.dumps({"@context": AS, "id": uri, "actor": self.me, **what})
        answer = await self._client.post(inbox, body=body, headers=self._signed("POST", inbox, body), deadline=10)
        if answer.status >= 300:
            raise NetworkError(
                f"{inbox} answered {answer.status}", detail=answer.body[:300].decode("utf-8", "replace")
            )
        return uri

    async def wait_for(
        self, kind: str, object_uri: str | None = None, *, seconds: float, other_than: str | None = None
    ) -> dict[str, Any]:
        """The first activity of a kind (about an object, or about any `other_than` one) that has arrived or arrives
        within `seconds`."""

        def arrived() -> dict[str, Any] | None:
            for activity in self.heard:
                inner = activity.get("object")
                uri = inner.get("id") if isinstance(inner, dict) else inner
                if activity.get("type") == kind and object_uri in (None, uri) and uri != other_than:
                    return activity
            return None

        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: arrived() is not None)
        found = arrived()
        assert found is not None
        return found

    # ── what the server serves ───────────────────────────────────────────────────────────────────────────────────

    def create_app(self) -> Starlette:
        """WebFinger, actor, inbox and the timeline page."""
        return Starlette(
            routes=[
                Route("/.well-known/webfinger", self._webfinger),
                Route("/users/visitor", self._actor),
                Route("/users/visitor/inbox", self._inbox, methods=["POST"]),
                Route("/inbox", self._inbox, methods=["POST"]),
                Route("/", self._page),
            ]
        )

    async def _webfinger(self, request: Request) -> Response:
        link = {"rel": "self", "type": "application/activity+json", "href": self.me}
        jrd = {"subject": f"acct:{self.handle}", "aliases": [self.me], "links": [link]}
        return Response(orjson.dumps(jrd), media_type="application/jrd+json")

    async def _actor(self, _: Request) -> Response:
        actor = {
            "@context": [AS, "https://w3id.org/security/v1"],
            "id": self.me,
            "type": "Person",
            "preferredUsername": "visitor",
            "name": "A visitor from elsewhere",
            "inbox": f"{self.me}/inbox",
            "outbox": f"{self.me}/outbox",
            "endpoints": {"sharedInbox": f"{self.base}/inbox"},
            "publicKey": {"id": f"{self.me}#main-key", "owner": self.me, "publicKeyPem": self._public_pem},
        }
        return Response(orjson.dumps(actor), media_type="application/activity+json")

    async def _inbox(self, request: Request) -> Response:
        body = await request.body()
        try:
            activity = document.decode(body)
            read = incoming.read(activity)
            target = request.scope["raw_path"].decode("latin-1")
            headers = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in request.scope["headers"]]
            claim = schemes.read_claim(
                schemes.Request("POST", target, headers, body), base_url=self.base, now=datetime.now(UTC)
            )
            sender = await self.peers.by_key(claim.key_id)
            verified = schemes.verify(claim, verifying_key(sender.key_pem), owner=sender.uri)
        except (Invalid, SignatureRefused, NetworkError) as error:
            return Response(str(error), 401)
        if verified.actor != read.actor:
            return Response("signed by somebody else", 403)
        self._take(read, activity)
        async with self._news:
            self.heard.append(activity)
            self._news.notify_all()
        return Response(status_code=202)

    def _take(self, read: incoming.Activity, activity: dict[str, Any]) -> None:
        if isinstance(read, incoming.Create | incoming.Update) and read.note is not None:
            said = activity["object"]
            pictures = [(item["url"], item.get("name") or "") for item in said.get("attachment", [])]
            self.timeline[read.object_id] = Shown(
                read.object_id,
                read.actor,
                text.clean(read.note.html),
                str(said.get("published", "")),
                str(said.get("url") or read.object_id),
                pictures,
                edited=isinstance(read, incoming.Update),
            )
        elif isinstance(read, incoming.Delete):
            self.timeline.pop(read.object, None)

    def _name_of(self, author: str) -> str:
        return f"@{self._followed[author]}" if author in self._followed else author

    async def _page(self, _: Request) -> Response:
        posts = "".join(
            f'<article><p class="by"><a href="{escape(post.author)}">{escape(self._name_of(post.author))}</a> · '
            f"{escape(post.published)}"
            f"{' · edited' if post.edited else ''}</p>{post.html}"
            + "".join(f'<img src="{escape(url)}" alt="{escape(alt)}">' for url, alt in post.pictures)
            + "</article>"
            for post in reversed(self.timeline.values())
        )
        return HTMLResponse(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            "<title>Home timeline</title><style>body{font:16px/1.5 system-ui;max-width:40rem;margin:2rem auto;"
            "padding:0 1rem}article{border-top:1px solid #ccc;padding:1rem 0}img{max-width:100%;border-radius:8px}"
            ".by{color:#555;font-size:.875rem}.invisible{display:none}.ellipsis::after{content:'…'}</style>"
            f"<h1>Home timeline of @{escape(self.handle)}</h1>{posts or '<p>Nothing has arrived yet.</p>'}</html>"
        )
