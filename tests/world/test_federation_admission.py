"""Who may speak here: which rule about whom turns which activity away, and whom an activity is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.world.hearing import BASE, IDS, Hearing, fresh, note_of, person

from threadbridge.activitypub import incoming
from threadbridge.activitypub.incoming import Activity
from threadbridge.delivery import outbox
from threadbridge.domain.blocks import Standing
from threadbridge.domain.people import Peer
from threadbridge.federation import admission
from threadbridge.federation.admission import Admitted, Refused
from threadbridge.federation.heard import Done, Heard, PreparedNote, TurnedAway
from threadbridge.storage import blocks, migrate
from threadbridge.storage.blocks import SETTING
from threadbridge.storage.store import Store

BY_DOMAIN = "domain suspended by the operator"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hearing]:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('admitted') / 'admitted.sqlite3'}")
    migrate.to_newest(store)
    yield Hearing(store)
    store.close()


def admitted(here: Hearing, peer: Peer, activity: Activity, note: PreparedNote | None = None) -> admission.Admission:
    return here.store.transact_now(admission.admit, activity, Heard(IDS, peer, note))


def concerned(here: Hearing, activity: Activity, note: PreparedNote | None = None) -> list[int]:
    return here.store.read_now(admission.concerned, activity, Heard(IDS, person(), note))


def limited(reason: str, account_id: int | None) -> Admitted:
    """Heard, and hidden for this account."""
    return Admitted(((account_id, reason),))


def hidden(reason: str, account_id: int) -> Admitted:
    """An edit that takes the place of the old text, hidden; it brings the account nothing new."""
    return Admitted(((account_id, reason),), ((account_id, reason),))


def like(peer: Peer, uri: str) -> incoming.Like:
    return incoming.Like(f"{peer.uri}/{fresh('like')}", peer.uri, uri)


def create(peer: Peer, note: PreparedNote) -> incoming.Create:
    return incoming.Create(f"{peer.uri}/{fresh('create')}", peer.uri, note.uri, "Note", None)


def update(peer: Peer, note: PreparedNote) -> incoming.Update:
    return incoming.Update(f"{peer.uri}/{fresh('update')}", peer.uri, note.uri, "Note", None)


def host(peer: Peer) -> str:
    return peer.uri.split("/")[2]


# ── everybody who takes part ─────────────────────────────────────────────────────────────────────────────────────


def test_without_a_rule_everybody_is_let_in(here: Hearing) -> None:
    _, uri = here.post(here.account())
    bob = person()
    assert admitted(here, bob, like(bob, uri)) == Admitted()


def test_a_speaker_is_judged_by_id_handle_and_domain(here: Hearing) -> None:
    _, uri = here.post(here.account())
    for kind in ("id", "handle", "domain", "domain above"):
        bob = person(host=f"www.{fresh('suspended')}.example")
        subject = {"id": bob.uri, "handle": f"@{bob.handle}", "domain": host(bob), "domain above": host(bob)[4:]}[
            kind
        ]
        here.rule("suspend", subject, "domain" if "domain" in kind else "actor")
        refused = admitted(here, bob, like(bob, uri))
        assert isinstance(refused, Refused), kind
        assert refused == Refused(f"{'domain' if 'domain' in kind else 'actor'} suspended by the operator")
        assert (refused.account_id, refused.silently) == (None, False)
        assert admitted(here, person(), like(person(), uri)) == Admitted()


def test_the_limited_are_let_in_with_the_reason(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    here.rule("limit", host(bob))
    assert admitted(here, bob, like(bob, f"{bob.uri}/1")) == limited("domain limited by the operator", None)
    assert admitted(here, bob, like(bob, uri)) == limited("domain limited by the operator", account)


def named_at(bad: str, place: str) -> tuple[Peer, Activity, PreparedNote | None]:
    """An activity that names a server at one place only."""
    bob = person()
    uri = f"https://{bad}/{fresh('thing')}"
    mine = f"{bob.uri}/1"
    note: PreparedNote | None = None
    activity: Any = incoming.Like(mine, bob.uri, mine)
    match place:
        case "id":
            activity = replace(activity, id=uri)
        case "actor":
            activity = replace(activity, actor=uri)
        case "key":
            bob = replace(bob, key_id=uri)
        case "inbox":
            bob = replace(bob, inbox=uri)
        case "shared inbox":
            bob = replace(bob, shared_inbox=uri)
        case "object":
            activity = replace(activity, object=uri)
        case "object of a Delete":
            activity = incoming.Delete(mine, bob.uri, uri)
        case "object of a Create":
            activity = incoming.Create(mine, bob.uri, uri, None, None)
        case "target":
            activity = incoming.Move(mine, bob.uri, uri)
        case "note":
            activity, note = incoming.Create(mine, bob.uri, mine, "Note", None), note_of(bob, uri=uri)
        case "author":
            activity, note = incoming.Create(mine, bob.uri, mine, "Note", None), note_of(bob, author=uri)
    return bob, activity, note


@pytest.mark.parametrize(
    "place",
    ["id", "actor", "key", "inbox", "shared inbox", "object", "object of a Delete", "object of a Create", "target",
     "note", "author"],
)  # fmt: skip
def test_a_suspended_server_is_noticed_wherever_it_is_named(here: Hearing, place: str) -> None:
    bad = f"{fresh('bad')}.example"
    bob, activity, note = named_at(bad, place)
    assert isinstance(admitted(here, bob, activity, note), Admitted)
    here.rule("limit", bad)
    assert isinstance(admitted(here, bob, activity, note), Admitted)
    here.rule("suspend", bad)
    assert admitted(here, bob, activity, note) == Refused(BY_DOMAIN)


def test_what_is_undone_is_the_speakers_own_affair(here: Hearing) -> None:
    """The inside of an Undo was checked when it came; taking it back takes only away."""
    bad = f"{fresh('bad')}.example"
    here.rule("suspend", bad)
    bob = person()
    undo = incoming.UndoOf(f"{bob.uri}/1", bob.uri, f"{bob.uri}/2", "Like", f"https://{bad}/1")
    assert admitted(here, bob, undo) == Admitted()


def test_the_speakers_own_server_and_ours_are_no_third_party(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    here.rule("suspend", host(bob))
    here.rule("allow", bob.uri, "actor")
    assert admitted(here, bob, like(bob, uri)) == Admitted()
    here.rule("suspend", "bridge.example")
    try:
        assert admitted(here, bob, like(bob, uri)) == Admitted()
    finally:
        here.rule("allow", "bridge.example")


def test_what_has_no_server_is_not_looked_up(here: Hearing) -> None:
    """In allow-list mode the rule about everybody would be found for it."""
    bob = person()
    here.rule("allow", host(bob))
    here.store.transact_now(blocks.restrict_to_allowed, True)
    try:
        assert isinstance(admitted(here, person(), like(person(), "urn:x")), Refused)
        assert admitted(here, bob, like(bob, "urn:x")) == Admitted()
    finally:
        here.store.transact_now(blocks.restrict_to_allowed, False)
    assert not [row for row in here.rows("blocks") if row.held_by == SETTING]


# ── what an owner chose ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_owners_rule_is_asked_for_what_is_theirs_alone(here: Hearing) -> None:
    mine, other = here.account(), here.account()
    (_, my_post), (_, other_post) = here.post(mine), here.post(other)
    bob = person()
    here.rule("suspend", bob.uri, "actor", owner=mine)
    reason = "actor suspended by the owner"
    assert admitted(here, bob, like(bob, my_post)) == Refused(reason, mine, silently=True)
    assert admitted(here, bob, like(bob, other_post)) == Admitted()
    nobody = like(bob, f"{bob.uri}/1")
    assert admitted(here, bob, nobody) == Admitted()
    answer = note_of(bob, in_reply_to=my_post)
    assert admitted(here, bob, create(bob, answer), answer) == Refused(reason, mine, silently=True)
    follow = incoming.Follow(f"{bob.uri}/f", bob.uri, IDS.actor(mine))
    assert admitted(here, bob, follow) == Refused(reason, mine, silently=True)
    here.rule("limit", bob.uri, "actor", owner=other)
    assert admitted(here, bob, like(bob, other_post)) == limited("actor limited by the owner", other)


def test_endings_are_heard_from_whom_only_an_owner_suspends(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    here.rule("suspend", bob.uri, "actor", owner=account)
    said, reason = f"{bob.uri}/1", "actor suspended by the owner"
    answer = note_of(bob, in_reply_to=uri)
    assert admitted(here, bob, incoming.Block(said, bob.uri, IDS.actor(account))) == Admitted()
    assert admitted(here, bob, update(bob, answer), answer) == hidden(reason, account)
    assert admitted(here, bob, incoming.Delete(said, bob.uri, uri)) == Admitted()
    assert admitted(here, bob, incoming.UndoOf(said, bob.uri, said, "Like", uri)) == Admitted()
    here.rule("suspend", bob.uri, "actor")
    for ending in (
        incoming.Block(said, bob.uri, IDS.actor(account)), incoming.Delete(said, bob.uri, said),
        incoming.UndoOf(said, bob.uri, said, None, None),
    ):  # fmt: skip
        assert admitted(here, bob, ending) == Refused("actor suspended by the operator")


def test_words_that_an_owner_does_not_want(here: Hearing) -> None:
    account, other = here.account(), here.account()
    (_, uri), (_, elsewhere) = here.post(account), here.post(other)
    here.rule("suspend", "buy gold", "keyword", owner=account)
    here.rule("limit", "silver", "keyword", owner=account)
    bob = person()
    for _ in range(2):  # with and without a rule about the speaker
        bad = note_of(bob, in_reply_to=uri, html="<p>Buy <b>gold</b>!</p>")
        odd = note_of(bob, in_reply_to=uri, html="<p>Silver!</p>")
        assert admitted(here, bob, create(bob, bad), bad) == Refused(
            "keyword suspended by the owner", account, silently=True
        )
        # An edit is kept and hidden: the old text would stand otherwise.
        assert admitted(here, bob, update(bob, bad), bad) == hidden("keyword suspended by the owner", account)
        assert admitted(here, bob, create(bob, odd), odd) == limited("keyword limited by the owner", account)
        for innocent in (replace(bad, in_reply_to=elsewhere), replace(bad, html="<p>Gold</p>")):
            assert admitted(here, bob, create(bob, innocent), innocent) == Admitted()
        # Only its own text says what an edit is about; of one that did not come along nothing is known.
        assert admitted(here, bob, incoming.Update(f"{bob.uri}/u", bob.uri, uri, "Note", None)) == Admitted()
        about_nobody = replace(bad, in_reply_to=None)
        assert admitted(here, bob, create(bob, about_nobody), about_nobody) == Admitted()
        # What is not written, or does not come along, has no words.
        assert admitted(here, bob, like(bob, uri), bad) == Admitted()
        here.rule("allow", bob.uri, "actor", owner=account)


def test_words_that_the_operator_does_not_want_in_what_concerns_somebody_here(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    here.rule("suspend", "buy platinum", "keyword")
    bob = person()
    about_us = note_of(bob, in_reply_to=uri, html="<p>Buy platinum</p>")
    reason = "keyword suspended by the operator"
    assert admitted(here, bob, create(bob, about_us), about_us) == Refused(reason, account, silently=True)
    about_nobody = replace(about_us, in_reply_to=None)
    assert admitted(here, bob, create(bob, about_nobody), about_nobody) == Admitted()


def test_of_two_rules_the_stricter_is_told(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    here.rule("suspend", "gold", "keyword", owner=account)
    here.rule("limit", "silver", "keyword", owner=account)
    bob = person()
    golden, silver = (note_of(bob, in_reply_to=uri, html=f"<p>{word}</p>") for word in ("gold", "silver"))
    here.rule("limit", bob.uri, "actor", owner=account)
    assert admitted(here, bob, update(bob, golden), golden) == hidden("keyword suspended by the owner", account)
    assert admitted(here, bob, update(bob, silver), silver) == limited("actor limited by the owner", account)
    here.rule("suspend", bob.uri, "actor", owner=account)
    assert admitted(here, bob, update(bob, silver), silver) == hidden("actor suspended by the owner", account)


# ── what is done about it ────────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_is_counted_told_to_its_owner_and_a_follow_rejected(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    here.knows(bob)
    reason = fresh("no ")

    def turn(activity: Activity, kind: str, refused: Refused) -> TurnedAway:
        return here.store.transact_now(admission.turned_away, kind, activity, Heard(IDS, bob), refused)

    follow = incoming.Follow(f"{bob.uri}/f", bob.uri, IDS.actor(account))
    assert turn(follow, "Follow", Refused(reason)) == TurnedAway(reason, False)
    assert here.dropped("Follow", reason) == 1
    assert here.rows("decisions", reason=reason) == here.answers(account) == []
    assert turn(like(bob, uri), "Like", Refused(reason, account, silently=True)) == TurnedAway(reason, True)
    assert here.answers(account) == []
    (told,) = here.rows("decisions", reason=reason)
    assert (told.kind, told.subject, told.host, told.account_id) == ("Like", bob.uri, host(bob), account)
    assert turn(follow, "Follow", Refused(reason, account, silently=True)) == TurnedAway(reason, True)
    (rejected,) = here.answers(account)
    assert rejected["type"] == "Reject"
    assert rejected["actor"] == IDS.actor(account)
    assert rejected["object"] == {
        "id": follow.id, "type": "Follow", "actor": bob.uri, "object": IDS.actor(account)
    }  # fmt: skip
    (sent,) = here.rows("deliveries", account_id=account)
    assert sent.inbox == bob.inbox
    # What is said to the same one about the same arrives in order.
    assert sent.order_key == outbox.relation(IDS, account, bob.uri)
    assert here.dropped("Follow", reason) == 2


def test_a_follow_that_an_owner_does_not_want_is_rejected_and_not_kept(here: Hearing) -> None:
    account = here.account()
    bob = person()
    here.rule("suspend", bob.uri, "actor", owner=account)
    before = len(here.rows("peers"))
    follow = incoming.Follow(f"{bob.uri}/f", bob.uri, IDS.actor(account))
    assert here.hears(bob, follow) == TurnedAway("actor suspended by the owner", silently=True)
    assert here.rows("followers", account_id=account) == []
    assert len(here.rows("peers")) == before
    assert [said["type"] for said in here.answers(account)] == ["Reject"]
    # To a server that is suspended as a whole nothing goes.
    eve = person()
    here.rule("suspend", host(eve), owner=account)
    follow = incoming.Follow(f"{eve.uri}/f", eve.uri, IDS.actor(account))
    assert here.hears(eve, follow) == TurnedAway("domain suspended by the owner", silently=True)
    assert [said["type"] for said in here.answers(account)] == ["Reject"]


# ── whom it is about ─────────────────────────────────────────────────────────────────────────────────────────────


def test_whom_an_activity_is_about(here: Hearing) -> None:
    account, other, third = here.account(), here.account(), here.account()
    number, uri = here.post(account)
    _, other_uri = here.post(other)
    (row,) = here.rows("accounts", id=account)
    bob = person()
    answer = note_of(bob, in_reply_to=uri)
    assert here.hears(bob, create(bob, answer), answer) == Done()
    said = f"{bob.uri}/1"
    assert concerned(here, incoming.Follow(said, bob.uri, IDS.actor(account))) == [account]
    assert concerned(here, like(bob, uri)) == [account]
    assert concerned(here, like(bob, IDS.page(row.handle, number))) == [account]
    # An answer to an answer, by the one that we hold.
    assert concerned(here, like(bob, answer.uri)) == [account]
    assert concerned(here, incoming.Update(said, bob.uri, answer.uri, "Note", None)) == [account]
    deeper = note_of(bob, in_reply_to=answer.uri)
    assert concerned(here, create(bob, deeper), deeper) == [account]
    assert concerned(here, create(bob, answer), answer) == [account]
    # What it answers goes before what it quotes, and that before whom it names.
    both = note_of(bob, in_reply_to=uri, named=(IDS.actor(other),))
    assert concerned(here, create(bob, both), both) == [account, other]
    all_three = note_of(bob, in_reply_to=uri, quotes=other_uri, named=(IDS.actor(third), IDS.actor(other)))
    assert concerned(here, create(bob, all_three), all_three) == [account, other, third]
    assert concerned(here, update(bob, all_three), all_three) == [account, other, third]
    named = note_of(bob, named=(bob.uri, IDS.actor(other), IDS.actor(account)))
    assert concerned(here, create(bob, named), named) == [other, account]
    elsewhere = note_of(bob, in_reply_to=f"{bob.uri}/2", named=(f"{BASE}/nobody", IDS.actor(other)))
    assert concerned(here, create(bob, elsewhere), elsewhere) == [other]
    # Its object goes before what a post that came along answers.
    assert concerned(here, like(bob, uri), note_of(bob, in_reply_to=other_uri)) == [account]
    for nobody in (like(bob, said), like(bob, f"{BASE}/about"), incoming.Other(said, bob.uri, "View")):
        assert concerned(here, nobody) == []
    lonely = note_of(bob, named=(bob.uri,))
    assert concerned(here, create(bob, lonely), lonely) == []


# ── asked by others ──────────────────────────────────────────────────────────────────────────────────────────────


def test_who_may_read_and_who_is_not_heard(here: Hearing) -> None:
    account = here.account()
    bob, eve, mallory = person(), person(), person()
    store = here.store
    here.rule("suspend", bob.uri, "actor")
    here.rule("suspend", host(eve))
    here.rule("limit", mallory.uri, "actor")
    here.rule("suspend", mallory.uri, "actor", owner=account)
    assert not store.read_now(admission.may_read, bob.uri)
    assert not store.read_now(admission.may_read, eve.uri)
    assert store.read_now(admission.may_read, mallory.uri)
    assert not store.read_now(admission.may_read, mallory.uri, account)
    assert store.read_now(admission.may_read, person().uri)
    above = person(host=f"www.{fresh('above')}.example")
    here.rule("suspend", host(above).removeprefix("www."))
    assert not store.read_now(admission.may_read, above.uri)
    refusal = admission.refusal_of
    assert store.read_now(refusal, above.uri) == BY_DOMAIN
    assert store.read_now(refusal, bob.uri) == "actor suspended by the operator"
    assert store.read_now(refusal) is None
    assert store.read_now(refusal, person().uri, mallory.uri) is None
    # A key's id names its owner before the hash.
    assert store.read_now(refusal, bob.key_id) == "actor suspended by the operator"
    assert store.read_now(refusal, person().uri, f"{eve.uri}/notes/1") == BY_DOMAIN
    assert store.read_now(refusal, f"https://{host(eve)}/somebody#x#y") == BY_DOMAIN
    assert store.read_now(admission.ruling_about, mallory.uri).standing is Standing.LIMITED
    assert store.read_now(admission.ruling_about, mallory.uri, account).standing is Standing.SUSPENDED
