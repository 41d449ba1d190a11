"""Atom and JSON Feed: what the pages show, whole, with permanent ids."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from xml.etree import ElementTree

import pytest
from tests.browser.site import MALICE, Site, furnish, malicious, running_site

from threadbridge.domain.accounts import Account
from threadbridge.storage import accounts, posts, reactions

NEWEST_FIRST = [
    "newest",
    "quote",
    "picture",
    "carousel",
    "sensitive",
    "poll",
    "spoiler",
    "third",
    "second",
    "first",
    "old",
]  # as `furnish` posts them
A = "{http://www.w3.org/2005/Atom}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("feeds")) as running:
        yield running


@pytest.fixture(scope="module")
def marta(site: Site) -> Account:
    return furnish(site)


def _atom(site: Site, address: str) -> ElementTree.Element:
    answer = site.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/atom+xml; charset=utf-8"
    return ElementTree.fromstring(answer.content)


def _one(element: ElementTree.Element, path: str) -> ElementTree.Element:
    """The only element at a path: RFC 4287 forbids a second one."""
    found = element.findall(path)
    assert len(found) == 1, path
    return found[0]


def test_the_atom_feed_is_valid_and_whole(site: Site, marta: Account) -> None:
    feed = _atom(site, "/@marta/feed.atom")
    ids = site.bridge.ground.ids
    assert _one(feed, f"{A}id").text == ids.actor(marta.id)
    assert _one(feed, f"{A}title").text == "Marta Lindqvist"
    assert _one(feed, f"{A}author/{A}name").text == "Marta Lindqvist"
    links = {link.get("rel"): link.get("href") for link in feed.findall(f"{A}link")}
    assert links == {"self": f"{site.base}/@marta/feed.atom", "alternate": f"{site.base}/@marta"}
    entries = feed.findall(f"{A}entry")
    assert [_one(entry, f"{A}id").text for entry in entries] == [
        ids.post(marta.id, site.numbers[name])
        for name in NEWEST_FIRST
    ]  # fmt: skip
    for entry in entries:
        for name in ("published", "updated"):
            assert datetime.fromisoformat(_one(entry, f"{A}{name}").text or "").tzinfo
        assert _one(entry, f"{A}title").text
        assert _one(entry, f"{A}content").get("type") == "html"
    newest = max(_one(entry, f"{A}updated").text or "" for entry in entries)
    assert _one(feed, f"{A}updated").text == newest
    carousel = entries[3]
    enclosures = [link for link in carousel.findall(f"{A}link") if link.get("rel") == "enclosure"]
    assert [link.get("title") for link in enclosures][:2] == [
        "The market, drawn in flat colours",
        "The coffee, drawn in flat colours",
    ]
    assert all(int(link.get("length") or 0) > 1000 and link.get("type") == "image/jpeg" for link in enclosures)
    content = _one(carousel, f"{A}content").text or ""
    assert content.count("<img ") == 6
    assert "Six corners of the market hall" in content


def test_the_json_feed_says_the_same(site: Site, marta: Account) -> None:
    answer = site.get("/@marta/feed.json")
    assert answer.headers["content-type"] == "application/feed+json; charset=utf-8"
    feed = answer.json()
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    assert feed["feed_url"] == f"{site.base}/@marta/feed.json"
    assert feed["home_page_url"] == f"{site.base}/@marta"
    assert "next_url" not in feed
    atom = _atom(site, "/@marta/feed.atom")
    assert [item["id"] for item in feed["items"]] == [e.text for e in atom.findall(f"{A}entry/{A}id")]
    assert [item["content_html"] for item in feed["items"]] == [e.text for e in atom.findall(f"{A}entry/{A}content")]
    picture = feed["items"][2]
    assert picture["language"] == "en"
    assert picture["attachments"][0]["title"] == "A harbour at sunrise: cranes, a ferry, flat water"
    assert picture["attachments"][0]["size_in_bytes"] > 1000
    assert picture["image"] == picture["attachments"][0]["url"]
    assert "image" not in feed["items"][4], "a sensitive picture is the preview"


def test_unchanged_feeds_are_answered_304_and_a_like_changes_nothing(site: Site, marta: Account) -> None:
    for path in ("/@marta/feed.atom", "/@marta/feed.json"):
        etag = site.get(path).headers["etag"]
        assert etag.startswith('"')
        admirer = site.peer(50)
        site.write(reactions.react, marta.id, site.numbers["old"], admirer.uri, "like", f"{admirer.uri}/{path}")
        again = site.get(path, **{"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")


def test_feeds_are_paged_by_next(site: Site) -> None:
    account = site.bridge.account("writer")
    numbers = [site.post(account, f"Post {index}", minutes=index // 5) for index in range(45)]
    ids = site.bridge.ground.ids
    expected = [ids.post(account.id, number) for number in reversed(numbers)]
    seen: list[str] = []
    address: str | None = "/@writer/feed.json"
    while address:
        page = site.get(address).json()
        seen += [item["id"] for item in page["items"]]
        address = page.get("next_url")
    assert seen == expected
    seen, address = [], "/@writer/feed.atom"
    while address:
        feed = _atom(site, address)
        seen += [entry.text or "" for entry in feed.findall(f"{A}entry/{A}id")]
        address = next((link.get("href") for link in feed.findall(f"{A}link") if link.get("rel") == "next"), None)
    assert seen == expected


def test_a_feed_stays_readable_whatever_was_posted(site: Site) -> None:
    """Control characters have no form in XML at all; markup in names and texts is text."""
    account = malicious(site)
    site.post(account, "bell \x07, null-ish \x0b, escape \x1b[31m, \ufffe", minutes=99)
    feed = _atom(site, "/@mallory/feed.atom")
    assert _one(feed, f"{A}title").text == " ".join(MALICE)
    assert "bell , null-ish , escape [31m, " in (feed.findall(f"{A}entry/{A}content")[0].text or "")
    for entry in feed.findall(f"{A}entry/{A}content"):
        assert "<script" not in (entry.text or "")
        assert "<svg" not in (entry.text or "")
    assert site.get("/@mallory/feed.json").json()["title"] == " ".join(MALICE)


def test_an_empty_profile_has_an_empty_feed(site: Site) -> None:
    site.bridge.account("silent")
    assert _atom(site, "/@silent/feed.atom").findall(f"{A}entry") == []
    assert site.get("/@silent/feed.json").json()["items"] == []
    assert site.get("/@nobody/feed.atom").status_code == 404


def test_a_deleted_post_leaves_the_feed_and_an_edit_moves_its_time(site: Site) -> None:
    account = site.bridge.account("editor")
    gone, stays = site.post(account, "Gone soon"), site.post(account, "Stays")
    site.write(posts.bury, account.id, gone)
    site.write(accounts.touch, account.id)
    items = site.get("/@editor/feed.json").json()["items"]
    assert [item["id"] for item in items] == [site.bridge.ground.ids.post(account.id, stays)]
    assert "date_modified" not in items[0]
