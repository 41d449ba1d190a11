"""A Flag from another server waits for the operator, once, and the owner does not learn of it; ours goes, in nobody's
name, to the server of whom it is about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.neighbours import domain, kept, lift, rule, strangers

from threadbridge.errors import Conflict, NotFound
from threadbridge.federation import enforcement, report
from threadbridge.storage import blocks, decisions, reports
from threadbridge.storage.blocks import OPERATOR, Entry


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder: Path = tmp_path_factory.mktemp("complaints")
    with running_bridge(folder) as running:
        yield running


def test_a_complaint_is_kept_once_for_the_operator_alone(bridge: Bridge) -> None:
    account, store = bridge.account("accused"), bridge.ground.store
    post, actor = bridge.post(account), bridge.ground.ids.actor(account.id)
    inbox = f"{bridge.base}/ap/inbox"
    # Mastodon's own form: an Application signs, the account and the posts in one list.
    with strangers(bridge, "instance") as (server,):
        named = [actor, post, f"{server.base}/notes/1", {"type": "Note"}, 7]
        flag = server.activity("Flag", named, content="<p>Rude &amp; loud</p>", to=actor)
        assert server.post(inbox, flag).status_code == 202
        for _ in range(2):
            again = server.activity("Flag", named, content="<p>Rude &amp; loud</p>")
            assert server.post(inbox, again).status_code == 202
        (kept_one,) = store.read_now(reports.page, direction="in")
        assert (kept_one.subject, kept_one.objects, kept_one.content, kept_one.times) == (
            actor,
            (post,),
            "Rude & loud",
            3,
        )
        assert kept_one.by == server.uri
        assert store.read_now(decisions.page, account_id=account.id) == []
        assert bridge.count("decisions", kind="Flag", account_id=None) == 1
        assert store.transact_now(reports.resolve, kept_one.id, "looked at it")
        assert not store.transact_now(reports.resolve, kept_one.id, "again")
        assert server.post(inbox, server.activity("Flag", named, content="<p>Rude &amp; loud</p>")).is_success
        assert len(store.read_now(reports.page, direction="in")) == 1
        assert len(store.read_now(reports.page, direction="in", with_resolved=True)) == 2


def test_a_complaint_that_is_forged_or_about_nobody_is_not_kept(bridge: Bridge) -> None:
    account = bridge.account("innocent")
    actor, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    with strangers(bridge, "server", "mallory") as (server, mallory):
        assert server.post(inbox, server.activity("Like", bridge.post(account))).status_code == 202
        assert mallory.post(inbox, mallory.activity("Like", bridge.post(account))).status_code == 202
        before = bridge.count("reports")
        everything = kept(bridge)
        flag = server.activity("Flag", [actor])
        assert server.post(inbox, flag, key=mallory.key).status_code == 401
        assert mallory.post(inbox, flag).status_code == 403
        for nothing in ([], None, {"type": "Person"}, [7, None]):
            assert server.post(inbox, server.activity("Flag", nothing)).status_code == 400
        assert kept(bridge) == everything
        elsewhere = server.activity("Flag", [f"{server.base}/users/x", f"{bridge.base}/ap/users/999"])
        assert server.post(inbox, elsewhere).status_code == 202
        # The operator has had enough of this server's reports, not of the server.
        entry = Entry("domain", domain(server), "allow", reject_reports=True)
        bridge.ground.store.transact_now(enforcement.add_rules, OPERATOR, [entry])
        assert server.post(inbox, server.activity("Flag", [actor])).status_code == 202
        assert bridge.count("reports") == before
        bridge.ground.store.transact_now(blocks.remove, OPERATOR, "domain", domain(server))
        assert server.post(inbox, server.activity("Flag", [actor])).status_code == 202
        assert bridge.count("reports") == before + 1


def test_a_server_cannot_fill_the_queue(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    account = bridge.account("flooded")
    monkeypatch.setattr(report, "OPEN_PER_SERVER", 3)
    with strangers(bridge, "busy") as (busy,):
        for number in range(6):
            flag = busy.activity("Flag", bridge.ground.ids.actor(account.id), content=f"number {number}")
            assert busy.post(f"{bridge.base}/ap/inbox", flag).status_code == 202
        assert bridge.count("reports", host=domain(busy)) == 3
        assert bridge.count("dropped", kind="Flag", reason="too many open reports from there") == 1


def test_a_complaint_of_ours_names_no_owner(bridge: Bridge) -> None:
    account, other, store = bridge.account("owner"), bridge.account("another"), bridge.ground.store
    ids = bridge.ground.ids
    with strangers(bridge, "bob") as (bob,):
        note = bob.note(bridge.post(account))
        assert bob.post(f"{bridge.base}/ap/inbox", bob.activity("Create", note)).status_code == 202
        store.transact_now(report.complain, ids, note["id"], "an insult", account_id=account.id)
        (flag,) = eventually(lambda: bob.of_kind("Flag"))
        assert flag["actor"] == ids.instance
        assert flag["object"] == [bob.uri, note["id"]]
        assert flag["content"] == "an insult"
        assert ids.actor(account.id) not in str(flag)
        headers, _ = next(request for request in bob.requests if b'"Flag"' in request[1])
        assert f'keyId="{ids.instance}#' in headers["signature"]
        eventually(lambda: bridge.count("jobs", kind="own_word") == 0)
        before = kept(bridge)
        with pytest.raises(Conflict):
            store.transact_now(report.complain, ids, note["id"], "an insult", account_id=account.id)
        for uri in (f"{bob.base}/notes/none", bridge.base):
            with pytest.raises(NotFound):
                store.transact_now(report.complain, ids, uri, "", account_id=other.id)
        rule(bridge, "suspend", domain(bob))
        with pytest.raises(Conflict, match="suspended here"):
            store.transact_now(report.complain, ids, bob.uri, "more")
        assert {name: rows for name, rows in kept(bridge).items() if before[name] != rows}.keys() <= {"blocks"}
        lift(bridge, domain(bob))
        store.transact_now(report.complain, ids, bob.uri, "the person")
        assert eventually(lambda: bob.of_kind("Flag")[1:])[0]["object"] == [bob.uri]
