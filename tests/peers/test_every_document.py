"""Every document that a bridge serves, read by every kind of server as it reads documents."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import httpx2
import pytest
from tests.peers import akkoma, gotosocial, lemmy, mastodon, misskey, pixelfed, takahe, threads
from tests.peers.populated import BASE, HOST, House

PEERS = [mastodon, gotosocial, misskey, akkoma, takahe, lemmy, pixelfed, threads]
every_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.NAME)
DELETED = ("deleted",)
SPELLINGS = (
    f"acct:alice@{HOST}",
    f"acct%3Aalice%40{HOST}",
    f"acct:@alice@{HOST}",
    f"alice@{HOST}",
    f"acct:ALICE@{HOST.upper()}",
    f"{BASE}/@alice",
    f"HTTPS://{HOST.upper()}/@alice",
    f"{BASE}/ap/users/1",
    f"https%3A%2F%2F{HOST}%2F%40alice",
)


@pytest.fixture(scope="module")
def notes(house: House) -> dict[str, httpx2.Response]:
    """Answers for all living posts, by what is special about them."""
    return {name: house.get(url) for name, url in house.posts.items() if name not in DELETED}


def webfinger(house: House, peer: ModuleType, resource: str) -> httpx2.Response:
    return house.get(f"{BASE}/.well-known/webfinger?resource={resource}", peer.WEBFINGER_ACCEPT)


@every_peer
@pytest.mark.parametrize("resource", SPELLINGS)
def test_webfinger_leads_to_the_actor_and_back(house: House, peer: ModuleType, resource: str) -> None:
    href = peer.check_webfinger(webfinger(house, peer, resource), f"alice@{HOST}")
    assert href == house.uri
    actor = peer.check_actor(house.get(href, peer.ACCEPT), href)
    back = f"acct:{actor['preferredUsername']}@{HOST}"
    assert peer.check_webfinger(webfinger(house, peer, back), f"alice@{HOST}") == actor["id"]
    assert actor["webfinger"] == f"alice@{HOST}"


@every_peer
def test_a_handle_with_a_dot_is_found(house: House, peer: ModuleType) -> None:
    handle = f"quiet.one@{HOST}"
    href = peer.check_webfinger(webfinger(house, peer, f"acct:{handle}"), handle)
    assert peer.check_actor(house.get(href, peer.ACCEPT), href)["preferredUsername"] == "quiet.one"


@every_peer
@pytest.mark.parametrize("resource", [f"acct:{HOST}@{HOST}", BASE, f"{BASE}/", f"{BASE}/actor"])
def test_the_servers_own_actor_is_found_and_read_unsigned(house: House, peer: ModuleType, resource: str) -> None:
    href = peer.check_webfinger(webfinger(house, peer, resource), f"{HOST}@{HOST}")
    for accept in (peer.ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8", "*/*"):
        assert peer.check_actor(house.get(href, accept), href)["type"] == "Application"


@pytest.mark.parametrize("peer", [akkoma, takahe], ids=lambda peer: peer.NAME)
@pytest.mark.parametrize(
    "accept", ["application/xrd+xml,application/jrd+json", "application/xml", "*/*", "text/html"]
)
def test_host_meta_names_webfinger(house: House, peer: ModuleType, accept: str) -> None:
    peer.check_host_meta(house.get(f"{BASE}/.well-known/host-meta", accept), BASE)


@every_peer
def test_the_number_of_followers_is_known(house: House, peer: ModuleType) -> None:
    for name, total in (("followers", 2), ("following", 0)):
        document = peer.check_fetched(house.get(f"{house.uri}/{name}", peer.ACCEPT), f"{house.uri}/{name}")
        peer.check_counts(document)
        assert document["totalItems"] == total
        page = peer.check_fetched(house.get(document["first"], peer.ACCEPT), document["first"])
        assert page["partOf"] == document["id"]
        assert page["orderedItems"] == []


@every_peer
def test_every_note_is_read(peer: ModuleType, notes: dict[str, httpx2.Response], house: House) -> None:
    for name, response in notes.items():
        try:
            peer.check_note(peer.check_fetched(response, house.posts[name]))
        except (AssertionError, KeyError, ValueError) as error:
            raise AssertionError(f"{peer.NAME} refuses {name}: {error!r}\n{response.text}") from error


@every_peer
def test_every_create_is_read(house: House, peer: ModuleType) -> None:
    for name, uri in house.posts.items():
        if name not in DELETED and not name.startswith("history"):
            peer.check_activity(peer.check_fetched(house.get(f"{uri}/activity", peer.ACCEPT), f"{uri}/activity"))


@every_peer
def test_featured_posts_and_tags_are_read(house: House, peer: ModuleType) -> None:
    actor = house.get(house.uri).json()
    featured = peer.check_fetched(house.get(actor["featured"], peer.ACCEPT), actor["featured"])
    peer.check_featured(featured)
    assert {note["id"] for note in featured["orderedItems"]} == {house.posts["poll"], house.posts["text"]}
    tags = peer.check_fetched(house.get(actor["featuredTags"], peer.ACCEPT), actor["featuredTags"])
    assert tags["totalItems"] == len(tags["items"]) > 0
    assert all(tag["type"] == "Hashtag" and tag["name"].startswith("#") for tag in tags["items"])


@every_peer
def test_the_whole_outbox_is_read_forwards_and_backwards(house: House, peer: ModuleType) -> None:
    head = peer.check_fetched(house.get(f"{house.uri}/outbox", peer.ACCEPT), f"{house.uri}/outbox")
    living = [uri for name, uri in house.posts.items() if name not in (*DELETED, "of_quiet")]
    assert head["totalItems"] == len(living)
    there = walk(house, peer, head["first"], "next")
    assert sorted(there) == sorted(living)
    back = walk(house, peer, head["last"], "prev")
    assert sorted(back) == sorted(living)


def walk(house: House, peer: ModuleType, start: str, onwards: str) -> list[str]:
    seen: list[str] = []
    url: str | None = start
    while url:
        page: dict[str, Any] = peer.check_fetched(house.get(url, peer.ACCEPT), url)
        assert page["type"] == "OrderedCollectionPage"
        assert page["partOf"] == f"{house.uri}/outbox"
        assert len(page["orderedItems"]) <= 20
        times = [activity["published"] for activity in page["orderedItems"]]
        for activity in page["orderedItems"]:
            peer.check_activity({"@context": page["@context"], **activity})
            seen.append(activity["object"]["id"])
        assert times == sorted(times, reverse=True)
        url = page.get(onwards)
        assert len(seen) < 1000, "the pages do not end"
    return seen


@every_peer
def test_replies_likes_and_shares_are_read(house: House, peer: ModuleType) -> None:
    uri = house.posts["text"]
    note = house.get(uri).json()
    for name, total in (("replies", 1), ("likes", 2), ("shares", 1)):
        assert note[name]["id"] == f"{uri}/{name}"
        collection = peer.check_fetched(house.get(f"{uri}/{name}", peer.ACCEPT), f"{uri}/{name}")
        assert collection["type"] == "Collection"
        assert collection["totalItems"] == note[name]["totalItems"] == total
    replies = house.get(f"{uri}/replies").json()["first"]
    assert len(replies["items"]) == 1
    assert replies["items"][0].startswith(house.watcher.base)
    page = peer.check_fetched(house.get(replies["id"], peer.ACCEPT), replies["id"])
    assert page["items"] == replies["items"]
    assert page["partOf"] == f"{uri}/replies"


def test_a_thread_hangs_together_in_both_directions(house: House) -> None:
    first, second, third = (house.get(house.posts[f"thread_{number}"]).json() for number in (1, 2, 3))
    assert first["inReplyTo"] is None
    assert second["inReplyTo"] == first["id"]
    assert third["inReplyTo"] == second["id"]
    assert first["replies"]["first"]["items"] == [second["id"]]
    assert first["conversation"] == second["conversation"] == third["conversation"]


def test_each_kind_of_post_says_what_is_special_about_it(house: House, notes: dict[str, httpx2.Response]) -> None:
    said = {name: response.json() for name, response in notes.items()}
    assert said["text"]["content"].startswith("<p>Hello, world &lt;3 &amp; more</p><p>Second paragraph<br>")
    assert "contentMap" not in said["no_language"]
    assert {tag["name"] for tag in said["hashtags"]["tag"]} == {"#Cats", "#猫", "#straße", "#StreetPhotography"}
    assert {tag["name"] for tag in said["mentions"]["tag"]} == {f"@alice@{HOST}", f"@quiet.one@{HOST}"}
    assert f"{BASE}/ap/users/2" in said["mentions"]["cc"]
    assert len(said["six_pictures"]["attachment"]) == 6
    assert "2 more pictures" in said["six_pictures"]["content"]
    assert said["video"]["attachment"][0]["type"] == "Video"
    assert said["video"]["attachment"][0]["duration"] == "PT12.500S"
    assert said["sound"]["attachment"][0]["type"] == "Audio"
    assert said["missing_picture"]["attachment"] == []
    assert said["poll"]["type"] == "Question"
    assert [option["replies"]["totalItems"] for option in said["poll"]["oneOf"]] == [3, 5]
    assert "closed" not in said["poll"]
    assert "closed" in said["poll_over"]
    assert said["poll_unknown"]["type"] == "Note"
    assert "<li>A</li>" in said["poll_unknown"]["content"]
    assert said["quote_of_own"]["quote"] == house.posts["text"]
    assert not {"quote", "quoteUri", "_misskey_quote"} & said["quote_elsewhere"].keys()
    assert "https://www.threads.com/@b/post/q" in said["quote_elsewhere"]["content"]
    assert "https://www.threads.com/@b/post/r" in said["repost"]["content"]
    assert said["reply_elsewhere"]["inReplyTo"] is None
    assert said["spoiler"]["sensitive"]
    assert said["spoiler"]["summary"]
    assert said["sensitive_picture"]["sensitive"]
    assert said["edited"]["updated"] > said["edited"]["published"]
    assert "After" in said["edited"]["content"]
    assert "Wörter" in said["long_text"]["content"]
    assert said["location"]["location"]["name"] == "Café <Zürich>"
    assert 'href="https://news.example/a?b=c&amp;d=e"' in said["link"]["content"]
    assert said["original"]["url"] == "https://www.threads.com/@alice/post/abc"
    assert "<script" not in said["markup"]["content"]


def test_what_is_deleted_is_a_tombstone_with_410(house: House) -> None:
    answer = house.get(house.posts["deleted"])
    assert answer.status_code == 410
    assert answer.headers["content-type"] == "application/activity+json; charset=utf-8"
    assert answer.json()["type"] == "Tombstone"
    assert answer.json()["id"] == house.posts["deleted"]
    assert answer.json()["formerType"] == "Note"
    for part in ("activity", "replies", "likes", "shares"):
        assert house.get(f"{house.posts['deleted']}/{part}").status_code == 410


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_nodeinfo_is_found_and_valid(house: House, version: str) -> None:
    schema = "http://nodeinfo.diaspora.software/ns/schema/"
    links = {link["rel"]: link["href"] for link in house.get(f"{BASE}/.well-known/nodeinfo").json()["links"]}
    assert links["https://www.w3.org/ns/activitystreams#Application"] == f"{BASE}/actor"
    answer = house.get(links[schema + version], "application/json")
    assert answer.headers["content-type"].startswith(f'application/json; profile="{schema}{version}#"')
    nodeinfo = answer.json()
    assert nodeinfo["version"] == version
    assert nodeinfo["software"]["name"] == "threadbridge"
    assert nodeinfo["software"].keys() <= {"name", "version", "repository", "homepage"}
    assert nodeinfo["protocols"] == ["activitypub"]
    assert nodeinfo["services"] == {"inbound": [], "outbound": []}
    assert nodeinfo["openRegistrations"] is False
    assert nodeinfo["usage"]["users"]["total"] == 2
    assert nodeinfo["usage"]["localPosts"] == len(house.posts) - 1
    assert isinstance(nodeinfo["metadata"], dict)


def test_robots_may_read_what_servers_read(house: House) -> None:
    answer = house.get(f"{BASE}/robots.txt", "*/*")
    closed = [line.partition(":")[2].strip() for line in answer.text.splitlines() if line.startswith("Disallow:")]
    for open_ in ("/.well-known/webfinger", "/nodeinfo/2.0", "/ap/users/1", "/media/x", "/actor", "/@alice"):
        assert not any(path and open_.startswith(path) for path in closed)
