"""The owner's door: a link that works once, a cookie that can be revoked, forms that only our own pages can send."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from http.cookies import SimpleCookie

import httpx2
import pytest
from starlette.responses import Response
from tests.browser.site import Site, field_of, running_site, same_origin

from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.storage import accounts, posts, schema
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import token_hash
from threadbridge.web import owner, sessions


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("owner")) as running:
        yield running


@pytest.fixture(scope="module")
def alice(site: Site) -> Account:
    return site.bridge.account("alice")


@pytest.fixture(scope="module")
def carol(site: Site) -> Account:
    return site.bridge.account("carol")


@pytest.fixture(scope="module")
def post(site: Site, alice: Account) -> int:
    return site.post(alice, "Hello")


def _cookie(answer: httpx2.Response) -> tuple[str, str]:
    """(name, the whole header)."""
    header = answer.headers["set-cookie"]
    return next(iter(SimpleCookie(header))), header


def test_looking_at_a_link_does_not_use_it_up(site: Site, alice: Account) -> None:
    link = site.login_link(alice)
    for _ in range(3):
        page = site.get(link)
        assert page.status_code == 200
        assert "set-cookie" not in page.headers
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "same-origin"
    assert httpx2.head(link, trust_env=False).status_code == 200
    used = httpx2.post(f"{site.base}/owner/sign-in", data={"token": field_of(page.text, "token")}, trust_env=False)
    assert (used.status_code, used.headers["location"]) == (303, "/owner")


def test_a_link_works_once(site: Site, alice: Account) -> None:
    link = site.login_link(alice)
    token = link.partition("token=")[2]
    url = f"{site.base}/owner/sign-in"
    html = {"Accept": "text/html"}
    assert httpx2.post(url, data={"token": token}, trust_env=False).status_code == 303
    again = httpx2.post(url, data={"token": token}, headers=html, trust_env=False)
    assert again.status_code == 410
    assert "set-cookie" not in again.headers
    assert "does not work any more" in again.text
    assert site.get(link).status_code == 410


def test_a_link_ends_after_a_while(site: Site, alice: Account) -> None:
    link = site.login_link(alice)
    token = link.partition("token=")[2]
    links = schema.sign_in_links
    site.write(
        lambda tx: tx.execute(
            links.update()
            .where(links.c.token_hash == token_hash(token))
            .values(expires_at=tx.now - timedelta(seconds=1))
        )
    )
    assert site.get(link).status_code == 410
    answer = httpx2.post(f"{site.base}/owner/sign-in", data={"token": token}, trust_env=False)
    assert answer.status_code == 410
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "é"])
def test_a_made_up_link_opens_nothing(site: Site, token: str) -> None:
    answer = httpx2.post(f"{site.base}/owner/sign-in", data={"token": token}, trust_env=False)
    assert answer.status_code == 410
    assert "set-cookie" not in answer.headers


def test_another_site_cannot_sign_somebody_in(site: Site, alice: Account) -> None:
    """Or its victim would go on under an account of the attacker's."""
    token = site.login_link(alice).partition("token=")[2]
    url = f"{site.base}/owner/sign-in"
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        answer = httpx2.post(url, data={"token": token}, headers=headers, trust_env=False)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    assert httpx2.post(url, data={"token": token}, headers=same_origin(site.base), trust_env=False).status_code == 303


def test_the_cookie_is_guarded_and_only_its_hash_is_kept(site: Site, alice: Account) -> None:
    token = site.login_link(alice).partition("token=")[2]
    answer = httpx2.post(f"{site.base}/owner/sign-in", data={"token": token}, trust_env=False)
    name, header = _cookie(answer)
    assert name == "threadbridge"
    assert "httponly" in header.lower()
    assert "samesite=lax" in header.lower()
    assert "path=/;" in header.lower()
    assert "secure" not in header.lower()
    value = SimpleCookie(header)[name].value
    assert len(value) >= 43
    held = site.bridge.ground.store.read_now(lambda tx: list(tx.execute(schema.sessions.select()).mappings()))
    assert token_hash(value) in {row["token_hash"] for row in held}
    assert value not in str(held)


def test_over_https_the_cookie_is_bound_to_the_host() -> None:
    response, ids = Response(), Ids("https://bridge.example")
    sessions.give_cookie(response, ids, "x")
    header = response.headers["set-cookie"]
    assert header.startswith("__Host-threadbridge=x;")
    assert "; Secure" in header
    assert "Path=/" in header
    assert "Domain" not in header
    sessions.take_cookie(response, ids)
    assert '__Host-threadbridge=""' in response.headers.getlist("set-cookie")[1]


