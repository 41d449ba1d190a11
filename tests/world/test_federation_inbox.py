"""Which verb has an effect, whose word counts for it, and what is written down when it has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.world.hearing import IDS, Hearing, fresh, note_of, person, verified

from threadbridge.activitypub import incoming
from threadbridge.domain.people import Peer
from threadbridge.errors import Forbidden
from threadbridge.federation import enforcement, inbox, relay
from threadbridge.federation.admission import Admitted
from threadbridge.federation.heard import Done, Dropped, Heard, PreparedNote, TurnedAway
from threadbridge.storage import migrate, quotes, rules
from threadbridge.storage.store import Store, Tx


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hearing]:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('heard') / 'heard.sqlite3'}")
    migrate.to_newest(store)
    yield Hearing(store)
    store.close()


def an_id(peer: Peer) -> str:
    return f"{peer.uri}/{fresh('said')}"


def created(peer: Peer, note: PreparedNote | None) -> incoming.Create:
    return incoming.Create(an_id(peer), peer.uri, note.uri if note else an_id(peer), "Note", None)


def updated(peer: Peer, note: PreparedNote | None) -> incoming.Update:
    return incoming.Update(an_id(peer), peer.uri, note.uri if note else an_id(peer), "Note", None)


def asked(peer: Peer, kind: str, about: str, instrument: str) -> incoming.Request:
    return incoming.Request(an_id(peer), peer.uri, kind, about, instrument, None)


# ── who speaks ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_speaks_with_the_signature_of_another(here: Hearing) -> None:
    _, uri = here.post(here.account())
    bob, eve = person(), person()
    before = here.everything()
    for signer, actor, peer in ((eve, bob, bob), (eve, bob, eve), (bob, bob, eve)):
        with pytest.raises(Forbidden):
            here.store.transact_now(
                inbox.receive, verified(signer.uri), incoming.Like(an_id(actor), actor.uri, uri), Heard(IDS, peer)
            )
    assert here.everything() == before
    assert here.hears(bob, incoming.Like(an_id(bob), bob.uri, uri)) == Done()


def test_who_is_news_is_written_down_and_nobody_else(here: Hearing) -> None:
    inbox_of = f"https://{fresh('box')}.example/inbox"
    bob = person(host=f"{fresh('web')}.example", inbox=inbox_of, shared_inbox=None)
    box = bob.inbox.split("/")[2]
    # What means nothing leaves nobody behind: neither the speaker nor the server.
    here.hears(bob, incoming.Other(an_id(bob), bob.uri, "View"), peer_is_news=True, host_is_news=True)
    assert here.rows("peers", uri=bob.uri) == here.rows("hosts", host=box) == []
    _, uri = here.post(here.account())
    here.hears(bob, incoming.Like(an_id(bob), bob.uri, uri), peer_is_news=True, host_is_news=False)
    (kept,) = here.rows("peers", uri=bob.uri)
    assert kept.host == bob.uri.split("/")[2]
    assert here.rows("hosts", host=box) == []
    here.hears(bob, incoming.Announce(an_id(bob), bob.uri, uri), peer_is_news=False, host_is_news=True)
    assert here.rows("hosts", host=box)[0].last_heard_at is not None
    # Awake is where we would deliver.
    shared = f"{fresh('shared')}.example"
    eve = person(shared_inbox=f"https://{shared}/inbox")
    here.hears(eve, incoming.Like(an_id(eve), eve.uri, uri), peer_is_news=True, host_is_news=True)
    assert here.rows("hosts", host=shared)[0].last_heard_at is not None
    assert here.rows("hosts", host=eve.inbox.split("/")[2]) == []


def test_an_activity_has_its_effect_once(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    liked = incoming.Like(an_id(bob), bob.uri, uri)
    undo = incoming.UndoOf(an_id(bob), bob.uri, liked.id, "Like", uri)
    assert here.hears(bob, liked) == Done()
    assert here.hears(bob, undo) == Done()
    before = here.everything()
    assert here.hears(bob, liked, peer_is_news=False, host_is_news=False) == Dropped("seen before")
    assert here.everything() == before
    (row,) = here.rows("reactions", account_id=account)
    assert row.undone_at is not None


def test_what_means_nothing_is_counted_with_its_reason(here: Hearing) -> None:
    bob = person()
    # Names of kinds that somebody made up are one name in the counts.
    view = incoming.Other(an_id(bob), bob.uri, fresh("View"))
    before = here.dropped("Other", "nothing we react to")
    assert here.hears(bob, view) == Dropped("nothing we react to")
    assert here.dropped("Other", "nothing we react to") == before + 1
    assert here.dropped(view.kind, "nothing we react to") == 0
    (heard,) = here.rows("seen_activities", uri=view.id)
    assert heard.outcome == "nothing we react to"
    # The column of outcomes holds 32 characters, that of the counts the whole.
    moved = incoming.Arrange(an_id(bob), bob.uri, True, an_id(bob), f"{IDS.base}/ap/users/1/collections/featured")
    reason = "arranges a collection here, which is its owner's"
    counted = here.dropped("Add", reason)
    assert here.hears(bob, moved) == Dropped(reason)
    assert here.dropped("Add", reason) == counted + 1
    assert here.rows("seen_activities", uri=moved.id)[0].outcome == reason[:32]


def test_what_has_an_effect_is_written_down_as_done(here: Hearing) -> None:
    _, uri = here.post(here.account())
    bob = person()
    liked = incoming.Like(an_id(bob), bob.uri, uri)
    assert here.hears(bob, liked) == Done()
    assert here.rows("seen_activities", uri=liked.id)[0].outcome == "done"
    assert here.rows("dropped", kind="Like", reason="done") == []


A, B = "https://a.example/1", "https://a.example/b"


@pytest.mark.parametrize(
    ("activity", "kind"),
    [
        (incoming.Follow(A, B, A), "Follow"),
        (incoming.UndoOf(A, B, A, "Follow", A), "Undo"),
        (incoming.Like(A, B, A), "Like"),
        (incoming.Announce(A, B, A), "Announce"),
        (incoming.Create(A, B, A, "Note", None), "Create"),
        (incoming.Update(A, B, A, "Note", None), "Update"),
        (incoming.Delete(A, B, A), "Delete"),
        (incoming.Block(A, B, A), "Block"),
        (incoming.Move(A, B, A), "Move"),
        (incoming.Flag(A, B, (A,), ""), "Flag"),
        (incoming.Answer(A, B, True, A, None, None), "Accept"),
        (incoming.Answer(A, B, False, A, None, None), "Reject"),
        (incoming.Arrange(A, B, True, A, None), "Add"),
        (incoming.Arrange(A, B, False, A, None), "Remove"),
        (incoming.Request(A, B, "QuoteRequest", A, B, None), "QuoteRequest"),
        (incoming.Request(A, B, "ReplyRequest", A, B, None), "ReplyRequest"),
        (incoming.Other(A, B, "Travel"), "Travel"),
    ],
)
def test_each_kind_is_counted_by_its_own_name(activity: incoming.Activity, kind: str) -> None:
    assert inbox.kind_of(activity) == kind


# ── one verb each ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_follow_its_undo_and_a_block(here: Hearing) -> None:
    account = here.account()
    bob, carl = person(), person()
    follow = incoming.Follow(an_id(bob), bob.uri, IDS.actor(account))
    assert here.hears(bob, follow) == Done()
    assert here.hears(carl, incoming.Follow(an_id(carl), carl.uri, IDS.actor(account))) == Done()
    assert [said["type"] for said in here.answers(account)] == ["Accept", "Accept"]
    assert here.hears(bob, incoming.UndoOf(an_id(bob), bob.uri, follow.id, "Follow", IDS.actor(account))) == Done()
    assert here.hears(carl, incoming.Block(an_id(carl), carl.uri, IDS.actor(account))) == Done()
    ended = {row.peer_uri: row.ended_by for row in here.rows("followers", account_id=account)}
    assert ended == {bob.uri: "unfollowed", carl.uri: "blocked"}


def test_who_follows_the_server_itself_is_no_follower(here: Hearing) -> None:
    bob = person()
    said = here.hears(bob, incoming.Follow(an_id(bob), bob.uri, IDS.instance))
    assert said == Dropped("follows the server itself")
    assert here.hears(bob, incoming.Follow(an_id(bob), bob.uri, f"{IDS.base}/ap/users/999999")) == Dropped(
        "follows nobody here"
    )


def test_a_relay_answers_and_follows_back(here: Hearing) -> None:
    machine = person("relay", kind="Application")
    here.store.transact_now(relay.subscribe, IDS, machine.uri, inbox=machine.inbox, actor_uri=machine.uri)
    (row,) = here.rows("relays", address=machine.uri)
    stranger = person()
    # A quote that nobody has answered yet is none of its business.
    number, uri = here.post(here.account())
    pending = {
        "uri": an_id(stranger),
        "author": stranger.uri,
        "url": "https://a.example",
        "request_uri": f"{uri}#asked",
    }
    here.store.transact_now(lambda tx: quotes.asked(tx, number, **pending))
    assert here.hears(
        stranger, incoming.Answer(an_id(stranger), stranger.uri, True, row.follow_uri, "Follow", None)
    ) == Dropped("answers what somebody else was asked")
    assert (
        here.hears(machine, incoming.Answer(an_id(machine), machine.uri, True, row.follow_uri, "Follow", None))
        == Done()
    )
    assert here.rows("relays", address=machine.uri)[0].state == "accepted"
    assert here.hears(machine, incoming.Follow(an_id(machine), machine.uri, IDS.instance)) == Done()


def test_reactions_and_their_undo(here: Hearing) -> None:
    account = here.account()
    number, uri = here.post(account)
    bob = person()
    liked, boosted = incoming.Like(an_id(bob), bob.uri, uri), incoming.Announce(an_id(bob), bob.uri, uri)
    assert here.hears(bob, liked) == here.hears(bob, boosted) == Done()
    assert {(row.kind, row.post_id) for row in here.rows("reactions", account_id=account)} == {
        ("like", number),
        ("announce", number),
    }
    assert here.hears(bob, incoming.UndoOf(an_id(bob), bob.uri, boosted.id, "Announce", uri)) == Done()
    assert here.rows("reactions", account_id=account, kind="like")[0].undone_at is None
    assert here.rows("reactions", account_id=account, kind="announce")[0].undone_at is not None


def test_an_undo_that_comes_first_takes_the_effect_away(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    liked = incoming.Like(an_id(bob), bob.uri, uri)
    undo = incoming.UndoOf(an_id(bob), bob.uri, liked.id, "Like", uri)
    assert here.hears(bob, undo) == Dropped("undoes nothing we know")
    assert here.rows("seen_activities", uri=liked.id)[0].outcome == "undone before it came"
    assert here.hears(bob, liked) == Dropped("seen before")
    assert here.rows("reactions", account_id=account) == []
    # Without an id there is nothing to remember.
    before = len(here.rows("seen_activities"))
    nameless = incoming.UndoOf(an_id(bob), bob.uri, None, "Like", uri)
    assert here.hears(bob, nameless) == Dropped("undoes nothing we know")
    assert len(here.rows("seen_activities")) == before + 1
    # And nobody takes away what another one will say.
    eve = person()
    again = incoming.Like(an_id(bob), bob.uri, uri)
    assert here.hears(eve, incoming.UndoOf(an_id(eve), eve.uri, again.id, "Like", uri)) == Dropped(
        "undoes nothing we know"
    )
    assert here.hears(bob, again) == Done()


def test_an_undo_ends_one_thing_only(here: Hearing) -> None:
    """Whatever knows the id first has its effect, and the others are not asked."""
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    follow = incoming.Follow(an_id(bob), bob.uri, IDS.actor(account))
    request = asked(bob, "QuoteRequest", uri, an_id(bob))
    assert here.hears(bob, follow) == here.hears(bob, request) == Done()
    assert here.hears(bob, incoming.UndoOf(an_id(bob), bob.uri, request.id, "QuoteRequest", uri)) == Done()
    assert here.rows("followers", account_id=account)[0].ended_at is None
    assert here.rows("quotes", account_id=account)[0].ended_at is not None
    assert here.hears(bob, incoming.UndoOf(an_id(bob), bob.uri, follow.id, None, None)) == Done()
    assert here.rows("seen_activities", uri=follow.id)[0].outcome == "done"


def test_a_post_answers_quotes_both_or_neither(here: Hearing) -> None:
    account = here.account()
    number, uri = here.post(account)
    bob = person()
    answer = note_of(bob, in_reply_to=uri)
    quote = note_of(bob, quotes=uri)
    both = note_of(bob, in_reply_to=uri, quotes=uri)
    neither = note_of(bob)
    answers_and_quotes_another = note_of(bob, in_reply_to=uri, quotes=f"{person().uri}/1")
    for note in (answer, quote, both, answers_and_quotes_another):
        assert here.hears(bob, created(bob, note), note) == Done(), note
    assert here.hears(bob, created(bob, neither), neither) == Dropped("answers nothing of ours")
    quotes_another = note_of(bob, quotes=f"{person().uri}/1")
    assert here.hears(bob, created(bob, quotes_another), quotes_another) == Dropped("answers nothing of ours")
    held = {row.uri for row in here.rows("replies", account_id=account)}
    assert held == {answer.uri, both.uri, answers_and_quotes_another.uri}
    assert {row.uri for row in here.rows("quotes", post_id=number)} == {quote.uri, both.uri}


def test_a_create_without_a_post_of_its_actor_is_nothing(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob, eve = person(), person()
    theirs = note_of(bob, in_reply_to=uri, quotes=uri)
    assert here.hears(eve, created(eve, None)) == Dropped("not a post")
    assert here.hears(eve, replace(created(eve, None), object_id=theirs.uri), theirs) == Dropped("not a post")
    assert here.rows("replies", account_id=account) == here.rows("quotes", account_id=account) == []


def test_a_vote_is_no_answer(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    vote = note_of(bob, in_reply_to=uri, is_vote=True, name="Yes", html="")
    assert here.hears(bob, created(bob, vote), vote) == Dropped("a vote in no poll of ours")
    nowhere = note_of(bob, is_vote=True, name="Yes", html="")
    assert here.hears(bob, created(bob, nowhere), nowhere) == Dropped("answers nothing of ours")
    assert here.rows("replies", account_id=account) == []


def test_an_update_changes_answers_and_quotes(here: Hearing) -> None:
    account = here.account()
    number, uri = here.post(account)
    bob = person()
    answer = note_of(bob, in_reply_to=uri)
    here.hears(bob, created(bob, answer), answer)
    changed = replace(answer, html="<p>Changed</p>")
    assert here.hears(bob, updated(bob, changed), changed) == Done()
    assert here.rows("replies", account_id=account)[0].html == "<p>Changed</p>"
    # It quotes us from now on, and is no answer.
    late = note_of(bob, quotes=uri)
    assert here.hears(bob, updated(bob, late), late) == Done()
    assert [row.uri for row in here.rows("quotes", post_id=number)] == [late.uri]
    unknown = note_of(bob)
    assert here.hears(bob, updated(bob, unknown), unknown) == Dropped("no such answer, or not newer")
    # What is not the actor's own is not looked at, and neither is what did not come along.
    eve = person()
    foreign = note_of(bob, quotes=uri)
    assert here.hears(eve, updated(eve, foreign), foreign) == Dropped("not a post")
    assert here.hears(eve, updated(eve, None)) == Dropped("not a post")
    assert [row.uri for row in here.rows("quotes", post_id=number)] == [late.uri]


def test_an_actor_that_updates_itself_moves_its_inbox(here: Hearing) -> None:
    account = here.account()
    bob = person(shared_inbox=None)
    here.hears(bob, incoming.Follow(an_id(bob), bob.uri, IDS.actor(account)))
    moved = replace(bob, inbox=f"{bob.inbox}/new")
    about_itself = incoming.Update(an_id(bob), bob.uri, bob.uri, "Person", None)
    assert here.hears(moved, about_itself) == Done()
    assert here.rows("followers", account_id=account)[0].inbox == moved.inbox


def test_a_delete_ends_answers_quotes_approvals_and_stamps(here: Hearing) -> None:
    account = here.account()
    number, uri = here.post(account)
    bob = person()
    answer, quote, both = (
        note_of(bob, in_reply_to=uri),
        note_of(bob, quotes=uri),
        note_of(bob, in_reply_to=uri, quotes=uri),
    )
    for note in (answer, quote, both):
        assert here.hears(bob, created(bob, note), note) == Done()
    approved = asked(bob, "ReplyRequest", uri, an_id(bob))
    assert here.hears(bob, approved) == Done()
    assert here.rows("approvals", uri=approved.instrument)[0].ended_at is None
    for note in (answer, quote, both):
        assert here.hears(bob, incoming.Delete(an_id(bob), bob.uri, note.uri)) == Done()
    assert here.rows("replies", account_id=account, deleted_at=None) == []
    assert {row.ended_at is None for row in here.rows("quotes", post_id=number)} == {False}
    assert here.hears(bob, incoming.Delete(an_id(bob), bob.uri, approved.instrument)) == Dropped("no such answer")
    assert here.rows("approvals", uri=approved.instrument)[0].ended_at is not None
    # A stamp that somebody gave to a post of ours.
    author = person()
    stamp = f"{author.uri}/stamps/{fresh('s')}"
    quoted = {"uri": an_id(author), "author": author.uri, "url": "https://a.example", "request_uri": fresh(uri)}
    here.store.transact_now(lambda tx: quotes.asked(tx, number, **quoted))
    here.store.transact_now(quotes.settle, number, "accepted", stamp)
    assert here.hears(bob, incoming.Delete(an_id(bob), bob.uri, stamp)) == Dropped("no such answer")
    assert here.hears(author, incoming.Delete(an_id(author), author.uri, stamp)) == Done()
    assert here.rows("quotings", post_id=number)[0].state == "revoked"


def test_a_delete_of_an_actor_ends_all_that_it_did(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    here.hears(bob, incoming.Follow(an_id(bob), bob.uri, IDS.actor(account)))
    here.hears(bob, incoming.Like(an_id(bob), bob.uri, uri))
    assert here.hears(bob, incoming.Delete(an_id(bob), bob.uri, bob.uri)) == Done()
    assert here.rows("followers", account_id=account)[0].ended_at is not None
    assert here.rows("reactions", account_id=account)[0].undone_at is not None
    assert here.rows("seen_activities", uri=bob.uri) == []


def test_the_two_requests_are_told_apart(here: Hearing) -> None:
    account = here.account()
    number, uri = here.post(account)
    bob = person()
    quoting, answering = asked(bob, "QuoteRequest", uri, an_id(bob)), asked(bob, "ReplyRequest", uri, an_id(bob))
    assert here.hears(bob, quoting) == here.hears(bob, answering) == Done()
    assert [row.uri for row in here.rows("quotes", post_id=number)] == [quoting.instrument]
    assert [row.uri for row in here.rows("approvals", post_id=number)] == [answering.instrument]


def test_an_answer_to_our_own_request_reaches_the_quote(here: Hearing) -> None:
    account = here.account()
    number, uri = here.post(account)
    author = person()
    quoted = {"uri": an_id(author), "author": author.uri, "url": "https://a.example", "request_uri": f"{uri}#asked"}
    here.store.transact_now(lambda tx: quotes.asked(tx, number, **quoted))
    eve = person()
    said: dict[str, Any] = {"accepted": False, "object": f"{uri}#asked", "inner_kind": None, "result": None}
    assert here.hears(eve, incoming.Answer(an_id(eve), eve.uri, **said)) == Dropped(
        "answered by somebody else than was asked"
    )
    assert here.hears(author, incoming.Answer(an_id(author), author.uri, **said)) == Done()
    assert here.rows("quotings", post_id=number)[0].state == "refused"
    other = {**said, "object": f"{uri}#other"}
    assert here.hears(author, incoming.Answer(an_id(author), author.uri, **other)) == Dropped(
        "answers nothing that we asked"
    )


def test_moves_complaints_and_arrangements(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    target = f"{bob.uri}2"
    assert here.hears(bob, incoming.Move(an_id(bob), bob.uri, target)) == Dropped("moves, and follows nobody here")
    here.hears(bob, incoming.Follow(an_id(bob), bob.uri, IDS.actor(account)))
    jobs = len(here.rows("jobs", kind="confirm_move"))
    assert here.hears(bob, incoming.Move(an_id(bob), bob.uri, target)) == Done()
    assert len(here.rows("jobs", kind="confirm_move")) == jobs + 1
    assert here.hears(bob, incoming.Flag(an_id(bob), bob.uri, (uri,), "rude")) == Done()
    assert len(here.rows("reports", account_id=account, direction="in")) == 1
    for added in (True, False):
        arranged = incoming.Arrange(an_id(bob), bob.uri, added, uri, f"{bob.uri}/featured")
        assert here.hears(bob, arranged) == Dropped("arranges a collection of their own")


# ── rules about who may speak ────────────────────────────────────────────────────────────────────────────────────


def test_who_is_turned_away_leaves_nothing(here: Hearing) -> None:
    _, uri = here.post(here.account())
    bob = person()
    here.rule("suspend", bob.uri, "actor")
    before = here.everything()
    reason = "actor suspended by the operator"
    counted = here.dropped("Like", reason)
    assert here.hears(bob, incoming.Like(an_id(bob), bob.uri, uri)) == TurnedAway(reason)
    note = note_of(bob, in_reply_to=uri)
    assert here.is_passed(bob, created(bob, note), note) == TurnedAway(reason)
    assert here.everything() == before
    assert here.dropped("Like", reason) == counted + 1
    assert here.dropped("Create", reason) >= 1


def test_what_the_limited_do_is_kept_and_hidden(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    here.rule("limit", bob.uri, "actor", owner=account)
    hidden = "hidden: actor limited by the owner"
    nothing = note_of(bob, in_reply_to=f"{person().uri}/1", named=())
    assert here.hears(bob, created(bob, nothing), nothing) == Dropped("answers nothing of ours")
    assert here.is_passed(bob, updated(bob, nothing), nothing) == Dropped("no such answer, or not newer")
    about_us = note_of(bob, named=(IDS.actor(account),), in_reply_to=f"{person().uri}/1", copy_of=uri)
    assert here.hears(bob, created(bob, about_us), about_us) == Dropped("our own post, back over a bridge")
    assert here.is_passed(bob, created(bob, about_us), about_us) == Dropped("our own post, back over a bridge")
    assert here.rows("decisions", account_id=account, reason=hidden) == []
    answer, passed = note_of(bob, in_reply_to=uri), note_of(bob, in_reply_to=uri)
    assert here.hears(bob, created(bob, answer), answer) == Done()
    assert here.rows("replies", uri=answer.uri)[0].hidden == "limited"
    (told,) = here.rows("decisions", account_id=account, reason=hidden)
    assert (told.kind, told.subject) == ("Create", bob.uri)
    assert here.is_passed(bob, created(bob, passed), passed) == Done()
    assert here.rows("replies", uri=passed.uri)[0].hidden == "limited"
    carl = person()
    shown = note_of(carl, in_reply_to=uri)
    assert here.hears(carl, created(carl, shown), shown) == Done()
    assert here.rows("replies", uri=shown.uri)[0].hidden is None
    found = note_of(carl, in_reply_to=uri)
    assert here.is_passed(carl, created(carl, found), found) == Done()
    assert here.rows("decisions", subject=carl.uri) == []


# ── what another one passed on ───────────────────────────────────────────────────────────────────────────────────


def test_what_is_passed_on_has_its_effect_by_its_object(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob, eve = person(), person()
    answer = note_of(bob, in_reply_to=uri)
    forwarded = created(bob, answer)
    before = here.everything()
    with pytest.raises(Forbidden):
        here.is_passed(eve, forwarded, answer)
    assert here.everything() == before
    assert here.is_passed(bob, forwarded, answer) == Done()
    assert [row.uri for row in here.rows("replies", account_id=account)] == [answer.uri]
    assert here.rows("peers", uri=bob.uri)[0].host == bob.uri.split("/")[2]
    # The forwarded id is nobody's proof: who really says it is still heard.
    assert here.rows("seen_activities", uri=forwarded.id) == []
    known = "known already, or deleted before it came"
    counted = here.dropped("Create", known)
    assert here.is_passed(bob, forwarded, answer) == Dropped(known)
    assert here.dropped("Create", known) == counted + 1
    changed = replace(answer, html="<p>New</p>")
    assert here.is_passed(bob, updated(bob, changed), changed) == Done()
    assert here.rows("replies", account_id=account)[0].html == "<p>New</p>"
    assert here.is_passed(bob, incoming.Delete(an_id(bob), bob.uri, answer.uri)) == Done()
    assert here.rows("replies", account_id=account, deleted_at=None) == []


def test_only_what_can_be_looked_up_is_believed_when_passed_on(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    reason = "not confirmed by its origin"
    counted = here.dropped("Like", reason)
    for activity in (
        incoming.Like(an_id(bob), bob.uri, uri),
        incoming.Follow(an_id(bob), bob.uri, IDS.actor(account)),
        incoming.Announce(an_id(bob), bob.uri, uri),
        incoming.Flag(an_id(bob), bob.uri, (uri,), ""),
    ):
        assert here.is_passed(bob, activity) == Dropped(reason)
    assert here.dropped("Like", reason) == counted + 1
    assert here.rows("reactions", account_id=account) == here.rows("followers", account_id=account) == []


def test_what_one_owner_does_not_want_is_heard_by_the_others_and_told_to_that_one(here: Hearing) -> None:
    first, second = here.account(), here.account()
    _, uri = here.post(first)
    for hears in (here.hears, here.is_passed):
        bob = person()
        here.rule("suspend", bob.uri, "actor", owner=second)
        answer = note_of(bob, in_reply_to=uri, named=(IDS.actor(second),))
        assert hears(bob, created(bob, answer), answer) == Done()
        assert [row.account_id for row in here.rows("replies", uri=answer.uri)] == [first]
        (told,) = here.rows("decisions", subject=bob.uri)
        assert (told.account_id, told.kind, told.reason) == (second, "Create", "actor suspended by the owner")
        assert told.host == bob.uri.split("/")[2]


def test_only_what_the_limited_do_is_kept_back(here: Hearing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else waits to be settled about somebody is for the job that does so."""
    kept: list[str] = []
    keep_back = enforcement.keep_back

    def watched(tx: Tx, kind: str, heard: Heard, admitted: Admitted) -> None:
        kept.append(heard.peer.uri)
        keep_back(tx, kind, heard, admitted)

    monkeypatch.setattr(enforcement, "keep_back", watched)
    account = here.account()
    _, uri = here.post(account)
    bob, carl = person(), person()
    here.rule("limit", bob.uri, "actor", owner=account)
    for peer in (bob, carl):
        assert here.hears(peer, incoming.Like(an_id(peer), peer.uri, uri)) == Done()
        assert here.hears(peer, incoming.Like(an_id(peer), peer.uri, an_id(peer))) != Done()
    assert kept == [bob.uri]


