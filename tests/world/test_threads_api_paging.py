"""Pages are followed to the end and no further, and a window is called complete only where it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qs

import pytest

from threadbridge.domain.source import SourcePage
from threadbridge.sources.threads_api import ThreadsApi

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
BEGINNING = datetime.min.replace(tzinfo=UTC)
Answer = dict[str, Any]


class Scripted:
    """A Graph that answers a listing from a table by cursor ("" is the first page), and keeps what was asked."""

    def __init__(self, pages: Mapping[str, Answer]) -> None:
        self.pages = pages
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    async def __call__(
        self, method: str, url: str, *, params: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.asked.append((url, params))
        assert len(self.asked) < 20, "the reading does not end"
        answer = self.pages[params.get("after", "")]
        return (400 if "error" in answer else 200), {}, json.dumps(answer).encode()

    def source(self) -> ThreadsApi:
        return ThreadsApi(self, "https://graph.test/", "T0KEN", now=lambda: NOW)


def row(minute: int, id: str | None = None, **fields: Any) -> Answer:
    time = datetime(2026, 3, 10, 10, 0, tzinfo=UTC) + timedelta(minutes=minute)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S+0000")
    return {"id": id or str(1000 + minute), "media_type": "TEXT_POST", "text": "x", "timestamp": stamp, **fields}


def page(rows: list[Any], after: str | None = None, *, more: bool = False) -> Answer:
    answer: Answer = {"data": rows}
    if after:
        answer["paging"] = {"cursors": {"before": "b", "after": after}}
        if more:
            answer["paging"]["next"] = f"https://graph.test/v1.0/me/threads?after={after}&access_token=T0KEN"
    return answer


def history(graph: Scripted, kind: Literal["post", "reply"] = "post") -> list[SourcePage]:
    async def read() -> list[SourcePage]:
        return [found async for found in graph.source().history(kind)]

    return asyncio.run(read())


def first(answer: Answer, kind: Literal["post", "reply"] = "post", limit: int = 25) -> SourcePage:
    return asyncio.run(Scripted({"": answer}).source().page(kind, None, limit))


def test_history_follows_the_cursors_to_the_last_page() -> None:
    graph = Scripted(
        {"": page([row(9), row(8)], "A", more=True), "A": page([row(7)], "B", more=True), "B": page([row(6)], "C")}
    )
    pages = history(graph)
    assert [[post.native_id for post in found.posts] for found in pages] == [["1009", "1008"], ["1007"], ["1006"]]
    assert [found.complete_from for found in pages] == [
        datetime(2026, 3, 10, 10, 8, 1, tzinfo=UTC),
        datetime(2026, 3, 10, 10, 7, 1, tzinfo=UTC),
        BEGINNING,
    ]
    assert all(url == "https://graph.test/v1.0/me/threads" for url, _ in graph.asked)
    assert all(params["access_token"] == "T0KEN" for _, params in graph.asked)


def test_a_cursor_that_is_only_in_the_next_address_is_used() -> None:
    answer = page([row(9)], "A", more=True)
    del answer["paging"]["cursors"]
    assert first(answer).next_cursor == "A"
    assert parse_qs(answer["paging"]["next"].partition("?")[2])["after"] == ["A"]


def test_a_repeated_cursor_ends_the_reading() -> None:
    graph = Scripted({"": page([row(9)], "A", more=True), "A": page([row(8)], "A", more=True)})
    pages = history(graph)
    assert len(pages) == 2
    assert all(found.complete_from != BEGINNING for found in pages)


def test_an_empty_page_ends_the_reading_even_if_it_announces_more() -> None:
    graph = Scripted({"": page([row(9)], "A", more=True), "A": page([], "B", more=True)})
    pages = history(graph)
    assert len(pages) == 2
    assert pages[1].complete_from is None


def test_a_full_page_without_next_is_asked_once_more() -> None:
    assert first(page([row(9), row(8)], "A"), limit=2).next_cursor == "A"
    assert first(page([row(9), row(8)], "A"), limit=3).next_cursor is None


def test_the_window_ends_after_the_last_second_of_the_page() -> None:
    """Another post of the same second may be the first of the next page."""
    assert first(page([row(9), row(8)], "A", more=True)).complete_from == datetime(2026, 3, 10, 10, 8, 1, tzinfo=UTC)


def test_a_pinned_post_in_front_does_not_widen_the_window() -> None:
    answer = page([row(-9000), row(9), row(8)], "A", more=True)
    assert first(answer).complete_from == datetime(2026, 3, 10, 10, 8, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("answer", "kind", "because"),
    [
        (page([row(9), row(2), row(8)], "A", more=True), "post", "the order is not the documented one"),
        (page([row(9), {"media_type": "TEXT_POST"}]), "post", "a row without id could be any post"),
    ],
)
def test_nothing_is_concluded(answer: Answer, kind: Literal["post", "reply"], because: str) -> None:
    assert first(answer, kind).complete_from is None, because


@pytest.mark.parametrize("kind", ["post", "reply"])
def test_an_empty_list_claims_to_be_complete(kind: Literal["post", "reply"]) -> None:
    """A claim that is checked by asking for each missing post: without a permission the list is empty, too."""
    assert first(page([]), kind).complete_from == BEGINNING


def test_pages_are_dated_by_the_clock_of_the_source() -> None:
    async def fetch(method: str, url: str, *, params: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        return 200, dated, json.dumps(page([row(1)])).encode()

    for date, expected in (
        ("Tue, 10 Mar 2026 09:30:00 GMT", datetime(2026, 3, 10, 9, 30, tzinfo=UTC)),
        ("yesterday", NOW),
        (None, NOW),
    ):
        dated = {"Date": date} if date else {}
        source = ThreadsApi(fetch, "https://graph.test", "T0KEN", now=lambda: NOW)
        assert asyncio.run(source.page("post", None, 25)).read_at == expected


def test_a_strange_row_is_skipped_and_the_others_are_read() -> None:
    found = first(page([row(9), row(8, media_type="HOLOGRAM"), row(7)]))
    assert [post.native_id for post in found.posts] == ["1009", "1007"]
    assert found.skipped == (("1008", "The media type 'HOLOGRAM' is not known"),)
    assert found.complete_from == BEGINNING


def test_the_kinds_of_a_listing() -> None:
    assert first(page([row(1)])).kinds == {"post", "repost"}
    assert first(page([row(1)]), "reply").kinds == {"reply"}


def test_a_field_that_the_api_does_not_know_is_left_out_from_then_on() -> None:
    refusal = {
        "error": {
            "message": "(#100) Tried accessing nonexisting field (topic_tag) on node type (ThreadsMedia)",
            "type": "THApiException",
            "code": 100,
        }
    }

    class Older(Scripted):
        async def __call__(
            self, method: str, url: str, *, params: Mapping[str, str]
        ) -> tuple[int, Mapping[str, str], bytes]:
            self.asked.append((url, params))
            answer = refusal if "topic_tag" in params["fields"] else page([row(1)])
            return (400 if "error" in answer else 200), {}, json.dumps(answer).encode()

    graph = Older({})
    source = graph.source()
    assert len(asyncio.run(source.page("post", None, 25)).posts) == 1
    assert len(asyncio.run(source.page("post", None, 25)).posts) == 1
    assert len(graph.asked) == 3
    assert "alt_text" in graph.asked[-1][1]["fields"]


def test_children_are_asked_for_as_bare_ids_where_their_expansion_is_refused() -> None:
    class Strict(Scripted):
        async def __call__(
            self, method: str, url: str, *, params: Mapping[str, str]
        ) -> tuple[int, Mapping[str, str], bytes]:
            self.asked.append((url, params))
            if "children{" in params["fields"]:
                return 400, {}, b'{"error":{"message":"Syntax error","type":"OAuthException","code":100}}'
            return 200, {}, json.dumps(page([row(1)])).encode()

    graph = Strict({})
    assert len(asyncio.run(graph.source().page("post", None, 25)).posts) == 1
    assert graph.asked[-1][1]["fields"].split(",").count("children") == 1
