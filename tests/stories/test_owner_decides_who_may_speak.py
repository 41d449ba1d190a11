"""The owner's rules, hidden replies, complaints and decisions on the owner's own pages, and on nobody else's."""

from __future__ import annotations

import html
from collections.abc import Iterator

import httpx2
import pytest
from tests.browser.site import Site, field_of, furnish, running_site, same_origin

from threadbridge.delivery import server_word
from threadbridge.domain.accounts import Account
from threadbridge.federation import enforcement
from threadbridge.storage import blocks, decisions, parking, reports
from threadbridge.storage.blocks import Entry

FORMS = {
    "/owner/blocks/add": {"kind": "domain", "subject": "role.example", "severity": "suspend"},
    "/owner/blocks/remove": {"kind": "domain", "subject": "role.example"},
    "/owner/blocks/import": {"lines": "role.example"},
    "/owner/replies/show": {"reply": "https://role.example/1"},
    "/owner/replies/report": {"reply": "https://role.example/1"},
}
PAGES = ("/owner/blocks", "/owner/decisions", "/owner/blocks/export.csv")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("owner_rules")) as running:
        yield running


@pytest.fixture(scope="module")
def marta(site: Site) -> Account:
    return furnish(site)


def send(client: httpx2.Client, site: Site, path: str, **fields: str) -> httpx2.Response:
    token = field_of(client.get("/owner/blocks").text, "form_token")
    return client.post(path, data={"form_token": token, **fields}, headers=same_origin(site.base))


def mine(site: Site, account: Account) -> dict[str, str]:
    held = site.bridge.ground.store.read_now(blocks.of_holder, blocks.owner(account.id))
    return {one.entry.subject: one.entry.severity for one in held}


@pytest.mark.parametrize("path", [*PAGES, *FORMS])
def test_nobody_but_the_signed_in_gets_in(site: Site, marta: Account, path: str) -> None:
    before = site.bridge.everything()
    if path in PAGES:
        assert httpx2.get(site.base + path, trust_env=False).status_code == 401
    else:
        url = site.base + path
        answers = [
            httpx2.post(url, data=FORMS[path], headers=same_origin(site.base), trust_env=False),
            httpx2.post(url, data=FORMS[path], headers={"Origin": "https://evil.example"}, trust_env=False),
        ]
        assert {answer.status_code for answer in answers} <= {401, 403}
        with site.signed_in(marta) as client:
            before = site.bridge.everything()
            assert client.post(path, data=FORMS[path], headers=same_origin(site.base)).status_code == 403
            wrong = {**FORMS[path], "form_token": "x" * 43}
            assert client.post(path, data=wrong, headers=same_origin(site.base)).status_code == 403
            assert client.get(path).status_code == 405
    assert site.bridge.everything() == before


def test_rules_are_made_lifted_and_taken_along(site: Site, marta: Account) -> None:
    with site.signed_in(marta) as client:
        for kind, subject, severity in (
            ("domain", "Spam.Example", "suspend"),
            ("domain", "@Bob@m.example", "suspend"),
            ("keyword", "Buy now", "limit"),
        ):
            answer = send(client, site, "/owner/blocks/add", kind=kind, subject=subject, severity=severity)
            assert answer.status_code == 303, answer.text
        assert mine(site, marta) == {"spam.example": "suspend", "@bob@m.example": "suspend", "buy now": "limit"}
        page = html.unescape(client.get("/owner/blocks").text)
        assert "spam.example" in page
        assert "buy now" in page
        assert client.get("/owner/blocks/export.csv").text == "spam.example\n"
        assert client.get("/owner/blocks/export.csv?show=accounts").text == "bob@m.example\n"
        before = mine(site, marta)
        for bad in (
            {"kind": "domain", "subject": "no domain", "severity": "suspend"},
            {"kind": "domain", "subject": "a.example", "severity": "destroy"},
            {"kind": "planet", "subject": "a.example", "severity": "suspend"},
        ):
            assert send(client, site, "/owner/blocks/add", **bad).status_code == 400
        assert send(client, site, "/owner/blocks/import", lines="one.example\ntw*o.example").status_code == 400
        assert mine(site, marta) == before
        assert send(client, site, "/owner/blocks/import", lines="one.example\ntwo.example").status_code == 303
        assert set(mine(site, marta)) == {*before, "one.example", "two.example"}
        for subject in ("spam.example", "one.example", "two.example"):
            send(client, site, "/owner/blocks/remove", kind="domain", subject=subject)
        send(client, site, "/owner/blocks/remove", kind="domain", subject="nobody.example")
        assert set(mine(site, marta)) == {"@bob@m.example", "buy now"}


def test_markup_in_rules_and_decisions_is_text(site: Site, marta: Account) -> None:
    store = site.bridge.ground.store
    entry = Entry("keyword", "<script>alert(1)</script>", "limit", "<img src=x onerror=alert(1)>")
    store.transact_now(enforcement.add_rules, blocks.owner(marta.id), [entry], account_id=marta.id)
    store.transact_now(
        decisions.write, "<b>", "<i>reason", subject="<svg/onload=x>", host="h.example", account_id=marta.id
    )
    with site.signed_in(marta) as client:
        for path in ("/owner/blocks", "/owner/decisions"):
            page = client.get(path).text
            assert "<script>alert" not in page
            assert "<img src=x" not in page
            assert "<svg" not in page
        assert "&lt;i&gt;reason" in client.get("/owner/decisions").text


def test_only_what_concerns_the_owner_is_shown(site: Site, marta: Account) -> None:
    store, bridge = site.bridge.ground.store, site.bridge
    other = bridge.account("somebody_else")
    store.transact_now(decisions.write, "Follow", "for another", subject="s", host="h", account_id=other.id)
    store.transact_now(decisions.write, "Flag", "for the operator", subject="s", host="h")
    store.transact_now(
        reports.add, "in", uri="https://m.example/f", by="https://m.example/actor", host="m.example",
        subject=bridge.ground.ids.actor(marta.id), objects=[], content="secret complaint", account_id=marta.id,
    )  # fmt: skip
    with site.signed_in(marta) as client:
        for path in PAGES[:2]:
            page = client.get(path).text
            assert "for another" not in page
            assert "for the operator" not in page
            assert "secret complaint" not in page


def test_a_hidden_reply_can_be_shown_and_reported_by_its_owner_alone(site: Site, marta: Account) -> None:
    store, bridge = site.bridge.ground.store, site.bridge
    uri = site.answer(marta, site.numbers["newest"], site.peer(77), "<p>A hidden remark</p>", number=77)
    (tie,) = store.read_now(parking.reply, uri)
    store.transact_now(parking.mark_reply, tie, "limited")
    eve = bridge.account("eve_elsewhere")
    with site.signed_in(eve) as client:
        assert send(client, site, "/owner/replies/show", reply=uri).status_code == 404
        assert send(client, site, "/owner/replies/report", reply=uri).status_code == 404
    assert bridge.count("replies", uri=uri, hidden="limited") == 1
    with site.signed_in(marta) as client:
        assert "A hidden remark" in client.get("/owner/blocks").text
        assert "A hidden remark" not in client.get("/owner/replies").text
        send(client, site, "/owner/replies/show", reply=uri)
        assert "A hidden remark" in client.get("/owner/replies").text
        assert "Report to their server" in client.get("/owner/replies").text
        send(client, site, "/owner/replies/report", reply=uri, words="unkind")
        assert "unkind" in client.get("/owner/blocks").text
    assert bridge.count("reports", direction="out", account_id=marta.id) == 1
    assert bridge.count("jobs", kind=server_word.SAY) == 1
