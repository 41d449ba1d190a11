"""Receipts, people and archives on the owner's pages."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from tests.browser.site import Site, field_of, furnish, running_site, same_origin
from tests.rig import Bridge, eventually

from threadbridge.domain.accounts import Account
from threadbridge.storage import connections, exports, followers, reactions, schema
from threadbridge.storage.ledger import Receipt
from threadbridge.storage.store import Tx
from threadbridge.web import receipts


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("happened")) as running:
        yield running


@pytest.fixture(scope="module")
def marta(site: Site) -> Account:
    return furnish(site)


def test_receipts_in_words() -> None:
    held = [
        Receipt("Create", "delivered", None, 812),
        Receipt("Create", "waiting", "it answered 503", 14),
        Receipt("Create", "refused", "it answered 401", 3),
        Receipt("Create", "refused", "it answered 403", 1),
        Receipt("Delete", "gone", None, 1),
    ]
    post, deletion = receipts.sentences(held)
    assert post.words == (
        "delivered to 812 of 830 servers; 14 waiting: it answered 503; "
        "4 refused: it answered 401 (3), it answered 403 (1)"
    )
    assert (post.delivered, post.waiting, post.failed, post.total) == (812, 14, 4, 830)
    assert (deletion.kind, deletion.words) == ("The deletion", "delivered to 0 of 1 server; 1 no longer there")
    assert (post.mood, deletion.mood) == ("wait", "bad")
    assert receipts.sentences([Receipt("Create", "delivered", None, 1)])[0].mood == "good"
    assert receipts.sentences([]) == []
    assert (
        receipts.tally({"delivered": 2, "given_up": 1}) == "delivered to 2 of 3 servers; 1 given up after many tries"
    )


def test_every_state_of_the_ledger_has_its_words() -> None:
    constraint = next(c for c in schema.deliveries.constraints if "state IN" in str(getattr(c, "sqltext", "")))
    states = set(re.findall(r"'(\w+)'", str(constraint.sqltext)))  # type: ignore[attr-defined]
    assert states == set(receipts.STATES)


def test_the_overview_says_what_became_of_the_newest_posts(site: Site, marta: Account) -> None:
    with site.signed_in(marta) as client:
        page = html.unescape(client.get("/owner").text)
        assert (
            "The post: delivered to 8 of 11 servers; 2 waiting: it did not answer in time; 1 refused: it answered 401"
            in page
        )
        assert "Part of the history: shown here, never sent out" in page
        assert "<strong>4</strong> followers" in page
        assert "Only for you: thank you." in page
        one = html.unescape(client.get(f"/owner/posts/{site.numbers['newest']}").text)
        assert "delivered to 8 of 11 servers" in one
        said = html.unescape(client.get("/owner/deliveries").text)
        assert "Delivered to 8 of 11 servers; 2 waiting; 1 refused" in said
        problems = html.unescape(client.get("/owner/deliveries?show=problems").text)
        assert problems.count('<p class="receipt ') == 3
        assert "Friend 1" in client.get("/owner/followers").text
        assert "What a light!" in client.get("/owner/replies").text
        assert client.get("/owner/heard?show=boosts").text.count("boosted") == 1
        assert client.get("/owner/heard?show=likes").text.count("liked") == 4


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("sign_in_again", "Threads wants you to sign in again"),
        ("rate_limited", "Threads asks for a pause"),
        ("unreachable", "Threads cannot be reached just now"),
        (None, "bridged within moments"),
    ],
)
def test_trouble_with_the_source_is_said_in_words(site: Site, trouble: str | None, words: str) -> None:
    account = site.bridge.account(f"t_{trouble or 'none'}")
    site.write(
        connections.connect, site.bridge.ground.vault, account.id, source="threads", native_id=f"n{account.id}",
        graph_url="http://127.0.0.1:1", access_token="very-secret-token", since=datetime.now(UTC),
    )  # fmt: skip
    if trouble:
        site.write(connections.read_badly, account.id, trouble, "Session has expired")
    with site.signed_in(account) as client:
        page = client.get("/owner").text
        assert words in page
        assert "very-secret-token" not in page
        assert ("Session has expired" in page) == bool(trouble)


def test_lists_are_paged_without_gap_or_repetition(bridge: Bridge) -> None:
    """On both databases."""
    site = Site(bridge)
    account = site.bridge.account("loved")
    number = site.post(account, "Hello", silent=False)
    for index in range(60):
        peer = site.peer(index)
        site.write(followers.follow, account.id, peer, f"{peer.uri}/follows/1")
        site.write(reactions.react, account.id, number, peer.uri, "like", f"{peer.uri}/likes/1")
        site.answer(account, number, peer, f"<p>answer-{index}.</p>", number=index)
        site.post(account, f"post-{index}.", minutes=index // 9)
    site.delivered(account, number, [("refused", "no")] * 60)
    expected = {str(index) for index in range(60)}
    lists = {
        "/owner/followers": r">Friend (\d+)<",
        "/owner/heard?show=likes": r">Friend (\d+)<",
        "/owner/replies": r"answer-(\d+)\.",
        "/owner/posts": r"post-(\d+)\.",
        "/owner/deliveries?show=problems": r'"name">server(\d+)\.example',
    }
    with site.signed_in(account) as client:
        for path, pattern in lists.items():
            seen: list[str] = []
            address: str | None = path
            while address:
                page = client.get(address)
                assert page.status_code == 200, address
                seen += re.findall(pattern, page.text)
                following = re.search(r'<a rel="next" href="([^"]+)"', page.text)
                address = html.unescape(following[1]) if following else None
            assert len(seen) == 60, path
            assert set(seen) == expected, path


# ── archives ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _when_ready(client: httpx2.Client, place: str) -> str | None:
    page = client.get(place).text
    return page if "is ready" in page else None


def test_an_archive_is_asked_for_watched_and_downloaded(bridge: Bridge) -> None:
    """With the real worker, on both databases."""
    site = Site(bridge)
    account = site.bridge.account("packer")
    site.post(account, "Take me with you", media=[])
    with site.signed_in(account) as client:
        fields = {"form_token": field_of(client.get("/owner/export").text, "form_token")}
        asked = client.post("/owner/export", data=fields, headers=same_origin(site.base))
        assert asked.status_code == 303
        place = asked.headers["location"]
        page = eventually(lambda: _when_ready(client, place), 30)
        assert "http-equiv" not in page
        link = html.unescape(re.search(r'<a class="button main" href="([^"]+)"', page)[1])  # type: ignore[index]
        assert "Ready" in client.get("/owner/export").text
    whole = httpx2.get(link, trust_env=False)
    assert whole.status_code == 200
    assert whole.headers["etag"] == f'"sha256-{hashlib.sha256(whole.content).hexdigest()}"'
    assert hashlib.sha256(whole.content).hexdigest() in page


def _finished(site: Site, account: Account, body: bytes) -> int:
    """A finished archive of these bytes; returns its number."""

    def put(tx: Tx) -> int:
        number = exports.create(tx, account.id)
        sha256 = hashlib.sha256(body).hexdigest()
        exports.set_ready(tx, number, file=f"{number}-{'0' * 32}.zip", size=len(body), sha256=sha256)
        return number

    number: int = site.write(put)
    folder = site.bridge.ground.config.data_dir / "exports"
    folder.mkdir(exist_ok=True)
    (folder / f"{number}-{'0' * 32}.zip").write_bytes(body)
    return number


@pytest.fixture(scope="module")
def archive(site: Site, marta: Account) -> bytes:
    """A finished archive of marta's, its number in site.numbers['export']."""
    body = bytes(range(256)) * 400
    site.numbers["export"] = _finished(site, marta, body)
    return body


