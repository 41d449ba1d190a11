"""What several owners say about one activity, and what is written down about who speaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from tests.world.hearing import BASE, IDS, Hearing, fresh, note_of, person

from threadbridge.activitypub import incoming
from threadbridge.domain.accounts import AccountState
from threadbridge.domain.blocks import FINE, Ruling, Standing
from threadbridge.domain.people import Peer
from threadbridge.federation import admission, inbox, loops
from threadbridge.federation.admission import Admitted, Refused
from threadbridge.federation.heard import Done, Dropped, Heard, PreparedNote
from threadbridge.storage import accounts, blocks, migrate
from threadbridge.storage.store import Store


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hearing]:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('owners') / 'owners.sqlite3'}")
    migrate.to_newest(store)
    yield Hearing(store)
    store.close()


def gone(here: Hearing, account_id: int) -> int:
    here.store.transact_now(accounts.set_state, account_id, AccountState.GONE, "test")
    return account_id


def test_what_some_do_not_want_is_heard_by_the_others(here: Hearing) -> None:
    bob = person()
    reason = fresh("no ")
    first, second, third = (here.account() for _ in range(3))
    admitted = Admitted(
        limited=((first, "hidden"), (None, "about nobody")),
        closed=((first, "hidden"), (second, reason), (third, reason)),
    )
    before = len(here.rows("decisions"))
    with capture_logs() as said:
        heard = here.store.transact_now(admission.narrowed, "Create", Heard(IDS, bob), admitted)
    assert (heard.closed, heard.limited) == (frozenset({first, second, third}), frozenset({first}))
    # The owner for whom it is hidden finds it there; the others read why they do not.
    told = here.rows("decisions", reason=reason)
    host = bob.uri.split("/")[2]
    assert [(row.kind, row.subject, row.host, row.account_id) for row in told] == [
        ("Create", bob.uri, host, account_id) for account_id in (second, third)
    ]
    assert len(here.rows("decisions")) == before + 2
    assert said == [
        {
            "event": "turned away", "log_level": "info", "door": "Create", "reason": reason, "actor": bob.uri,
            "account": account_id, "silently": True,
        }
        for account_id in (second, third)
    ]  # fmt: skip


def test_it_is_narrowed_by_each_alone(here: Hearing) -> None:
    account = here.account()
    for admitted in (Admitted(limited=((account, "hidden"),)), Admitted(closed=((account, "no"),)), Admitted()):
        heard = here.store.transact_now(admission.narrowed, "Create", Heard(IDS, person()), admitted)
        assert heard.closed == {number for number, _ in admitted.closed}
        assert heard.limited == {number for number, _ in admitted.limited}


def test_one_owners_refusal_is_nobody_elses(here: Hearing) -> None:
    first, second = here.account(), here.account()
    bob = person()
    here.rule("suspend", bob.uri, "actor", owner=first)
    reason = "actor suspended by the owner"

    def judged(*named: int) -> admission.Admission:
        note = note_of(bob, named=tuple(IDS.actor(number) for number in named))
        create = incoming.Create(f"{bob.uri}/{fresh('c')}", bob.uri, note.uri, "Note", None)
        return here.store.transact_now(admission.admit, create, Heard(IDS, bob, note))

    assert judged(second) == Admitted()
    assert judged(first, second) == judged(second, first) == Admitted(closed=((first, reason),))
    assert judged(first) == Refused(reason, first, silently=True)
    here.rule("suspend", bob.uri, "actor", owner=second)
    assert judged(second, first) == Refused(reason, second, silently=True)


def test_what_is_asked_has_words_and_what_is_taken_back_has_none(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob, eve = person(), person()
    word = fresh("bronze")
    here.rule("suspend", word, "keyword", owner=account)
    # No text at all is not a text that says so.
    here.rule("suspend", "xx", "keyword", owner=account)
    here.rule("limit", eve.uri, "actor")

    def judged(peer: Peer, activity: incoming.Activity, note: PreparedNote | None = None) -> admission.Admission:
        return here.store.transact_now(admission.admit, activity, Heard(IDS, peer, note))

    quoting = note_of(bob, html=f"<p>Look: {word}</p>", quotes=uri)
    request = incoming.Request(f"{bob.uri}/{fresh('r')}", bob.uri, "QuoteRequest", uri, quoting.uri, None)
    assert judged(bob, request, quoting) == Refused("keyword suspended by the owner", account, silently=True)
    assert judged(bob, request) == judged(bob, request, replace(quoting, html="<p>Look!</p>")) == Admitted()
    by_eve = f"{eve.uri}/{fresh('said')}"
    limited = Admitted(((account, "actor limited by the operator"),))
    assert judged(eve, incoming.Like(by_eve, eve.uri, uri)) == limited
    assert judged(eve, incoming.UndoOf(f"{by_eve}/undo", eve.uri, by_eve, "Like", uri)) == Admitted()


def test_whom_a_rule_names_is_written_down_when_they_speak(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob, namesake = person(), person()
    others = f"@{namesake.handle}"
    for handle in (f"@{bob.handle}", others):
        here.rule("limit", handle, "actor", owner=account)
    like = incoming.Like(f"{bob.uri}/{fresh('like')}", bob.uri, uri)
    assert here.hears(bob, like) == Done()
    assert here.store.read_now(blocks.pinned, f"@{bob.handle}") == {bob.uri}
    assert here.store.read_now(blocks.pinned, others) == set()
    # Rules that name no handle say already whom they are about.
    here.rule("limit", bob.uri, "actor", owner=account)
    here.rule("limit", bob.uri.split("/")[2], owner=account)
    for subject in (bob.uri, bob.uri.split("/")[2]):
        here.hears(bob, incoming.Announce(f"{bob.uri}/{fresh('boost')}", bob.uri, uri))
        assert here.store.read_now(blocks.pinned, subject) == set()
    # Whoever takes the name afterwards does not take the rule over.
    thief = person(handle=bob.handle)
    here.hears(thief, incoming.Like(f"{thief.uri}/{fresh('like')}", thief.uri, uri))
    assert here.store.read_now(blocks.pinned, f"@{bob.handle}") == {bob.uri}


def test_whoever_takes_another_name_is_still_who_they_were(here: Hearing) -> None:
    bob = here.knows(person())
    here.rule("suspend", f"@{bob.handle}", "actor")
    renamed = replace(bob, handle=f"{fresh('other')}@{bob.handle.partition('@')[2]}")
    admit = admission.admit

    def judged(activity: incoming.Activity) -> admission.Admission:
        return here.store.transact_now(admit, activity, Heard(IDS, renamed))

    update = incoming.Update(f"{bob.uri}/{fresh('u')}", bob.uri, bob.uri, "Person", None)
    assert judged(update) == Refused("actor suspended by the operator")
    # The former name was pinned by that, and rules about it hold whatever they say next.
    assert here.store.read_now(blocks.pinned, f"@{bob.handle}") == {bob.uri}


def test_a_former_name_counts_only_while_it_is_changed(here: Hearing) -> None:
    bob = here.knows(person())
    renamed = replace(bob, handle=f"{fresh('other')}@{bob.handle.partition('@')[2]}")
    elsewhere = person()
    here.rule("suspend", f"@{bob.handle}", "actor", owner=here.account())
    about_a_post = incoming.Update(f"{bob.uri}/{fresh('u')}", bob.uri, f"{bob.uri}/1", "Note", None)
    here.store.transact_now(admission.admit, about_a_post, Heard(IDS, renamed))
    assert here.store.read_now(blocks.pinned, f"@{bob.handle}") == set()
    unknown = incoming.Update(f"{elsewhere.uri}/u", elsewhere.uri, elsewhere.uri, "Person", None)
    assert here.store.transact_now(admission.admit, unknown, Heard(IDS, elsewhere)) == Admitted()


def test_nobody_is_asked_who_is_gone(here: Hearing) -> None:
    account, left = here.account(), gone(here, here.account())
    bob = person()

    def concerned(activity: incoming.Activity, note: object = None) -> list[int]:
        return here.store.read_now(admission.concerned, activity, Heard(IDS, bob, note))  # type: ignore[arg-type]

    assert concerned(incoming.Follow(f"{bob.uri}/f", bob.uri, IDS.actor(left))) == []
    assert concerned(incoming.Follow(f"{bob.uri}/f", bob.uri, IDS.actor(987654))) == []
    nobody = f"{BASE}/nobody"
    named = note_of(bob, named=(nobody, IDS.actor(987654), IDS.actor(left), IDS.actor(account), IDS.actor(account)))
    create = incoming.Create(f"{bob.uri}/c", bob.uri, named.uri, "Note", None)
    assert concerned(create, named) == [account]
    assert here.store.read_now(admission.named_here, Heard(IDS, bob, named)) == [account]
    assert here.store.read_now(admission.named_here, Heard(IDS, bob)) == []


def test_one_post_is_a_mention_of_twenty_at_most(here: Hearing) -> None:
    many = [here.account() for _ in range(admission.NAMED_MAX + 2)]
    assert admission.NAMED_MAX == 20
    bob = person()
    note = note_of(bob, named=tuple(IDS.actor(number) for number in many))
    assert here.store.read_now(admission.named_here, Heard(IDS, bob, note)) == many[:20]


def test_words_about_an_account_are_judged_by_its_rules(here: Hearing) -> None:
    account, other = here.account(), here.account()
    here.rule("limit", fresh("bronze"), "keyword", owner=account)
    word = fresh("copper")
    here.rule("suspend", word, "keyword", owner=account)

    def rule(html: str, account_id: int) -> Ruling:
        return here.store.read_now(admission.ruling_on_words, html, account_id)

    assert rule(f"<p>Buy <b>{word}</b></p>", account).standing is Standing.SUSPENDED
    assert rule(f"<p>Buy <b>{word}</b></p>", other) == FINE
    assert rule("<p>Buy nothing</p>", account).standing is Standing.FINE


def test_who_has_no_effect_is_not_remembered(here: Hearing) -> None:
    account = here.account()
    _, uri = here.post(account)
    bob = person()
    said = incoming.Like(f"{bob.uri}/{fresh('like')}", bob.uri, f"{bob.uri}/elsewhere")
    assert isinstance(here.hears(bob, said), Dropped)
    assert here.rows("peers", uri=bob.uri) == []
    # Somebody met before stays, as they describe themselves now.
    here.knows(bob)
    renamed = replace(bob, name="Bob again")
    assert isinstance(here.hears(renamed, replace(said, id=f"{said.id}2"), peer_is_news=True), Dropped)
    assert [row.name for row in here.rows("peers", uri=bob.uri)] == ["Bob again"]
    unheard = replace(bob, name="not looked up")
    assert isinstance(here.hears(unheard, replace(said, id=f"{said.id}3"), peer_is_news=False), Dropped)
    assert [row.name for row in here.rows("peers", uri=bob.uri)] == ["Bob again"]
    # And who was thought to be known, and is not, is met now.
    eve = person()
    like = incoming.Like(f"{eve.uri}/{fresh('like')}", eve.uri, uri)
    assert here.hears(eve, like, peer_is_news=False) == Done()
    assert [row.name for row in here.rows("peers", uri=eve.uri)] == [eve.name]
    assert here.hears(eve, like) == Dropped("seen before")


def test_what_a_relay_brings_of_others_is_counted(here: Hearing) -> None:
    bob = person()
    before = here.dropped("Create", loops.OTHERS)
    said = incoming.Create(f"{bob.uri}/c", bob.uri, f"{bob.uri}/1", "Note", None)
    assert here.store.transact_now(inbox.passed_on, said) == Dropped(loops.OTHERS)
    assert here.dropped("Create", loops.OTHERS) == before + 1
