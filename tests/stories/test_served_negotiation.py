"""One address answers people with a page and servers with a document, each as it asked, whatever was asked before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.rig import Bridge, running_bridge

AS = "https://www.w3.org/ns/activitystreams"
DOCUMENT, PAGE = "application/activity+json; charset=utf-8", "text/html; charset=utf-8"
SERVERS = {
    "mastodon fetch": "application/activity+json, application/ld+json",
    "mastodon search": f'application/ld+json; profile="{AS}", application/activity+json, text/html;q=0.1',
    "gotosocial": f'application/ld+json; profile="{AS}",application/activity+json',
    "misskey": f'application/activity+json, application/ld+json; profile="{AS}"',
    "lemmy": "application/activity+json",
    "ld+json without a profile": "application/ld+json",
    "plain json": "application/json",
    "script in a browser": "application/json, text/plain, */*",
    "page first, but less": "text/html;q=0.5, application/activity+json",
    "capitals": "Application/Activity+JSON",
}
PEOPLE = {
    "firefox": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "chromium": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7",
    "curl": "*/*",
    "nothing at all": "",
    "refused": "application/activity+json;q=0, text/html",
    "document, but less": "application/activity+json;q=0.3, text/html",
}


class Kept(Bridge):
    """A bridge that is asked over one kept connection: this table is long."""

    client = httpx2.Client(trust_env=False)

    def get(self, path: str, accept: str = "application/activity+json", **headers: str) -> httpx2.Response:
        url = path if path.startswith("http") else self.base + path
        return self.client.get(url, headers={"Accept": accept, **headers})


Scene = tuple[Kept, list[str], list[str]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A bridge, the human addresses of a profile and a post, and their ids."""
    folder: Path = tmp_path_factory.mktemp("negotiated")
    with running_bridge(folder, worker=False) as bridge:
        account = bridge.account()
        uri = bridge.post(account, "Hello")
        kept = Kept(bridge.loop, bridge.ground, bridge.services, bridge.base)
        yield kept, ["/@alice", f"/@alice/{uri.rpartition('/')[2]}"], [bridge.ground.ids.actor(account.id), uri]


