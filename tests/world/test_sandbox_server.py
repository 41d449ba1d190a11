"""The mock network under uvicorn on a real socket: the control API, the pages, and our own adapter reading it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlencode

import pytest
import uvicorn

from threadbridge.domain.source import SourcePage, SourceProfile
from threadbridge.errors import RateLimited, SignInAgain, SourceUnavailable
from threadbridge.net.client import Client
from threadbridge.net.guard import Guard
from threadbridge.sandbox.app import create_app
from threadbridge.sandbox.network import Network
from threadbridge.sources.threads_api import ThreadsApi, fetching


@dataclass
class Served:
    """A running sandbox and the simplest way to ask it."""

    network: Network
    port: int

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {"content-type": kind} if body else {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def api(self, method: str, path: str, document: Any = None, *, expect: int = 200) -> Any:
        body = json.dumps(document).encode() if document is not None else b""
        status, _, answer = self.ask(method, f"/sandbox/api{path}", body)
        assert status == expect, answer
        return json.loads(answer)

    def form(self, path: str, **fields: str) -> tuple[int, dict[str, str], bytes]:
        return self.ask("POST", path, urlencode(fields).encode(), "application/x-www-form-urlencoded")

    def read(self, token: str, what: str = "post") -> Any:
        """A page, the profile, or whether an id exists, read by the adapter over the guarded client."""

        async def ask() -> SourcePage | SourceProfile | bool:
            guard = Guard((ip_network("127.0.0.0/8"),))
            async with Client(guard, user_agent="test") as client:
                source = ThreadsApi(fetching(client), self.base, token, now=lambda: datetime.now(UTC))
                if what == "profile":
                    return await source.profile()
                if what in {"post", "reply"}:
                    return await source.page("post" if what == "post" else "reply", None, 25)
                return await source.exists(what)

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[int, list[Network]]]:
    """One server for the file. The application in it is swapped per test, so that no test sees another's posts."""
    networks: list[Network] = []
    apps: list[Any] = []
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    async def current(scope: Any, receive: Any, send: Any) -> None:
        while len(apps) < len(networks):
            apps.append(create_app(networks[len(apps)], f"http://127.0.0.1:{port}"))
        await apps[-1](scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(current, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port, networks
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def served(running: tuple[int, list[Network]]) -> Served:
    port, networks = running
    networks.append(Network())
    return Served(networks[-1], port)


@pytest.fixture
def mira(served: Served) -> dict[str, str]:
    made: dict[str, str] = served.api("POST", "/users", {"username": "mira", "name": "Mira"}, expect=201)
    return made


def test_a_post_is_read_edited_and_deleted(served: Served, mira: dict[str, str]) -> None:
    made = served.api("POST", "/posts", {"user": "mira", "text": "Hello", "topic": "Trams"}, expect=201)
    (post,) = served.read(mira["token"]).posts
    assert (post.native_id, post.text, post.topic) == (made["id"], "Hello", "Trams")
    assert post.permalink == made["permalink"]
    served.api("PATCH", f"/posts/{made['id']}", {"text": "Hello again"})
    (edited,) = served.read(mira["token"]).posts
    assert (edited.text, edited.published) == ("Hello again", post.published)
    assert served.read(mira["token"], made["id"]) is True
    assert served.api("DELETE", f"/posts/{made['id']}") == {"success": True, "deleted_id": made["id"]}
    assert served.read(mira["token"]).posts == ()
    assert served.read(mira["token"], made["id"]) is False


def test_everything_that_can_be_posted_arrives(served: Served, mira: dict[str, str]) -> None:
    root = served.api("POST", "/posts", {"user": "mira", "text": "Root"}, expect=201)["id"]
    posts: list[dict[str, Any]] = [
        {"draw": "cat", "alt": "A cat", "spoiler": True},
        {"text": "Two", "carousel": [{"draw": "tram", "alt": "A tram"}, {"draw": "snow", "seed": 3}]},
        {"text": "Which?", "poll": ["Tea", "Coffee"]},
        {"text": "The end", "spoilers": [[4, 3]]},
        {"text": "Look", "quote": root},
        {"text": "Long", "long_text": "Very long", "link": "https://example.org/", "location": "Lisboa"},
        {"repost": root},
        {"text": "Answer", "reply_to": root},
        {"text": "Only there", "countries": ["PT"], "reply_audience": "FOLLOWERS_ONLY"},
        {"text": "Dance", "gif": "https://media.example.org/dance.gif"},
    ]
    ids = [served.api("POST", "/posts", {"user": "mira", **post}, expect=201)["id"] for post in posts]
    read = (*served.read(mira["token"]).posts, *served.read(mira["token"], "reply").posts)
    listed = {post.native_id: post for post in read}
    cat, two, poll, end, look, long, again, answer, gated, dance = (listed[id] for id in ids)
    assert cat.media[0].alt == "A cat"
    assert cat.spoiler_media
    assert [item.alt for item in two.media] == ["A tram", ""]
    assert poll.poll.options == ("Tea", "Coffee")
    assert poll.poll.votes == (0, 0)
    assert end.spoilers == ((4, 7),)
    assert look.quoted.native_id == root
    assert look.quoted.url == listed[root].permalink
    assert (long.long_text, long.link, long.location) == ("Very long", "https://example.org/", "Lisboa")
    assert (again.kind, again.reposted.native_id) == ("repost", root)
    assert (gated.country_gated, gated.audience) == (True, "followers_only")
    assert dance.media[0].url == "https://media.example.org/dance.gif"
    assert (answer.kind, answer.parent.native_id) == ("reply", root)


def test_bare_children_are_fetched_one_by_one(served: Served, mira: dict[str, str]) -> None:
    carousel = [{"draw": "tram", "alt": "A tram"}, {"draw": "snow", "alt": "Snow"}]
    served.api("POST", "/posts", {"user": "mira", "carousel": carousel}, expect=201)
    expanded = served.read(mira["token"]).posts[0].media
    served.api("POST", "/faults", {"expand_children": False})
    bare = served.read(mira["token"]).posts[0].media
    assert [(item.key, item.alt) for item in bare] == [(item.key, item.alt) for item in expanded]
    assert all(item.url for item in bare)


def test_faults_are_felt_and_end(served: Served, mira: dict[str, str]) -> None:
    token = mira["token"]
    served.api("POST", "/faults", {"rate_limit_seconds": 60})
    with pytest.raises(RateLimited) as limited:
        served.read(token)
    assert 0 < (limited.value.retry_after or 0) <= 61
    served.api("POST", "/faults", {"rate_limit_seconds": 0, "outage_seconds": 60})
    with pytest.raises(SourceUnavailable):
        served.read(token)
    served.api("POST", "/faults", {"outage_seconds": 0, "expire_token": "mira"})
    with pytest.raises(SignInAgain):
        served.read(token, "profile")
    assert served.api("GET", "/faults")["expired_tokens"] == ["mira"]
    served.api("POST", "/faults", {"clear": True})
    assert served.read(token, "profile").handle == "mira"
    renewed = served.api("POST", "/users/mira/token")["token"]
    with pytest.raises(SignInAgain):
        served.read(token)
    assert served.read(renewed, "profile").name == "Mira"


def test_media_addresses_live_as_long_as_they_are_told_to(served: Served, mira: dict[str, str]) -> None:
    served.api("POST", "/faults", {"media_life_seconds": 0})
    served.api("POST", "/posts", {"user": "mira", "draw": "cat"}, expect=201)
    url = served.read(mira["token"]).posts[0].media[0].url
    assert served.ask("GET", url.removeprefix(served.base))[0] == 403
    served.api("POST", "/faults", {"media_life_seconds": 60})
    url = served.read(mira["token"]).posts[0].media[0].url
    status, headers, body = served.ask("GET", url.removeprefix(served.base))
    assert (status, headers["content-type"], body[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")


def test_an_uploaded_file_comes_back_as_it_was(served: Served, mira: dict[str, str]) -> None:
    parts = [
        b'--b\r\ncontent-disposition: form-data; name="user"\r\n\r\nmira\r\n',
        b'--b\r\ncontent-disposition: form-data; name="alt"\r\n\r\nA film\r\n',
        b'--b\r\ncontent-disposition: form-data; name="media"; filename="a.mp4"\r\ncontent-type: video/mp4\r\n\r\n',
        b"\0\0\0\x18ftypmp42\r\n--b--\r\n",
    ]
    status, _, answer = served.ask("POST", "/sandbox/api/posts", b"".join(parts), "multipart/form-data; boundary=b")
    assert status == 201, answer
    (item,) = served.read(mira["token"]).posts[0].media
    assert (item.kind, item.alt) == ("video", "A film")
    assert served.ask("GET", item.url.removeprefix(served.base))[2] == b"\0\0\0\x18ftypmp42"


@pytest.mark.parametrize(
    ("method", "path", "document", "status"),
    [
        ("POST", "/posts", {"user": "nobody", "text": "x"}, 404),
        ("POST", "/posts", {"user": "mira", "text": ""}, 400),
        ("POST", "/posts", {"user": "mira", "text": "x" * 501}, 400),
        ("POST", "/posts", {"user": "mira", "text": 5}, 400),
        ("POST", "/posts", {"user": "mira", "txt": "x"}, 400),
        ("POST", "/posts", {"user": "mira", "draw": "a unicorn"}, 400),
        ("POST", "/posts", {"user": "mira", "text": "x", "poll": ["one"]}, 400),
        ("POST", "/posts", {"user": "mira", "text": "x", "spoilers": [[0, 9]]}, 400),
        ("POST", "/posts", {"user": "mira", "text": "x", "spoiler": {}}, 201),
        ("POST", "/posts", {"user": "mira", "text": "x", "reply_to": "5"}, 404),
        ("POST", "/posts", {"user": "mira", "text": "x", "quote": "5"}, 404),
        ("POST", "/posts", ["x"], 400),
        ("PATCH", "/posts/5", {"text": "x"}, 404),
        ("DELETE", "/posts/5", None, 404),
        ("POST", "/users", {"username": "mira"}, 409),
        ("POST", "/users", {"username": "Mi Ra"}, 400),
        ("POST", "/faults", {"outage_seconds": "long"}, 400),
    ],
)
def test_wrong_calls_are_refused_in_words(
    served: Served, mira: dict[str, str], method: str, path: str, document: Any, status: int
) -> None:
    answer = served.api(method, path, document, expect=status)
    assert status == 201 or answer["error"]


def test_the_page_posts_edits_and_deletes_with_plain_forms(served: Served, mira: dict[str, str]) -> None:
    status, headers, body = served.ask("GET", "/")
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert mira["token"].encode() in body
    status, headers, _ = served.form("/post", user="mira", text="<b>5 < 6</b>", draw="cat", alt='"A" cat')
    assert status == 303
    where = headers["location"]
    body = served.ask("GET", where)[2]
    assert b"&lt;b&gt;5 &lt; 6&lt;/b&gt;" in body
    assert b"<b>5" not in body
    source = re.search(rb'<img src="([^"]+)"', body)
    assert source
    assert served.ask("GET", source[1].decode().replace("&amp;", "&"))[0] == 200
    id = served.read(mira["token"]).posts[0].native_id
    assert served.form(f"/post/{id}/edit", text="Changed")[0] == 303
    assert served.read(mira["token"]).posts[0].text == "Changed"
    assert b"edited" in served.ask("GET", "/@mira")[2]
    assert served.form(f"/post/{id}/delete")[0] == 303
    assert served.ask("GET", where)[0] == 404
    assert served.form("/post", user="mira", text="")[0] == 400
    assert served.read(mira["token"], id) is False


def test_every_field_of_the_form_has_a_label(served: Served, mira: dict[str, str]) -> None:
    body = served.ask("GET", "/@mira")[2].decode()
    ids = set(re.findall(r'<(?:input|textarea|select)[^>]* id="([^"]+)"', body))
    assert ids
    assert ids <= set(re.findall(r'<label for="([^"]+)"', body))
    assert "<script" not in body