def test_signing_out_ends_the_session_for_the_cookie_too(site: Site, alice: Account) -> None:
    with site.signed_in(alice) as client:
        value = client.cookies["threadbridge"]
        token = field_of(client.get("/owner").text, "form_token")
        out = client.post("/owner/sign-out", data={"form_token": token}, headers=same_origin(site.base))
        assert out.status_code == 303
        assert 'threadbridge=""' in out.headers["set-cookie"]
    assert site.get("/owner", Cookie=f"threadbridge={value}").status_code == 401, "a copied cookie still opens"


def test_signing_out_everywhere_ends_all_sessions_and_open_links(site: Site, carol: Account) -> None:
    link = site.login_link(carol)
    with site.signed_in(carol) as one, site.signed_in(carol) as other:
        token = field_of(one.get("/owner").text, "form_token")
        one.post("/owner/sign-out", data={"form_token": token, "everywhere": "1"}, headers=same_origin(site.base))
        assert other.get("/owner").status_code == 401
    assert site.get(link).status_code == 410


def test_signing_in_again_ends_the_former_session(site: Site, alice: Account, carol: Account) -> None:
    with site.signed_in(alice) as client:
        former = client.cookies["threadbridge"]
        token = site.login_link(carol).partition("token=")[2]
        client.post("/owner/sign-in", data={"token": token}, headers=same_origin(site.base))
        assert "@carol" in client.get("/owner").text
    assert site.get("/owner", Cookie=f"threadbridge={former}").status_code == 401


@pytest.mark.parametrize(("column", "age"), [("seen_at", timedelta(hours=12)), ("expires_at", timedelta(0))])
def test_a_session_ends_by_itself(site: Site, alice: Account, column: str, age: timedelta) -> None:
    with site.signed_in(alice) as client:
        hashed = token_hash(client.cookies["threadbridge"])
        s = schema.sessions
        site.write(
            lambda tx: tx.execute(
                s.update().where(s.c.token_hash == hashed).values({column: tx.now - age - timedelta(seconds=1)})
            )
        )
        assert client.get("/owner").status_code == 401


def test_a_visit_keeps_a_session_awake(site: Site, alice: Account) -> None:
    with site.signed_in(alice) as client:
        hashed = token_hash(client.cookies["threadbridge"])
        s = schema.sessions
        site.write(
            lambda tx: tx.execute(
                s.update().where(s.c.token_hash == hashed).values(seen_at=tx.now - timedelta(hours=11))
            )
        )
        assert client.get("/owner").status_code == 200
        store = site.bridge.ground.store
        seen = store.read_now(lambda tx: tx.execute(s.select().where(s.c.token_hash == hashed)).one().seen_at)
        assert store.clock() - seen < timedelta(minutes=1)


def test_the_owner_of_a_deleted_account_is_signed_out(site: Site) -> None:
    account = site.bridge.account("leaver")
    link = site.login_link(account)
    with site.signed_in(account) as client:
        site.write(accounts.set_state, account.id, AccountState.GONE, "test")
        assert client.get("/owner").status_code == 401
    assert site.get(link).status_code == 410


def test_owners_pages_are_kept_by_nobody_and_need_a_session(site: Site, alice: Account, post: int) -> None:
    paths = [
        "/owner",
        "/owner/posts",
        f"/owner/posts/{post}",
        "/owner/deliveries",
        "/owner/deliveries?show=problems",
        "/owner/followers",
        "/owner/replies",
        "/owner/heard",
        "/owner/heard?show=likes",
        "/owner/export",
    ]
    with site.signed_in(alice) as client:
        for path in paths:
            inside, outside = client.get(path), site.get(path)
            assert inside.status_code == 200, path
            assert outside.status_code == 401, path
            assert "threadbridge login-link" in outside.text
            assert "Hello" not in outside.text
            for answer in (inside, outside):
                assert "no-store" in answer.headers["cache-control"], path
                assert "etag" not in answer.headers
                assert "default-src 'none'" in answer.headers["content-security-policy"]


def _unsafe_routes(site: Site) -> list[str]:
    """Every address of the owner's door that takes a POST, from the routes themselves (sign-in apart: no session)."""
    paths = [route.path for route in owner.routes(site.bridge.services) if "POST" in (route.methods or ())]
    return [path for path in paths if path != "/owner/sign-in"]


def _safe_routes(site: Site) -> set[str]:
    return {route.path for route in owner.routes(site.bridge.services) if "GET" in (route.methods or ())}


