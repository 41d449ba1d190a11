"""A running bridge with something on it: for the tests of the pages, with and without a browser."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx2
from tests.rig import Bridge, running_bridge

from threadbridge.domain.accounts import Account
from threadbridge.domain.people import Peer, Reply
from threadbridge.domain.source import SourcePoll
from threadbridge.sandbox.drawing import draw, encode
from threadbridge.storage import (
    accounts,
    followers,
    ledger,
    peers,
    posts,
    reactions,
    replies,
)
from threadbridge.storage.content import hashtags
from threadbridge.storage.posts import NewAttachment, PostContent
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import new_token, token_hash

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MALICE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"><svg onload=document.title='owned'>",
    "' onmouseover='document.title=1' x='",
    "javascript:document.title='owned'",
    "{{ 7*7 }} {% raw %} ${7*7}",
    "</title><script>document.title='owned'</script>",
    "<a href=\"javascript:document.title='owned'\">click</a>",
    "<style>body{display:none}</style>",
    "\u202egnp.exe <iframe srcdoc='<script>parent.document.title=1</script>'>",
)


@dataclass
class Site:
    """What was put there, by name."""

    bridge: Bridge
    numbers: dict[str, int] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return self.bridge.base

    def get(self, path: str, **headers: str) -> httpx2.Response:
        url = path if path.startswith("http") else self.base + path
        return httpx2.get(url, headers={"Accept": "text/html", **headers}, trust_env=False)

    def write(self, work: Any, *args: Any, **named: Any) -> Any:
        return self.bridge.ground.store.transact_now(work, *args, **named)

    def picture(self, scene: str, size: tuple[int, int] = (720, 540)) -> str:
        """A drawn picture in the media store; returns its hash."""
        row = self.bridge.ground.media.ingest_stream(io.BytesIO(encode(draw(scene, size=size))), kind_hint="image")
        self.write(posts.add_media, row)
        return row.sha256

    def post(
        self,
        account: Account,
        text: str,
        *,
        minutes: int = 0,
        media: list[NewAttachment] | None = None,
        silent: bool = True,
        **given: Any,
    ) -> int:
        content = PostContent(
            kind=given.pop("kind", "post"),
            text=text,
            language=given.pop("language", "en"),
            published=NOON + timedelta(minutes=minutes),
            tags=hashtags(text, given.get("topic")),
            **given,
        )
        number: int = self.write(posts.add, account.id, content, media or [], silent=silent)
        self.write(accounts.touch, account.id)
        return number

    def peer(self, number: int, *, name: str | None = None, url: str | None = None) -> Peer:
        host = f"server{number}.example"
        peer = Peer(
            uri=f"https://{host}/users/friend{number}",
            inbox=f"https://{host}/users/friend{number}/inbox",
            shared_inbox=f"https://{host}/inbox",
            handle=f"friend{number}@{host}",
            name=f"Friend {number}" if name is None else name,
            url=url or f"https://{host}/@friend{number}",
            key_id=f"https://{host}/users/friend{number}#main-key",
            key_pem="unused",
        )
        self.write(peers.save, peer, host)
        return peer

    def answer(
        self, account: Account, post_id: int, peer: Peer, html: str, *, number: int, public: bool = True
    ) -> str:
        reply = Reply(
            uri=f"{peer.uri}/notes/{number}",
            post_id=post_id,
            peer_uri=peer.uri,
            handle=peer.handle,
            name=peer.name,
            author_url=peer.url,
            url=f"{peer.url}/{number}",
            html=html,
            published=NOON + timedelta(hours=1, minutes=number),
            updated=None,
            public=public,
        )
        self.write(replies.add, account.id, reply, "{}")
        return reply.uri

    def delivered(
        self, account: Account, post_id: int, outcomes: Sequence[tuple[str, str | None]], kind: str = "Create"
    ) -> None:
        """An activity about a post with one delivery per (state, reason), on servers of their own."""

        def put(tx: Tx) -> None:
            ids = self.bridge.ground.ids
            activity = ledger.add_activity(
                tx,
                account_id=account.id,
                uri=f"{ids.post(account.id, post_id)}#{kind}",
                kind=kind,
                order_key=ids.post(account.id, post_id),
                body=b"{}",
                post_id=post_id,
            )
            assert activity is not None
            ledger.mark_fanned_out(tx, activity)
            for number, (state, reason) in enumerate(outcomes):
                tx.execute(
                    ledger._d.insert().values(
                        activity_id=activity, account_id=account.id, post_id=post_id,
                        inbox=f"https://server{number}.example/inbox", host=f"server{number}.example",
                        order_key=ids.post(account.id, post_id), lane=1, state=state, due_at=tx.now,
                        created_at=tx.now, reason=reason, attempts=1 if reason else 0,
                        ended_at=None if state == "waiting" else tx.now,
                    )
                )  # fmt: skip

        self.write(put)

    # ── as an owner ──────────────────────────────────────────────────────────────────────────────────────────────

    def login_link(self, account: Account) -> str:
        token = new_token()
        self.write(accounts.add_sign_in_link, account.id, token_hash(token))
        return f"{self.base}/owner/sign-in?token={token}"

    @contextmanager
    def signed_in(self, account: Account) -> Iterator[httpx2.Client]:
        """A client with a session, signed in as a browser would do it."""
        with httpx2.Client(base_url=self.base, trust_env=False, headers={"Accept": "text/html"}) as client:
            page = client.get(self.login_link(account))
            token = field_of(page.text, "token")
            answer = client.post("/owner/sign-in", data={"token": token}, headers=same_origin(self.base))
            assert answer.status_code == 303, answer.text
            yield client


def same_origin(base: str) -> dict[str, str]:
    """What a browser sends with a form of our own page."""
    return {"origin": base, "sec-fetch-site": "same-origin"}


def field_of(html: str, name: str) -> str:
    """The value of a hidden field."""
    match = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert match, f"no field {name}"
    return match[1]


@contextmanager
def running_site(folder: Path, **settings: Any) -> Iterator[Site]:
    """A bridge without a worker, empty."""
    with running_bridge(folder, worker=False, **settings) as bridge:
        yield Site(bridge)


def _shot(site: Site, scene: str, alt: str, kind: Literal["image", "video"] = "image", **size: Any) -> NewAttachment:
    return NewAttachment(kind, alt, f"key-{scene}", site.picture(scene, **size))


def furnish(site: Site) -> Account:
    """A lively account: pictures, a carousel, a thread, a spoiler, a poll, a quote, answers, receipts."""
    portrait = site.picture("portrait", (400, 400))
    account = site.bridge.account(
        "marta",
        name="Marta Lindqvist",
        bio="Harbours, trams and slow mornings.\nPhotographs from #Gothenburg and elsewhere. https://marta.example",
        source_url="https://www.threads.com/@marta",
        joined_at=datetime(2023, 7, 14, tzinfo=UTC),
    )
    site.write(accounts.update_profile, account.id, avatar=portrait)
    numbers = site.numbers
    numbers["old"] = site.post(
        account,
        "Good morning from the quay. More at https://example.org/a/very/long/address/that/goes/on",
        minutes=-600,
    )
    numbers["first"] = site.post(account, "Three things I learnt from a year of trams. 1/3", minutes=-500)
    numbers["second"] = site.post(
        account,
        "Sit on the left: that is where the water is. 2/3",
        minutes=-499,
        kind="reply",
        parent_id=numbers["first"],
    )
    numbers["third"] = site.post(
        account, "And never run for one. Another comes. 3/3", minutes=-498, kind="reply", parent_id=numbers["second"]
    )
    numbers["spoiler"] = site.post(
        account, "The gardener did it, of course. He had the only key.", minutes=-400, spoilers=((0, 16),)
    )
    numbers["poll"] = site.post(
        account, "Which morning?", minutes=-300,
        poll=SourcePoll(("Fog over the harbour", "First snow", "Neither, let me sleep"), (42, 81, 17), NOON),
    )  # fmt: skip
    numbers["sensitive"] = site.post(
        account,
        "After the storm.",
        minutes=-250,
        sensitive=True,
        media=[_shot(site, "forest", "Broken branches on a forest path")],
    )
    numbers["carousel"] = site.post(
        account, "Six corners of the market hall, from early until late. #StreetPhotography", minutes=-200,
        media=[
            _shot(site, scene, f"The {scene}, drawn in flat colours", size=(600, 600))
            for scene in ("market", "coffee", "tiles", "cat", "bicycle", "tram")
        ],
    )  # fmt: skip
    numbers["picture"] = site.post(
        account,
        "Fog until ten, then this.",
        minutes=-100,
        language="en",
        topic="Gothenburg",
        media=[_shot(site, "harbour", "A harbour at sunrise: cranes, a ferry, flat water", size=(1080, 720))],
    )
    numbers["quote"] = site.post(
        account,
        "Still my favourite corner of this town. Ça ne change pas.",
        minutes=-50,
        quoted_id=numbers["picture"],
    )
    numbers["newest"] = site.post(
        account, "Long day, short tram ride, good soup. See you tomorrow 🌊", minutes=-10, silent=False
    )
    friends = [site.peer(number) for number in range(4)]
    for friend in friends:
        site.write(followers.follow, account.id, friend, f"{friend.uri}/follows/1")
        site.write(reactions.react, account.id, numbers["picture"], friend.uri, "like", f"{friend.uri}/likes/1")
    site.write(
        reactions.react, account.id, numbers["picture"], friends[0].uri, "announce", f"{friends[0].uri}/boosts/1"
    )
    site.answer(account, numbers["picture"], friends[1], "<p>What a light! Which quay is it?</p>", number=1)
    site.answer(
        account,
        numbers["picture"],
        friends[2],
        '<p><a href="https://example.org/ferry">The ferry</a> in the back is the <em>Älvsnabben</em>, no?</p>',
        number=2,
    )
    site.answer(account, numbers["picture"], friends[3], "<p>Only for you: thank you.</p>", number=3, public=False)
    site.delivered(
        account,
        numbers["newest"],
        [("delivered", None)] * 8 + [("waiting", "it did not answer in time")] * 2 + [("refused", "it answered 401")],
    )
    site.write(posts.pin, account.id, numbers["picture"])
    site.write(accounts.touch, account.id)
    return account


def malicious(site: Site) -> Account:
    """An account in which every field that anybody writes carries an attack."""
    everything = " ".join(MALICE)
    account = site.bridge.account(
        "mallory", name=everything, bio=everything, source_url="javascript:document.title='owned'"
    )
    picture = site.picture("snow")
    peer = site.peer(99, name=everything, url="javascript:document.title='owned'")
    for number, attack in enumerate(MALICE):
        post = site.post(
            account, attack, minutes=number, topic=attack, link="javascript:document.title='owned'", location=attack,
            quoted_url="javascript:document.title='owned'", original_url="javascript:document.title='owned'",
            long_text=attack, poll=SourcePoll((attack, "b"), (1, 2)),
            media=[NewAttachment("image", attack, "k", picture), NewAttachment("image", attack, "m", None, attack)],
        )  # fmt: skip
        site.numbers[f"attack{number}"] = post
        site.answer(account, post, peer, attack, number=100 + number)
    site.delivered(account, site.numbers["attack0"], [("refused", everything)])
    return account
