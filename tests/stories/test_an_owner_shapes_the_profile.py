"""An owner says on their page who they are, is found under another name, and may leave: in forms, checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.browser.site import MALICE, Site, running_site, same_origin
from tests.rig import Served, Stranger, free_socket

from threadbridge.domain.accounts import Account, check_bridge_line, check_fields
from threadbridge.errors import Conflict, Invalid
from threadbridge.storage import accounts, profiles, schema


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("profile")) as running:
        yield running


class Owner:
    """A browser that is signed in."""

    def __init__(self, site: Site, account: Account) -> None:
        self.site, self.account = site, account
        self.client = httpx2.Client(trust_env=False, headers={"Accept": "text/html"})
        token = site.login_link(account).partition("token=")[2]
        self.client.post(f"{site.base}/owner/sign-in", data={"token": token}, headers=same_origin(site.base))

    def see(self, path: str) -> str:
        answer = self.client.get(self.site.base + path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def send(
        self, path: str, page: str, given_: dict[str, str] | None = None, *, forged: bool = False, **fields: str
    ) -> httpx2.Response:
        """Send a form as it stands on `page`, with these fields changed; without its token when forged."""
        seen = self.see(page)
        token = re.search(r'name="form_token" value="([^"]+)"', seen)
        assert token
        given = {"form_token": "guessed" if forged else token[1], **(given_ or {}), **fields}
        return self.client.post(self.site.base + path, data=given, headers=same_origin(self.site.base))

    def row(self) -> Any:
        store = self.site.bridge.ground.store
        return store.read_now(accounts.by_id, self.account.id)

    def actor(self) -> dict[str, Any]:
        actor: dict[str, Any] = self.site.bridge.get(self.site.bridge.ground.ids.actor(self.account.id)).json()
        return actor


@pytest.fixture
def owner(site: Site, request: pytest.FixtureRequest) -> Owner:
    return Owner(site, site.bridge.account(re.sub(r"[^a-z0-9]", "", request.node.name)[-20:]))


KEPT = {"statement": "ours", "featured": "5", "discoverable": "1", "indexable": "1"}


def test_fields_the_line_and_the_switches(site: Site, owner: Owner) -> None:
    handle = owner.account.handle
    assert f'Bridged from Threads by <a href="{site.base}/about"' in owner.actor()["summary"]
    sent = owner.send(
        "/owner/profile", "/owner/profile", name0="Pronouns", value0="she <b>&amp;", name3="Blog",
        value3="https://blog.example/?a=1&b=2", statement="own", line="Mirrors my Threads <i>account</i>",
        featured="3",
        credit="blog.example, news.example", avatar_alt="Me,\n laughing",
    )  # fmt: skip
    assert (sent.status_code, sent.headers["location"]) == (303, "/owner/profile")
    actor = owner.actor()
    assert actor["attachment"] == [
        {"type": "PropertyValue", "name": "Pronouns", "value": "she &lt;b&gt;&amp;amp;"},
        {"type": "PropertyValue", "name": "Blog",
         "value": '<a href="https://blog.example/?a=1&amp;b=2" rel="me nofollow noopener noreferrer" '
                  'target="_blank">blog.example/?a=1&amp;b=2</a>'},
    ]  # fmt: skip
    assert actor["summary"] == "<p>Mirrors my Threads &lt;i&gt;account&lt;/i&gt;</p>"
    assert (actor["discoverable"], actor["indexable"]) == (False, False)
    assert actor["attributionDomains"] == [site.bridge.authority, "blog.example", "news.example"]
    assert owner.row().avatar_alt == "Me, laughing"
    assert owner.row().featured_count == 3
    page = site.get(f"/@{handle}")
    assert page.headers["x-robots-tag"] == "noindex"
    assert '<meta name="robots" content="noindex">' in page.text
    assert f'href="/@{handle}"' not in site.get("/").text

    # Two switches: shown in directories, kept from search engines, or the other way round.
    owner.send("/owner/profile", "/owner/profile", statement="field", featured="0", indexable="1")
    actor = owner.actor()
    assert (actor["discoverable"], actor["indexable"], actor["summary"]) == (False, True, "")
    assert [field["name"] for field in actor["attachment"]] == ["Bridged by"]
    assert "x-robots-tag" not in site.get(f"/@{handle}").headers
    assert "Nothing: pin a post" in owner.see("/owner/profile")


def test_what_cannot_stand_there_changes_nothing(site: Site, owner: Owner) -> None:
    before, held = site.bridge.everything(), owner.row()
    for bad in (
        {"name0": "no value"},
        {"value0": "no name"},
        {"name0": "x" * 256, "value0": "y"},
        {"name0": "x", "value0": "y" * 256},
        {"name0": "x\u202e", "value0": "y"},
        {"statement": "own", "line": "I am the real one"},
        {"statement": "own", "line": "Threads " + "x" * 200},
        {"featured": "21"},
        {"featured": "-1"},
        {"featured": "many"},
        {"credit": "https://blog.example/path"},
        {"credit": " ".join(f"a{n}.example" for n in range(17))},
        {"avatar_alt": "x" * 1501},
    ):
        answer = owner.send("/owner/profile", "/owner/profile", {**KEPT, **bad})
        assert answer.status_code == 400, bad
    assert owner.send("/owner/profile", "/owner/profile", KEPT, forged=True, name0="x", value0="y").status_code == 403
    assert owner.row() == held
    assert site.bridge.everything() == before


def test_malice_in_fields_is_text(site: Site, owner: Owner) -> None:
    fields = {f"name{n}": text[:255] for n, text in enumerate(MALICE[:8])} | {
        f"value{n}": text[:255] for n, text in enumerate(MALICE[:8])
    }
    assert owner.send("/owner/profile", "/owner/profile", {**KEPT, **fields}).status_code == 303
    for text in (site.get(f"/@{owner.account.handle}").text, owner.see("/owner/profile")):
        assert "<script" not in text
        assert 'onerror="' not in text
    for field in owner.actor()["attachment"]:
        assert "<" not in field["value"]
        assert "<" not in field["name"]


def test_another_name(site: Site, owner: Owner) -> None:
    old, new = owner.account.handle, "fresh_name"
    taken = site.bridge.account("taken")
    actor = site.bridge.ground.ids.actor(owner.account.id)
    before = site.bridge.everything()
    for bad in (taken.handle, "Not A Handle", "admin", "", "x" * 31, "-x"):
        assert owner.send("/owner/profile/handle", "/owner/profile", handle=bad).status_code in (400, 409), bad
    assert owner.send("/owner/profile/handle", "/owner/profile", forged=True, handle=new).status_code == 403
    assert site.bridge.everything() == before
    assert owner.send("/owner/profile/handle", "/owner/profile", handle=f"@{new.upper()}").status_code == 303
    assert owner.actor()["preferredUsername"] == new
    assert owner.actor()["id"] == actor
    for name in (old, new):
        found = site.bridge.get(f"/.well-known/webfinger?resource=acct:{name}@{site.bridge.authority}").json()
        assert found["subject"] == f"acct:{new}@{site.bridge.authority}"
        assert [link["href"] for link in found["links"] if link["rel"] == "self"] == [actor]
        assert site.get(f"/@{name}").status_code == 200
        assert site.bridge.get(f"/@{name}").json()["id"] == actor
    # What was somebody's is nobody else's; its owner may have it back.
    with pytest.raises(Conflict):
        site.bridge.account(old)
    with pytest.raises(Conflict):
        site.write(accounts.rename, taken.id, old)
    assert owner.send("/owner/profile/handle", "/owner/profile", handle=old).status_code == 303
    assert site.bridge.ground.store.read_now(accounts.former_handles, owner.account.id) == [new]

    # After a year it is found no more, and still nobody else's.
    def a_year(tx: Any) -> None:
        tx.execute(schema.former_handles.update().values(left_at=tx.now - accounts.FORMER_HANDLE_FOUND))
        accounts.touch(tx, owner.account.id)

    site.write(a_year)
    assert site.bridge.get(f"/.well-known/webfinger?resource=acct:{new}@{site.bridge.authority}").status_code == 404
    with pytest.raises(Conflict):
        site.bridge.account(new)


def test_aliases_are_looked_up(site: Site, owner: Owner) -> None:
    sock = free_socket()
    old = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", name="alice_before")
    served = Served(site.bridge.loop, old.create_app(), sock)
    before = site.bridge.everything()
    for bad in ("", "nonsense", f"{old.base}/users/nobody", f"@x@{site.bridge.authority}", "javascript:alert(1)",
                site.bridge.ground.ids.actor(owner.account.id), "http://10.1.2.3/users/x"):  # fmt: skip
        assert owner.send("/owner/profile/aliases", "/owner/profile", alias=bad).status_code == 400, bad
    assert owner.send("/owner/profile/aliases", "/owner/profile", forged=True, alias=old.uri).status_code == 403
    assert site.bridge.everything() == before
    assert owner.send("/owner/profile/aliases", "/owner/profile", alias=old.uri).status_code == 303
    assert owner.actor()["alsoKnownAs"] == [old.uri]
    assert "Alice_Before" in owner.see("/owner/profile")
    assert owner.send("/owner/profile/aliases", "/owner/profile", alias=old.uri).status_code == 409
    assert owner.send("/owner/profile/aliases/remove", "/owner/profile", uri="https://x.example/").status_code == 404
    assert owner.send("/owner/profile/aliases/remove", "/owner/profile", uri=old.uri).status_code == 303
    assert "alsoKnownAs" not in owner.actor()
    served.stop()


def test_newcomers_see_what_the_owner_wants(site: Site, owner: Owner) -> None:
    numbers = [site.post(owner.account, f"post {n}", minutes=n) for n in range(8)]
    ids = site.bridge.ground.ids
    featured = f"/ap/users/{owner.account.id}/collections/featured"
    for count in (5, 7, 0):
        owner.send("/owner/profile", "/owner/profile", {**KEPT, "featured": str(count)})
        shown = site.bridge.get(featured).json()["orderedItems"]
        assert [note["id"] for note in shown] == [ids.post(owner.account.id, n) for n in numbers[::-1][:count]]
        assert all(note["content"] for note in shown)
        assert owner.see("/owner/profile").count('href="/owner/posts/') == count
    assert not site.bridge.count("activities", account_id=owner.account.id)


def test_leaving_takes_a_word_and_can_be_taken_back(site: Site, owner: Owner) -> None:
    before = site.bridge.everything()
    assert owner.send("/owner/delete", "/owner/delete", handle="somebody").status_code == 400
    assert owner.send("/owner/delete", "/owner/delete", forged=True, handle=owner.account.handle).status_code == 403
    assert site.bridge.everything() == before
    assert (
        owner.send("/owner/delete", "/owner/delete", handle=f"@{owner.account.handle}", archive="1").status_code
        == 303
    )
    assert "will be deleted" in owner.see("/owner/delete")
    assert site.bridge.count("exports", account_id=owner.account.id) == 1
    assert owner.row().state == "paused"
    assert owner.send("/owner/resume", "/owner").status_code == 409
    assert owner.send("/owner/delete/take-back", "/owner/delete").status_code == 303
    assert owner.row().state == "active"
    assert owner.send("/owner/delete/take-back", "/owner/delete").status_code == 409


def test_an_id_leads_a_browser_to_the_page_and_nobody_else(site: Site, owner: Owner) -> None:
    number = site.post(owner.account, "hello")
    ids = site.bridge.ground.ids
    for uri, page in (
        (ids.actor(owner.account.id), ids.profile(owner.account.handle)),
        (ids.post(owner.account.id, number), ids.page(owner.account.handle, number)),
    ):
        for _ in range(2):  # the second time there is a ready document
            browser = site.get(uri, Accept="text/html,application/xhtml+xml,*/*;q=0.8")
            assert (browser.status_code, browser.headers["location"], browser.headers["vary"]) == (
                302,
                page,
                "Accept",
            )
            for accept in ("application/activity+json", "*/*", "application/json",
                           'application/ld+json; profile="https://www.w3.org/ns/activitystreams", '
                           "application/activity+json, text/html;q=0.1"):  # fmt: skip
                assert site.bridge.get(uri, accept).json()["id"] == uri
        shown = site.get(page)
        assert f'<{uri}>; rel="alternate"; type="application/activity+json"' in shown.headers["link"]
        assert f'<link rel="alternate" type="application/activity+json" href="{uri}">' in shown.text
    icon = site.get("/favicon.ico")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")


@pytest.mark.parametrize("line", ["My Threads posts, here too", "Gespiegelt von Threads", "from bridge.example", ""])
def test_an_honest_line_is_taken(line: str) -> None:
    assert check_bridge_line(f"  {line} ", "bridge.example") == line


def test_blank_lines_of_the_table_are_left_out_and_nine_are_too_many() -> None:
    assert check_fields([("", ""), (" a ", " b  c "), (" ", "")]) == (("a", "b c"),)
    with pytest.raises(Invalid):
        check_fields([(str(n), "x") for n in range(9)])


def test_twenty_aliases_are_enough(site: Site, owner: Owner) -> None:
    for n in range(20):
        site.write(profiles.add_alias, owner.account.id, f"https://x.example/{n}", handle="x", name="")
    with pytest.raises(Conflict):
        site.write(profiles.add_alias, owner.account.id, "https://x.example/20", handle="x", name="")
