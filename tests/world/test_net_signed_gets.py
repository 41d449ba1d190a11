"""Documents of servers that do not take the usual signature of a GET."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.world.loopback import Asked, Loopback, client, reply, run

from threadbridge.errors import BadAnswer
from threadbridge.net.manners import MANNER_SECONDS
from threadbridge.net.peers import Peers
from threadbridge.signatures.knocking import Manner

ACTIVITY = "application/activity+json"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def sign(url: str, manner: Manner) -> Mapping[str, str]:
    return {"Signature": f"{manner} {(manner.demand and manner.demand.nonce) or ''}".strip()}


class Strict(Loopback):
    """Answers a GET whose signature is one of `takes`; to others says 401, with what it wants."""

    def __init__(self, takes: Callable[[str, str], bool], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(self._page)
        self._takes = takes
        self._headers = dict(headers or {})
        self.status = 401

    def _page(self, asked: Asked) -> bytes:
        signature = asked.header("signature") or ""
        if not self._takes(signature, asked.target):
            return reply(self.status, b"signed differently, please", **self._headers)
        document = {"id": self.url(asked.target), "type": "Note"}
        return reply(200, json.dumps(document).encode(), content_type=ACTIVITY)

    @property
    def signatures(self) -> list[str]:
        return [asked.header("signature") or "" for asked in self.asked]


def story(site: Strict, work: Callable[[Peers, Clock], Any], **options: Any) -> None:
    async def main() -> None:
        clock = Clock()
        async with site, client() as this:
            await work(
                Peers(this, sign, key_id="https://here.example/actor#main-key", monotonic=clock, **options), clock
            )

    run(main())


def test_the_other_dialect_is_tried_and_remembered_for_a_month() -> None:
    site = Strict(lambda signature, _: signature == "rfc9421")

    async def work(peers: Peers, clock: Clock) -> None:
        await peers.document(f"{site.url()}1")
        await peers.document(f"{site.url()}2")
        assert site.signatures == ["cavage", "rfc9421", "rfc9421"]
        clock.now += MANNER_SECONDS + 1
        await peers.document(f"{site.url()}3")
        assert site.signatures[3:] == ["cavage", "rfc9421"]

    story(site, work)


def test_a_query_is_signed_and_then_left_out() -> None:
    site = Strict(lambda signature, target: "?" not in target or signature == "cavage without the query")

    async def work(peers: Peers, clock: Clock) -> None:
        await peers.document(f"{site.url()}1")
        await peers.document(f"{site.url()}1?page=2")
        await peers.document(f"{site.url()}1?page=3")
        assert site.signatures == ["cavage", "cavage", "cavage without the query", "cavage without the query"]

    story(site, work)


def test_what_accept_signature_asks_for_is_given() -> None:
    asked = {"Accept-Signature": 'sig1=("@method" "@authority");created;nonce="n1"'}
    site = Strict(lambda signature, _: signature == "rfc9421 as asked n1", asked)

    async def work(peers: Peers, clock: Clock) -> None:
        await peers.document(f"{site.url()}1")
        assert site.signatures == ["cavage", "rfc9421 as asked n1"]
        # A nonce is good once: next time it is asked for anew.
        await peers.document(f"{site.url()}2")
        assert site.signatures[2:] == ["rfc9421 as asked", "rfc9421 as asked n1"]

    story(site, work)


def test_what_cannot_be_given_with_a_get_is_passed_over() -> None:
    site = Strict(
        lambda signature, _: signature == "rfc9421", {"Accept-Signature": 'sig1=("content-digest");created'}
    )

    async def work(peers: Peers, clock: Clock) -> None:
        await peers.document(f"{site.url()}1")
        assert site.signatures == ["cavage", "rfc9421"]

    story(site, work)


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500])
def test_what_has_nothing_to_do_with_signatures_is_asked_once(status: int) -> None:
    site = Strict(lambda *_: False)
    site.status = status

    async def work(peers: Peers, clock: Clock) -> None:
        with pytest.raises(BadAnswer):
            await peers.document(f"{site.url()}1?a=b")
        assert site.signatures == ["cavage"]

    story(site, work)


def test_who_takes_nothing_is_asked_no_more_than_four_times_and_each_is_paid_for() -> None:
    site = Strict(lambda *_: False, {"Accept-Signature": 'sig1=("host");created;nonce="x"'})

    async def work(peers: Peers, clock: Clock) -> None:
        with pytest.raises(BadAnswer) as caught:
            await peers.document(f"{site.url()}1?a=b")
        assert caught.value.status == 401
        assert len(site.asked) == len(set(site.signatures)) <= 4
        spent = len(site.asked)
        for _ in range(10):
            with pytest.raises(Exception, match=r"401|left in peace"):
                await peers.document(f"{site.url()}1?a=b")
        assert len(site.asked) <= 6
        assert spent <= 6

    story(site, work, requests_per_minute=6)


def test_a_way_that_leads_to_a_strict_server_is_not_walked_again() -> None:
    strict = Strict(lambda signature, _: signature == "rfc9421")

    async def main() -> None:
        async with (
            strict,
            Loopback(lambda asked: reply(302, b"", location=f"{strict.url()}1")) as gate,
            client() as this,
        ):
            peers = Peers(this, sign)
            read = await peers.document(f"{gate.url()}way")
            assert read["id"] == f"{strict.url()}1"
            assert strict.signatures == ["cavage", "rfc9421"]
            # The first server's signature was never in question.
            assert [asked.header("signature") for asked in gate.asked] == ["cavage"]

    run(main())