def test_what_nobody_sent_is_for_the_verb_that_is_named(here: Hearing) -> None:
    """And whoever had an effect stays known, whatever it was."""
    bob, eve = person(), person()
    for peer, reason in ((bob, None), (eve, fresh("of no use "))):
        note = note_of(peer)
        found: list[str] = []

        def verb(tx: Tx, activity: incoming.Create, heard: Heard, to: list[str] = found, said: Any = reason) -> Any:
            to.append(activity.object_id)
            return said

        outcome = here.store.transact_now(inbox.receive_fetched, created(peer, note), Heard(IDS, peer, note), verb)
        assert outcome == (Done() if reason is None else Dropped(reason))
        assert found == [note.uri]
        assert here.rows("replies", uri=note.uri) == []
    assert [row.uri for row in here.rows("peers", uri=bob.uri)] == [bob.uri]
    assert here.rows("peers", uri=eve.uri) == []


def test_who_may_answer_is_asked_once_a_post_arrives(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    here.store.transact_now(
        lambda tx: rules.choose(tx, account, replace(rules.of_account(tx, account), replies="nobody"))
    )
    bob = person()
    answer = note_of(bob, in_reply_to=uri)
    assert here.hears(bob, created(bob, answer), answer) == Dropped("nobody may answer this post")
    assert here.hears(bob, asked(bob, "ReplyRequest", uri, an_id(bob))) == Dropped("nobody may answer this post")
    assert here.rows("replies", account_id=account) == []