NUMBER_OF = re.compile(r"\{\w+:number\}")
FORGED = [
    "no token",
    "another session's token",
    "cross-site origin",
    "null origin",
    "cross-site fetch",
    "same-site fetch",
    "no session",
]


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_form_is_refused_and_changes_nothing(
    site: Site, alice: Account, carol: Account, post: int, forged: str
) -> None:
    def state() -> object:
        def read(tx: Tx) -> object:
            return [
                [tuple(row) for row in tx.execute(table.select())] for table in (*owned, schema.accounts, schema.jobs)
            ]

        return read_now(read)

    # A session's row says when it was seen last.
    owned = [t for t in schema.metadata.sorted_tables if "account_id" in t.c and t.name != "sessions"]
    read_now = site.bridge.ground.store.read_now
    routes = _unsafe_routes(site)
    assert len(routes) >= 6
    with site.signed_in(alice) as client, site.signed_in(carol) as other:
        token = field_of(client.get("/owner").text, "form_token")
        theirs = field_of(other.get("/owner").text, "form_token")
        before = state()
        for path in routes:
            fields, headers = {"form_token": token}, same_origin(site.base)
            if forged == "no token":
                fields = {}
            elif forged == "another session's token":
                fields = {"form_token": theirs}
            elif forged == "cross-site origin":
                headers = {"origin": "https://evil.example"}
            elif forged == "null origin":
                headers = {"origin": "null"}
            elif forged == "cross-site fetch":
                headers = {"sec-fetch-site": "cross-site"}
            elif forged == "same-site fetch":
                headers = {"sec-fetch-site": "same-site"}
            address = NUMBER_OF.sub(str(post), path)
            if forged == "no session":
                answer = httpx2.post(site.base + address, data=fields, headers=headers, trust_env=False)
                assert answer.status_code == 401, path
            else:
                answer = client.post(address, data=fields, headers=headers)
                assert answer.status_code == 403, path
        assert state() == before
        assert client.get("/owner").status_code == 200, "a forged form signed the owner out"


def test_our_own_forms_have_their_effect(site: Site, alice: Account, post: int) -> None:
    """The twin of the test above: the same addresses, with what a browser sends."""
    store = site.bridge.ground.store

    def account() -> Account:
        held = store.read_now(accounts.by_id, alice.id)
        assert held
        return held

    with site.signed_in(alice) as client:
        fields = {"form_token": field_of(client.get("/owner").text, "form_token")}
        headers = same_origin(site.base)
        assert client.post("/owner/pause", data=fields, headers=headers).headers["location"] == "/owner"
        assert account().state is AccountState.PAUSED
        assert "Paused" in client.get("/owner").text
        assert "paused" in site.get("/@alice").text
        client.post("/owner/resume", data=fields, headers=headers)
        assert account().state is AccountState.ACTIVE
        client.post(f"/owner/posts/{post}/pin", data=fields, headers=headers)
        assert [item.id for item in store.read_now(posts.pinned, alice.id)] == [post]
        assert "Unpin" in client.get(f"/owner/posts/{post}").text
        client.post(f"/owner/posts/{post}/unpin", data=fields, headers=headers)
        assert store.read_now(posts.pinned, alice.id) == []


def test_a_get_changes_nothing(site: Site, alice: Account, post: int) -> None:
    with site.signed_in(alice) as client:
        for path in _unsafe_routes(site):
            if path in _safe_routes(site):
                before = site.bridge.everything()
                assert client.get(path).status_code == 200
                assert site.bridge.everything() == before
                continue
            answer = client.get(NUMBER_OF.sub(str(post), path))
            assert answer.status_code == 405, path
            assert "POST" in answer.headers["allow"]


def test_bad_forms_are_answered_in_words(site: Site, alice: Account, carol: Account, post: int) -> None:
    with site.signed_in(alice) as client:
        token = field_of(client.get("/owner").text, "form_token")
        headers = {**same_origin(site.base), "content-type": "application/x-www-form-urlencoded"}
        large = client.post("/owner/pause", content=b"a=" + b"x" * 40_000, headers=headers)
        assert large.status_code == 413
        unreadable = client.post("/owner/pause", content=b"a=\xff\xfe", headers=headers)
        assert unreadable.status_code == 400
        json = client.post("/owner/pause", json={"form_token": token}, headers=same_origin(site.base))
        assert json.status_code == 400
        for answer in (large, unreadable, json):
            assert re.search(r"<h1>[^<]+</h1>", answer.text)
        for path in ("/owner/heard?show=secrets", "/owner/followers?before=x", "/owner/posts?before=1"):
            assert client.get(path).status_code == 400, path
    theirs = site.post(carol, "Mine, not yours")
    with site.signed_in(alice) as client:
        token = field_of(client.get("/owner").text, "form_token")
        assert client.get(f"/owner/posts/{theirs}").status_code == 404
        answer = client.post(f"/owner/posts/{theirs}/pin", data={"form_token": token}, headers=same_origin(site.base))
        assert answer.status_code == 404


def test_no_more_than_five_posts_are_pinned(site: Site) -> None:
    account = site.bridge.account("pinner")
    numbers = [site.post(account, f"Post {number}") for number in range(6)]
    with site.signed_in(account) as client:
        fields = {"form_token": field_of(client.get("/owner").text, "form_token")}
        answers = [
            client.post(f"/owner/posts/{number}/pin", data=fields, headers=same_origin(site.base)).status_code
            for number in numbers
        ]
    assert answers == [303] * 5 + [409]