def _link(site: Site, account: Account, number: int | None = None) -> str:
    with site.signed_in(account) as client:
        page = client.get(f"/owner/export/{number or site.numbers['export']}").text
    return html.unescape(re.search(r'<a class="button main" href="([^"]+)"', page)[1])  # type: ignore[index]


def test_a_download_can_go_on_where_it_stopped(site: Site, marta: Account, archive: bytes) -> None:
    link = _link(site, marta)
    whole = httpx2.get(link, trust_env=False)
    assert whole.content == archive
    etag = f'"sha256-{hashlib.sha256(archive).hexdigest()}"'
    assert whole.headers["etag"] == etag
    assert whole.headers["accept-ranges"] == "bytes"
    assert "no-store" in whole.headers["cache-control"]
    assert "private" in whole.headers["cache-control"]
    assert re.fullmatch(r'attachment; filename="marta-[-0-9]+\.zip"', whole.headers["content-disposition"])
    assert whole.headers["content-type"] == "application/zip"
    head = httpx2.head(link, trust_env=False)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(archive)))

    def ranged(value: str, **more: str) -> httpx2.Response:
        return httpx2.get(link, headers={"Range": value, **more}, trust_env=False)

    rest = ranged("bytes=1000-", **{"If-Range": etag})
    assert (rest.status_code, rest.content) == (206, archive[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(archive) - 1}/{len(archive)}"
    assert ranged("bytes=0-9").content == archive[:10]
    assert ranged("bytes=-5").content == archive[-5:]
    assert ranged("bytes=0-9", **{"If-Range": '"another"'}).status_code == 200
    assert ranged(f"bytes={len(archive)}-").status_code == 416
    for odd in ("bytes=a-b", "lines=1-2", "bytes=1-2,4-5", "bytes"):
        assert (ranged(odd).status_code, ranged(odd).content) == (200, archive), odd
    assert httpx2.get(link, headers={"If-None-Match": etag}, trust_env=False).status_code == 304


def test_links_that_do_not_fit_are_all_answered_alike(site: Site, marta: Account, archive: bytes) -> None:
    link = _link(site, marta)
    other_account = site.bridge.account("other")
    number = _finished(site, other_account, b"somebody else's")
    theirs = _link(site, other_account, number)
    assert httpx2.get(theirs, trust_env=False).content == b"somebody else's"
    unfinished = site.write(exports.create, other_account.id)
    path, _, signature = link.partition("?sig=")
    name = path.rpartition("/")[2]
    wrong = [
        path,
        f"{path}?sig=",
        f"{path}?sig={signature[:-2]}",
        f"{path}?sig=%01",
        f"{path}?sig={'A' * 4000}",
        f"{theirs.partition('?')[0]}?sig={signature}",
        f"{path}?sig={theirs.partition('?sig=')[2]}",
        theirs.replace(f"/{number}/", f"/{unfinished}/"),
        f"{site.base}/owner/export/999999/{name}?sig={signature}",
        f"{path.removesuffix(name)}other.zip?sig={signature}",
    ]
    answers = [site.get(address) for address in wrong]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    with site.signed_in(other_account) as client:
        assert client.get(f"/owner/export/{site.numbers['export']}").status_code == 404


def test_a_link_to_an_archive_ends(
    site: Site, marta: Account, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = _link(site, marta)
    store = site.bridge.ground.store
    clock = store.clock
    assert httpx2.head(link, trust_env=False).status_code == 200
    monkeypatch.setattr(store, "clock", lambda: clock() + timedelta(hours=24, seconds=5))
    assert site.get(link).status_code == 404


def test_an_archive_under_way_is_shown_with_its_progress_and_a_failed_one_with_its_reason(
    site: Site, marta: Account
) -> None:
    number = site.write(exports.create, marta.id)
    with site.signed_in(marta) as client:
        waiting = client.get(f"/owner/export/{number}").text
        assert '<meta http-equiv="refresh" content="2">' in waiting
        site.write(exports.set_progress, number, "media", 30, 120)
        building = client.get(f"/owner/export/{number}").text
        assert '<progress max="120" value="30"' in building
        site.write(exports.set_failed, number, "No space is left")
        failed = client.get(f"/owner/export/{number}").text
        assert "No space is left" in failed
        assert "http-equiv" not in failed
