"""Documents carry what caches, browsers and servers need: exact types, strong ETags, CORS; HEAD says the same without
the body; and the well-known addresses answer every spelling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.rig import Bridge, running_bridge

from threadbridge.domain.accounts import AccountState
from threadbridge.storage import accounts, posts
from threadbridge.storage.store import Tx

ACTIVITY = "application/activity+json; charset=utf-8"
SCHEMA = "http://nodeinfo.diaspora.software/ns/schema"
TYPES = {
    "/ap/users/1": ACTIVITY,
    "/ap/users/1/outbox": ACTIVITY,
    "/ap/users/1/outbox?page=true": ACTIVITY,
    "/ap/users/1/followers": ACTIVITY,
    "/ap/users/1/followers?page=1": ACTIVITY,
    "/ap/users/1/following": ACTIVITY,
    "/ap/users/1/collections/featured": ACTIVITY,
    "/ap/users/1/collections/tags": ACTIVITY,
    "/ap/users/1/posts/1": ACTIVITY,
    "/ap/users/1/posts/1/activity": ACTIVITY,
    "/ap/users/1/posts/1/replies": ACTIVITY,
    "/ap/users/1/posts/1/replies?page=1": ACTIVITY,
    "/ap/users/1/posts/1/likes": ACTIVITY,
    "/ap/users/1/posts/1/shares": ACTIVITY,
    "/actor": ACTIVITY,
    "/actor/outbox": ACTIVITY,
    "/@alice": ACTIVITY,
    "/.well-known/webfinger?resource=acct:alice@HOST": "application/jrd+json; charset=utf-8",
    "/.well-known/nodeinfo": "application/json",
    "/nodeinfo/2.0": f'application/json; profile="{SCHEMA}/2.0#"; charset=utf-8',
    "/nodeinfo/2.1": f'application/json; profile="{SCHEMA}/2.1#"; charset=utf-8',
    "/robots.txt": "text/plain; charset=utf-8",
}


class Kept(Bridge):
    """A bridge that is asked over one kept connection: this table is long."""

    client = httpx2.Client(trust_env=False)

    def get(self, path: str, accept: str = "application/activity+json", **headers: str) -> httpx2.Response:
        return self.client.get(self.base + path, headers={"Accept": accept, **headers})


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """One for all: nothing here is changed by a test but by those that make their own account."""
    folder: Path = tmp_path_factory.mktemp("documents")
    with running_bridge(folder, worker=False) as running:
        running.post(running.account(), "Hello")
        gone = running.account("gone")

        def delete(tx: Tx) -> None:
            accounts.set_state(tx, gone.id, AccountState.GONE, "test")

        running.ground.store.transact_now(delete)
        yield Kept(running.loop, running.ground, running.services, running.base)


def address(bridge: Bridge, path: str) -> str:
    return path.replace("HOST", bridge.authority)


@pytest.mark.parametrize("path", TYPES)
def test_a_document_has_its_type_its_etag_and_is_open_to_scripts(bridge: Bridge, path: str) -> None:
    answer = bridge.get(address(bridge, path))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[path]
    etag = answer.headers["etag"]
    assert etag.startswith('"')
    assert etag.endswith('"')
    assert len(etag) > 20
    assert answer.headers["vary"] == "Accept"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"].startswith("public, max-age=")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert bridge.get(address(bridge, path)).headers["etag"] == etag
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", TYPES)
@pytest.mark.parametrize("held", ["{}", "W/{}", '"other", {}', "*"])
def test_who_has_it_is_told_so_in_a_line(bridge: Bridge, path: str, held: str) -> None:
    url = address(bridge, path)
    answer = bridge.get(url)
    same = bridge.get(url, **{"If-None-Match": held.format(answer.headers["etag"])})
    assert same.status_code == 304
    assert same.content == b""
    for name in ("etag", "vary", "cache-control", "access-control-allow-origin"):
        assert same.headers[name] == answer.headers[name]
    assert bridge.get(url, **{"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", TYPES)
def test_head_says_the_same_without_the_body(bridge: Kept, path: str) -> None:
    url = bridge.base + address(bridge, path)
    headers = {"Accept": "application/activity+json"}
    for _ in range(2):
        head = bridge.client.head(url, headers=headers)
        got = bridge.client.get(url, headers=headers)
        assert head.status_code == got.status_code == 200
        assert head.content == b""
        assert int(head.headers["content-length"]) == len(got.content)
        ours = {name: value for name, value in head.headers.items() if name != "date"}
        assert ours == {name: value for name, value in got.headers.items() if name != "date"}
        unchanged = bridge.client.head(url, headers={**headers, "If-None-Match": got.headers["etag"]})
        assert unchanged.status_code == 304


# ── being found ──────────────────────────────────────────────────────────────────────────────────────────────────


def webfinger(bridge: Bridge, resource: str, accept: str = "application/jrd+json") -> httpx2.Response:
    return bridge.get(f"/.well-known/webfinger?resource={resource}", accept)


@pytest.mark.parametrize(
    "accept",
    [
        "application/jrd+json",
        "application/xrd+xml,application/jrd+json",
        "application/xrd+xml",
        "text/html",
        "*/*",
        "",
    ],
)
def test_webfinger_answers_jrd_whatever_is_asked(bridge: Bridge, accept: str) -> None:
    answer = webfinger(bridge, f"acct:alice@{bridge.authority}", accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jrd+json; charset=utf-8"


@pytest.mark.parametrize(
    "resource",
    [
        "acct:alice@HOST", "acct%3Aalice%40HOST", "acct:@alice@HOST", "alice@HOST", "@alice@HOST", "acct:Alice@HOST",
        "ACCT:ALICE@HOST", "http://HOST/@alice", "http://HOST/@ALICE", "HTTP://HOST/ap/users/1",
        "http://HOST/ap/users/1", "http%3A%2F%2FHOST%2F%40alice",
    ],
)  # fmt: skip
def test_webfinger_knows_every_spelling_and_answers_with_one(bridge: Bridge, resource: str) -> None:
    answer = webfinger(bridge, address(bridge, resource))
    assert answer.status_code == 200, answer.text
    assert answer.json()["subject"] == f"acct:alice@{bridge.authority}"
    selves = [link for link in answer.json()["links"] if link["rel"] == "self"]
    assert selves == [{"rel": "self", "type": "application/activity+json", "href": f"{bridge.base}/ap/users/1"}]
    assert answer.json()["links"][0] == selves[0]


@pytest.mark.parametrize("resource", ["http://HOST", "http://HOST/", "http://HOST/actor", "acct:HOST@HOST"])
def test_webfinger_knows_the_server_itself(bridge: Bridge, resource: str) -> None:
    answer = webfinger(bridge, address(bridge, resource))
    hrefs = {link["rel"]: link["href"] for link in answer.json()["links"]}
    assert hrefs["self"] == hrefs["https://www.w3.org/ns/activitystreams#Service"] == f"{bridge.base}/actor"


@pytest.mark.parametrize(
    ("resource", "status"),
    [
        ("", 400), ("alice", 400), ("acct:", 400), ("acct:@HOST", 400), ("acct:alice@", 400), ("mailto:a", 400),
        ("ftp://alice@HOST", 400), ("%00", 400), ("acct:a%00b@HOST", 400),
        ("acct:nobody@HOST", 404), ("acct:alice@elsewhere.example", 404), ("http://HOST/ap/users/999", 404),
        ("http://HOST/nothing", 404), ("https://elsewhere.example/@alice", 404), ("acct:alice/@HOST", 404),
        ("acct:gone@HOST", 410), ("http://HOST/@gone", 410), ("http://HOST/ap/users/2", 410),
    ],
)  # fmt: skip
def test_webfinger_says_why_not(bridge: Bridge, resource: str, status: int) -> None:
    answer = webfinger(bridge, address(bridge, resource))
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert answer.headers["access-control-allow-origin"] == "*"
    # Asked for again: a refusal is never kept as something else.
    assert webfinger(bridge, address(bridge, resource)).status_code == status


def test_webfinger_without_a_resource_is_a_bad_request(bridge: Bridge) -> None:
    assert bridge.get("/.well-known/webfinger").status_code == 400


@pytest.mark.parametrize("path", ["/ap/users/2", "/ap/users/2/outbox", "/ap/users/2/followers", "/@gone"])
def test_a_deleted_account_is_gone_and_not_unknown(bridge: Bridge, path: str) -> None:
    answer = bridge.get(path)
    assert answer.status_code == 410
    if path == "/ap/users/2":
        assert (answer.json()["type"], answer.json()["id"]) == ("Tombstone", f"{bridge.base}{path}")
    elif path != "/@gone":
        assert answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/.well-known/host-meta", "*/*", "application/xrd+xml; charset=utf-8"),
        ("/.well-known/host-meta", "application/xrd+xml", "application/xrd+xml; charset=utf-8"),
        ("/.well-known/host-meta", "application/xml", "application/xrd+xml; charset=utf-8"),
        ("/.well-known/host-meta", "application/xrd+xml,application/jrd+json", "application/xrd+xml; charset=utf-8"),
        ("/.well-known/host-meta", "application/json", "application/json"),
        ("/.well-known/host-meta.json", "*/*", "application/json"),
    ],
)
def test_host_meta_is_xml_unless_json_was_asked(bridge: Bridge, path: str, accept: str, kind: str) -> None:
    answer = bridge.get(path, accept)
    assert answer.headers["content-type"] == kind
    assert f"{bridge.base}/.well-known/webfinger?resource={{uri}}" in answer.text
    assert answer.headers["access-control-allow-origin"] == "*"


def test_nodeinfo_has_no_other_versions(bridge: Bridge) -> None:
    for version in ("1.0", "2.2", "x"):
        assert bridge.get(f"/nodeinfo/{version}").status_code == 404


@pytest.mark.parametrize("place", ["", "x", "1", "1-", "-1", "1-x", "9" * 17 + "-1", "1-" + "9" * 18, "%D9%A3-1"])
def test_a_page_address_that_we_never_wrote_is_refused(bridge: Bridge, place: str) -> None:
    for name in ("before", "after"):
        answer = bridge.get(f"/ap/users/1/outbox?page=true&{name}={place}")
        assert answer.status_code == 400
        assert answer.json()["error"]


@pytest.mark.parametrize("place", ["0-0", "9999999999999999-1", "1-99999999999999999"])
def test_pages_beyond_both_ends_are_lists(bridge: Bridge, place: str) -> None:
    for name in ("before", "after"):
        page = bridge.get(f"/ap/users/1/outbox?page=true&{name}={place}").json()
        assert page["type"] == "OrderedCollectionPage"
        assert isinstance(page["orderedItems"], list)


def test_addresses_with_a_nul_are_refused_before_any_database_sees_them(bridge: Bridge) -> None:
    for path in ("/@al%00ice", "/tags/%00", "/ap/users/1/outbox?page=%00", "/media/%00.jpg"):
        assert bridge.get(path).status_code == 400


def test_pins_come_before_the_newest(bridge: Bridge) -> None:
    account = bridge.account("pinner")
    uris = [bridge.post(account, f"Post {number}") for number in range(8)]
    url = f"/ap/users/{account.id}/collections/featured"
    assert len(bridge.get(url).json()["orderedItems"]) == 5

    def pin(tx: Tx) -> None:
        posts.pin(tx, account.id, int(uris[0].rpartition("/")[2]))
        accounts.touch(tx, account.id)

    bridge.ground.store.transact_now(pin)
    assert [note["id"] for note in bridge.get(url).json()["orderedItems"]] == [uris[0]]