@pytest.mark.parametrize("accept", SERVERS.values(), ids=SERVERS)
def test_servers_get_the_document(scene: Scene, accept: str) -> None:
    bridge, pages, ids = scene
    answer = bridge.get(pages[0], accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == DOCUMENT
    assert answer.headers["vary"] == "Accept"
    assert answer.json()["id"] == ids[0]
    # A post's own `url` is at its source: GoToSocial takes it only where a redirect ends at its id.
    sent_on = bridge.get(pages[1], accept)
    assert sent_on.status_code == 302
    assert sent_on.headers["location"] == ids[1]
    assert sent_on.headers["vary"] == "Accept"
    assert bridge.get(ids[1], accept).json()["id"] == ids[1]


@pytest.mark.parametrize("accept", PEOPLE.values(), ids=PEOPLE)
def test_people_get_the_page_with_the_way_to_the_document(scene: Scene, accept: str) -> None:
    bridge, pages, ids = scene
    for path, uri in zip(pages, ids, strict=True):
        answer = bridge.get(path, accept)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == PAGE
        assert answer.headers["vary"] == "Accept"
        assert answer.headers["link"] == f'<{uri}>; rel="alternate"; type="application/activity+json"'
        assert f'<link rel="alternate" type="application/activity+json" href="{uri}">' in answer.text


def test_what_was_asked_before_confuses_nobody(scene: Scene) -> None:
    bridge, pages, ids = scene
    for path, other in zip(pages, (DOCUMENT, ids[1]), strict=True):
        answers = [
            bridge.get(path, accept)
            for accept in (DOCUMENT, PEOPLE["firefox"], DOCUMENT, PEOPLE["curl"], DOCUMENT, PEOPLE["firefox"])
        ]
        found = [answer.headers.get("location") or answer.headers["content-type"] for answer in answers]
        assert found == [other, PAGE] * 3


def test_the_two_forms_have_different_etags_and_neither_is_mistaken_for_the_other(scene: Scene) -> None:
    bridge, (path, _), _ = scene
    document, page = bridge.get(path, DOCUMENT), bridge.get(path, PEOPLE["firefox"])
    assert document.headers["etag"] != page.headers["etag"]
    crossed = {"If-None-Match": document.headers["etag"]}
    assert bridge.get(path, PEOPLE["firefox"], **crossed).status_code == 200
    assert bridge.get(path, DOCUMENT, **crossed).status_code == 304


@pytest.mark.parametrize("accept", [*SERVERS.values(), *PEOPLE.values()])
def test_an_id_answers_with_the_document_to_all_but_browsers(scene: Scene, accept: str) -> None:
    bridge, pages, ids = scene
    browser = accept in PEOPLE.values() and "text/html" in accept
    for uri, page in (*zip(ids, pages, strict=True), (f"{bridge.base}/actor", None)):
        answer = bridge.get(uri, accept)
        if browser and page is not None:
            # A person who follows an id: sent to the page, and no cache keeps that for anybody else.
            assert (answer.status_code, answer.headers["location"]) == (302, bridge.base + page)
            assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Accept", "no-store")
            continue
        assert answer.headers["content-type"] == DOCUMENT
        assert answer.json()["id"] == uri


@pytest.mark.parametrize(
    "path", ["/@alice/", "/@nobody", "/@alice/99999999", "/@alice/1/", "/nothing", "/tags/nothing"]
)
def test_what_is_not_there_is_told_in_the_form_that_was_asked(scene: Scene, path: str) -> None:
    bridge = scene[0]
    page, document = bridge.get(path, PEOPLE["firefox"]), bridge.get(path, SERVERS["mastodon fetch"])
    assert page.status_code == document.status_code == 404
    assert page.headers["content-type"] == PAGE
    assert "<html" in page.text
    assert document.headers["content-type"] == "application/json"
    assert document.json()["error"]
    assert bridge.get(path, "*/*").headers["content-type"] == "application/json"


@pytest.mark.parametrize("suffix", ["/", "/outbox/", "/followers/", "/inbox/", "/posts/1/", "/collections/featured/"])
def test_there_are_no_variants_with_a_slash(scene: Scene, suffix: str) -> None:
    bridge, _, ids = scene
    answer = bridge.get(ids[0] + suffix)
    assert answer.status_code == 404
    assert answer.json()["error"]


@pytest.mark.parametrize("number", ["0", "01", "1x", "-1", "1.0", "9" * 19, "%31%2F", "٣"])
def test_one_thing_has_one_address(scene: Scene, number: str) -> None:
    bridge = scene[0]
    assert bridge.get(f"/ap/users/{number}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/ap/users/1/inbox", {"POST"}),
        ("GET", "/ap/inbox", {"POST"}),
        ("HEAD", "/ap/inbox", {"POST"}),
        ("GET", "/actor/inbox", {"POST"}),
        ("POST", "/ap/users/1", {"GET", "HEAD"}),
        ("POST", "/ap/users/1/outbox", {"GET", "HEAD"}),
        ("PUT", "/ap/users/1/posts/1", {"GET", "HEAD"}),
        ("DELETE", "/.well-known/webfinger", {"GET", "HEAD"}),
        ("POST", "/@alice", {"GET", "HEAD"}),
        ("OPTIONS", "/nodeinfo/2.0", {"GET", "HEAD"}),
        ("PATCH", "/media/x.jpg", {"GET", "HEAD"}),
    ],
)
def test_what_is_not_possible_says_what_is(scene: Scene, method: str, path: str, allowed: set[str]) -> None:
    bridge = scene[0]
    for accept, kind in (("application/activity+json", "application/json"), (PEOPLE["firefox"], None)):
        answer = bridge.client.request(method, bridge.base + path, headers={"Accept": accept})
        assert answer.status_code == 405
        assert {part.strip() for part in answer.headers["allow"].split(",")} == allowed
        assert kind is None or answer.headers["content-type"] == kind
        assert kind is None or method == "HEAD" or answer.json()["error"]
