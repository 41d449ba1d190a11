"""What is wrong, or about to happen, stands on the owner's page where it is looked for, with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.browser.site import Site, field_of, furnish, running_site, same_origin

from threadbridge.delivery import server_word
from threadbridge.domain.accounts import Account
from threadbridge.domain.blocks import Severity
from threadbridge.federation import enforcement, farewell, relay
from threadbridge.storage import jobs, posts, profiles
from threadbridge.storage.blocks import Entry
from threadbridge.storage.store import Tx


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("what_is_wrong")) as running:
        yield running


@pytest.fixture(scope="module")
def marta(site: Site) -> Account:
    return furnish(site)


def test_a_file_that_is_not_understood_is_refused_with_its_lines(site: Site, marta: Account) -> None:
    before = site.bridge.everything()
    with site.signed_in(marta) as client:
        token = field_of(client.get("/owner/blocks").text, "form_token")
        for lines, said in (
            ("good.example\nno domain\n", "Line 2: "),
            (f"good.example\n{site.bridge.ground.ids.authority}\n", "this server itself"),
        ):
            fields = {"form_token": token, "lines": lines}
            answer = client.post("/owner/blocks/import", data=fields, headers=same_origin(site.base))
            assert answer.status_code == 400
            assert said in answer.text
            assert "<h1>That did not work</h1>" in answer.text
    after = {**site.bridge.everything(), "sessions": 0, "sign_in_links": 0}
    assert after == {**before, "sessions": 0, "sign_in_links": 0}


def test_tiles_count_what_the_lists_show(site: Site, marta: Account) -> None:
    account = site.bridge.account("tiles")
    peer = site.peer(77)
    number = site.post(account, "soon gone")
    site.answer(account, number, peer, "<p>!</p>", number=1)
    site.answer(account, number, peer, "<p>psst</p>", number=2, public=False)
    site.write(posts.bury, account.id, number)
    with site.signed_in(account) as client:
        overview, listed = client.get("/owner").text, client.get("/owner/replies").text
    assert re.search(r'href="/owner/replies"><strong>(\d+)', overview)[1] == "2"  # type: ignore[index]
    assert listed.count('<article class="answer') == 2


def test_a_deletion_that_was_asked_for_stands_on_the_first_page(site: Site) -> None:
    account = site.bridge.account("leaving")
    site.write(farewell.ask, account.id, "the owner's page")
    with site.signed_in(account) as client:
        page = client.get("/owner").text
        assert "Will be deleted" in page
        assert 'action="/owner/resume"' not in page
        token = field_of(page, "form_token")
        kept = client.post("/owner/delete/take-back", data={"form_token": token}, headers=same_origin(site.base))
        assert kept.status_code == 303
        page = client.get("/owner").text
    assert "Will be deleted" not in page
    assert 'action="/owner/pause"' in page


def test_every_room_is_in_the_menu_and_marked_in_it(site: Site, marta: Account) -> None:
    with site.signed_in(marta) as client:
        menu = re.search(r'<nav class="rooms".*?</nav>', client.get("/owner").text, re.DOTALL)
        assert menu
        rooms = re.findall(r'href="([^"]+)"', menu[0])
        assert {"/owner/mentions", "/owner/decisions", "/owner/domain", "/owner/delete"} <= set(rooms)
        for room in rooms:
            assert f'href="{room}" aria-current="page"' in client.get(room).text, room


def test_a_domain_that_does_not_answer_is_looked_at_every_hour(site: Site, marta: Account) -> None:
    def never_right(tx: object) -> None:
        profiles.ask_for_domain(tx, marta.id, "nowhere.example")  # type: ignore[arg-type]
        profiles.domain_checked(tx, marta.id, "asked", [("error", "nobody is there")])  # type: ignore[arg-type]

    site.write(never_right)
    with site.signed_in(marta) as client:
        assert "looked again every hour" in client.get("/owner/domain").text


def test_few_empty_fields_are_shown_and_the_rest_can_be_had(site: Site, marta: Account) -> None:
    with site.signed_in(marta) as client:
        page = client.get("/owner/profile").text
    head, _, folded = page.partition("<summary>More fields</summary>")
    assert head.count('class="pair"') == 1
    assert folded.partition("</details>")[0].count('class="pair"') == 7


@pytest.mark.parametrize(
    ("subject", "severity", "is_us"),
    [
        ("bridge.example.org", "suspend", True),
        ("example.org", "limit", True),
        ("bridge.example.org", "allow", False),
        ("other.example.org", "suspend", False),
        ("e.org", "suspend", False),
    ],
)
def test_no_rule_keeps_this_server_from_itself(subject: str, severity: Severity, is_us: bool) -> None:
    assert enforcement.names_us("bridge.example.org", Entry("domain", subject, severity)) is is_us


def test_a_relay_that_was_not_reached_is_listed_with_the_reason(site: Site) -> None:
    ids, inbox = site.bridge.ground.ids, "https://relay.example/inbox"
    site.write(relay.subscribe, ids, inbox, inbox=inbox, actor_uri=None)
    assert [trouble for _, trouble in site.bridge.ground.store.read_now(relay.listed)] == [None]

    def refused(tx: Tx) -> None:
        (job,) = jobs.take(tx, [server_word.SAY], 60, 10)
        jobs.give_up(tx, job, "it answered 404")

    site.write(refused)
    assert [trouble for _, trouble in site.bridge.ground.store.read_now(relay.listed)] == ["it answered 404"]
