"""The owner's rooms for what posts let others do: rules for all and for one, quotes allowed and taken back, edits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from tests.browser.site import Site, field_of, running_site, same_origin
from tests.rig import a_key

from threadbridge.domain.accounts import Account
from threadbridge.domain.people import Peer
from threadbridge.domain.rules import Rules
from threadbridge.storage import peers, posts, quotes, rules
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("rules")) as running:
        yield running


@pytest.fixture(scope="module")
def alice(site: Site) -> Account:
    return site.bridge.account("alice")


def send(site: Site, client: httpx2.Client, path: str, page: str, **fields: str) -> httpx2.Response:
    token = field_of(client.get(page).text, "form_token")
    return client.post(path, data={"form_token": token, **fields}, headers=same_origin(site.base))


def chosen(site: Site, account: Account) -> Rules:
    return site.bridge.ground.store.read_now(rules.of_account, account.id)


def test_rules_for_all_posts_are_kept_and_said(site: Site, alice: Account) -> None:
    number = site.post(alice, "See https://example.org/x", link="https://example.org/y", spoilers=((0, 3),),
                       sensitive=True, original_url="https://www.threads.com/@alice/post/C1")  # fmt: skip
    uri = site.bridge.ground.ids.post(alice.id, number)
    before = site.bridge.get(uri).json()
    assert (before["summary"], before["url"]) == ("Spoiler", "https://www.threads.com/@alice/post/C1")
    assert before["attachment"] == []
    with site.signed_in(alice) as client:
        saved = send(site, client, "/owner/rules", "/owner/rules", replies="followers", quotes="ask",
                     spoiler_words="  The end of\n the film ", link_cards="1", own_pages="1")  # fmt: skip
        assert saved.status_code == 303
        assert chosen(site, alice) == Rules("followers", "ask", "The end of the film", True, True)
        page = client.get("/owner/rules").text
        assert 'value="The end of the film"' in page
        assert 'value="followers" checked' in page
    note = site.bridge.get(uri).json()
    assert note["summary"] == "The end of the film"
    assert note["url"] == site.bridge.ground.ids.page("alice", number)
    assert note["attachment"] == [{"type": "Link", "href": "https://example.org/y"}]
    assert note["interactionPolicy"]["canReply"]["automaticApproval"][1].endswith("/followers")


@pytest.mark.parametrize(
    "wrong",
    [
        {"replies": "enemies"},
        {"quotes": ""},
        {"spoiler_words": "x" * 201},
        {"replies": "everyone", "quotes": "source"},
    ],
)
def test_what_is_no_choice_changes_nothing(site: Site, alice: Account, wrong: dict[str, str]) -> None:
    before = chosen(site, alice)
    with site.signed_in(alice) as client:
        fields = {"replies": "nobody", "quotes": "nobody", **wrong}
        assert send(site, client, "/owner/rules", "/owner/rules", **fields).status_code == 400
        # Nor does a form from somewhere else, or without its token.
        token = field_of(client.get("/owner/rules").text, "form_token")
        good = {"replies": "nobody", "quotes": "nobody"}
        elsewhere = {"Origin": "https://evil.example"}
        assert client.post("/owner/rules", data={**good, "form_token": token}, headers=elsewhere).status_code == 403
        assert client.post("/owner/rules", data=good, headers=same_origin(site.base)).status_code == 403
    assert chosen(site, alice) == before


def test_one_post_has_rules_of_its_own(site: Site, alice: Account) -> None:
    number = site.post(alice, "Only this one")
    uri = site.bridge.ground.ids.post(alice.id, number)
    page = f"/owner/posts/{number}"
    with site.signed_in(alice) as client:
        assert send(site, client, f"{page}/rules", page, replies="nobody", quotes="everyone").status_code == 303
        assert "May answer: nobody. May quote: everybody." in client.get(page).text
        policy = site.bridge.get(uri).json()["interactionPolicy"]
        assert policy["canReply"] == {"automaticApproval": [site.bridge.ground.ids.actor(alice.id)]}
        assert policy["canQuote"]["automaticApproval"][0].endswith("#Public")
        assert send(site, client, f"{page}/rules", page, replies="", quotes="").status_code == 303
        assert send(site, client, f"{page}/rules", page, replies="x").status_code == 400
        assert send(site, client, "/owner/posts/999/rules", page, replies="nobody").status_code == 404
    held = site.bridge.ground.store.read_now(posts.by_id, alice.id, number)
    assert held is not None
    assert (held.reply_rule, held.quote_rule) == (None, None)


def test_what_a_post_said_before_is_shown_to_its_owner_only(site: Site, alice: Account) -> None:
    number = site.post(alice, "teh first <b>form</b>")
    told = PostContent(kind="post", text="the second form", language="en", published=datetime(2026, 1, 1, tzinfo=UTC))
    site.write(posts.revise, alice.id, number, told, [], updated=datetime(2026, 1, 2, tzinfo=UTC))
    with site.signed_in(alice) as client:
        page = client.get(f"/owner/posts/{number}").text
    assert "teh first &lt;b&gt;form&lt;/b&gt;" in page
    assert "Until " in page
    assert "teh first" not in site.get(f"/@alice/{number}").text


def a_quote(site: Site, account: Account, number: int, state: Any, name: str) -> int:
    far = "https://far.example"
    bob = Peer(f"{far}/bob", f"{far}/bob/inbox", None, "bob@far.example", "Bob", None, f"{far}/bob#key",
               a_key(1).public_pem)  # fmt: skip

    def write(tx: Tx) -> int:
        peers.save(tx, bob, "far.example")
        return quotes.record(
            tx, account.id, number, uri=f"{far}/{name}", state=state, peer_uri=bob.uri,
            request_uri=f"{far}/r/{name}", html=f"<p>{name}<script>x</script></p>",
        )  # fmt: skip

    held: int = site.write(write)
    return held


def test_quotes_are_decided_on_their_page(site: Site, alice: Account) -> None:
    number = site.post(alice, "Quote me")
    first, second = (a_quote(site, alice, number, "waiting", name) for name in ("first", "second"))
    stamp = site.bridge.ground.ids.quote_stamp(alice.id, first)
    with site.signed_in(alice) as client:
        page = client.get("/owner/quotes?show=waiting").text
        assert "waits for your word" in page
        assert "first" in page
        assert "<script>" not in page
        for path in (f"/owner/quotes/{first}/let", f"/owner/quotes/{second}/refuse"):
            assert send(site, client, path, "/owner/quotes").status_code == 303
        assert site.bridge.get(stamp).status_code == 200
        assert "Nobody yet." in client.get("/owner/quotes?show=waiting").text
        assert "Quotes" in client.get(f"/owner/posts/{number}").text
        assert send(site, client, f"/owner/quotes/{first}/revoke", "/owner/quotes").status_code == 303
        assert site.bridge.get(stamp).status_code == 410
        # Taken back is taken back.
        assert send(site, client, f"/owner/quotes/{first}/let", "/owner/quotes").status_code == 409
        assert send(site, client, "/owner/quotes/999/let", "/owner/quotes").status_code == 404


def test_nobody_decides_about_anothers_quotes(site: Site, alice: Account) -> None:
    number = site.post(alice, "Mine")
    held = a_quote(site, alice, number, "waiting", "theirs")
    mallory = site.bridge.account("mallory")
    with site.signed_in(mallory) as client:
        for word in ("let", "refuse", "revoke"):
            assert send(site, client, f"/owner/quotes/{held}/{word}", "/owner/rules").status_code == 404
        assert send(site, client, f"/owner/posts/{number}/rules", "/owner/rules", replies="nobody").status_code == 404
    found = site.bridge.ground.store.read_now(quotes.by_id, alice.id, held)
    assert found is not None
    assert found.state == "waiting"
    assert httpx2.post(f"{site.base}/owner/quotes/{held}/let", trust_env=False).status_code in (401, 403)
