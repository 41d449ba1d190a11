"""The judgement sees what is said: bent documents and requests are complained about, so that its silence means
something."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.peers import judgement
from tests.rig import Stranger, eventually, running_bridge
from tests.stories.crowd import Reply, crowd, drained, follow, publish

FAULTS: list[tuple[str, Any, str]] = [
    ("type", "Article", "mastodon"),
    ("to", [], "mastodon"),
    ("published", "yesterday", "takahe"),
    ("updated", "2020-01-01T00:00:00Z", "gotosocial"),
    ("content", "<p>open", "mastodon"),
    ("content", None, "threads"),
    ("url", "http://bridge.example/1", "misskey"),
    ("inReplyTo", ["https://a.example/1"], "misskey"),
    ("replies", {"first": "https://bridge.example/1"}, "akkoma"),
    ("sensitive", "no", "mastodon"),
    ("interactionPolicy", {"canLike": {}}, "gotosocial"),
]


@pytest.mark.unjudged("it is bent here on purpose")
def test_a_document_with_a_fault_is_complained_about_by_whom_it_hurts(tmp_path: Path) -> None:
    with running_bridge(tmp_path, worker=False) as bridge:
        uri = bridge.post(bridge.account())
        good = bridge.get(uri).json()
        assert judgement.judge() == []
        path = uri.removeprefix(bridge.base)
        for name, value, hurt in FAULTS:
            bent = {**good, name: value}
            complaints = served(path, bent)
            assert any(complaint.startswith(f"{hurt} refuses") for complaint in complaints), (name, complaints)
        assert served(f"{path}x", good)
        assert len(served(path, good, "application/json; charset=utf-8")) >= 5
        assert served("/api/v1/thing", good, "application/json; charset=utf-8") == []
        assert len(served(path, good, "application/ld+json")) >= 3


def served(path: str, document: dict[str, Any], kind: str = "application/activity+json; charset=utf-8") -> list[str]:
    """What is said about a document that is served as if by the product."""

    async def answer(_: Request) -> Response:
        return Response(orjson.dumps(document), headers={"content-type": kind})

    app = judgement.answers_of(Starlette(routes=[Route("/{rest:path}", answer)]))

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(_: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": []}  # fmt: skip
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return judgement.judge()


@pytest.mark.unjudged("it is bent here on purpose")
def test_every_request_was_heard_and_one_that_is_bent_is_complained_about(tmp_path: Path) -> None:
    with running_bridge(tmp_path) as bridge:
        account = bridge.account()
        with crowd(bridge.loop, script=lambda asked: Reply(202 if asked.rfc9421 else 401)) as people:
            follow(bridge, account, people, "bob")
            publish(bridge, account)
            drained(bridge)
            eventually(lambda: people.deliveries())
        said = list(judgement._record.requests)
        kinds = {(request.method, request.header("signature-input") is not None) for _, request in said}
        assert kinds == {("GET", False), ("POST", False), ("POST", True)}
        assert judgement.judge() == []
        for authority, request in said:
            for bent in (
                dataclasses.replace(request, target=f"{request.target}x"),
                dataclasses.replace(request, headers=[pair for pair in request.headers if pair[0] != "signature"]),
                *([dataclasses.replace(request, body=request.body + b" ")] if request.method == "POST" else []),
            ):
                judgement._record.requests.append((authority, bent))
                assert judgement.judge(), (request.method, request.target)


def test_what_others_say_is_not_judged(tmp_path: Path) -> None:
    with running_bridge(tmp_path) as bridge:
        stranger = Stranger("http://127.0.0.1:1")
        assert stranger.post(f"{bridge.base}/ap/inbox", {"id": "nonsense"}).status_code == 400
        assert not [request for _, request in judgement._record.requests]
