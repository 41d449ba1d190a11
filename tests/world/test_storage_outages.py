"""Hosts that stay away: one probe at a time, what waits too long ends, followers are parked and come back; the pace
that hosts ask for; how many are remembered."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from tests.world.deliverable import (
    Clock,
    account,
    address,
    fail,
    follower,
    rows,
    said,
    settle,
    take,
)

from threadbridge.delivery import retry, tending
from threadbridge.domain import hosts as rules
from threadbridge.domain.people import Peer
from threadbridge.storage import (
    blocks,
    board,
    decisions,
    figures,
    followers,
    hosts,
    jobs,
    migrate,
    outages,
    peers,
    schema,
    turns,
)
from threadbridge.storage.store import Store, Tx


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    opened = Store.open(database_url, clock=clock)
    yield opened
    opened.close()


def host(store: Store, name: str = "a.example") -> Any:
    (row,) = rows(store, "hosts", host=name)
    return row


def state(store: Store, name: str = "a.example") -> str:
    row = host(store, name)
    return rules.standing(hosts.memory_of(row), store.clock()).state


def opened_breaker(store: Store, clock: Clock, name: str = "a.example", *, waiting: int = 3) -> None:
    """A host that has failed five times; so many deliveries, each of another account, wait for it."""
    for number in range(waiting):
        address(store, said(store, account(store, f"{name}{number}")), name)
    for _ in range(5):
        (held,) = take(store, limit=1)
        fail(store, held, clock.now, held_until=clock.now + timedelta(minutes=1))
        hold = schema.hosts.update().where(schema.hosts.c.host == name).values(held_until=None)
        store.transact_now(Tx.execute, hold)
    until = schema.hosts.update().where(schema.hosts.c.host == name).values(held_until=clock.now + rules.PROBE_FOR)
    store.transact_now(Tx.execute, until)
    while take(store):
        pass


# ── probing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_probe_goes_however_many_workers_there_are(store: Store, clock: Clock, database_url: str) -> None:
    opened_breaker(store, clock, waiting=12)
    clock.forward(minutes=1)
    assert state(store) == "probing"
    other = Store.open(database_url, clock=clock)
    try:
        with ThreadPoolExecutor(4) as pool:
            claims = list(pool.map(take, [store, other] * 4))
    finally:
        other.close()
    (probe,) = [row for claimed in claims for row in claimed]
    assert state(store) == "open"
    clock.forward(seconds=20)
    assert take(store) == []
    settle(store, probe)
    assert state(store) == "closed"
    store.transact_now(hosts.bring_forward, "a.example")
    assert len(take(store)) == turns.HOST_LIMIT


@pytest.mark.parametrize("status", [None, 404, 401, 308, 503, 429, 408, 425, 451])
def test_what_a_host_has_refused_is_not_hastened_by_its_return(
    store: Store, clock: Clock, status: int | None
) -> None:
    """A server that is starting may say no to everything: its queue would have used up all its tries at once."""
    address(store, said(store, account(store)), "a.example")
    (held,) = take(store)
    settle(store, held, "waiting", due_at=clock.now + timedelta(hours=12), status=status, reason="x")
    assert store.transact_now(hosts.bring_forward, "a.example") is retry.is_trouble(status)
    assert bool(take(store)) is retry.is_trouble(status)
    clock.forward(hours=12)
    assert not rows(store, leased_until=None) or len(take(store)) == 1


def test_who_only_refuses_has_taken_nothing(store: Store, clock: Clock) -> None:
    alice = account(store)
    address(store, said(store, alice), "a.example")
    settle(store, take(store)[0], "refused", status=403, reason="not welcome")
    assert (host(store).last_delivered_at, state(store)) == (None, "closed")
    address(store, said(store, alice), "a.example")
    settle(store, take(store)[0])
    taken = clock.now
    clock.forward(hours=1)
    address(store, said(store, alice), "a.example")
    fail(store, take(store)[0], clock.now)
    settle(store, take(store)[0], "refused", status=403, reason="not welcome")
    assert (host(store).last_delivered_at, host(store).failing_since) == (taken, None)


def test_one_that_came_back_while_it_was_looked_at_is_not_parked(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example", "a.example/2")
    first, second = take(store)
    fail(store, first, clock.now + timedelta(days=90))
    clock.forward(days=8)
    jobs_held = store.transact_now(jobs.take, [hosts.TEND], 8.0, 1)
    settle(store, second)
    away = tending.Found(False, "did not answer")
    store.transact_now(tending._settle_look, jobs_held[0], "a.example", away, True)
    assert (host(store).parked_at, state(store)) == (None, "closed")
    store.transact_now(outages.park, "a.example")
    store.transact_now(hosts.reached, "a.example")
    assert host(store).parked_at is None


def test_a_probe_whose_worker_died_is_followed_by_another(store: Store, clock: Clock) -> None:
    opened_breaker(store, clock)
    clock.forward(minutes=1)
    assert len(take(store)) == 1
    clock.forward(seconds=31)
    assert len(take(store)) == 1


def test_who_speaks_all_the_time_and_cannot_be_reached_is_looked_at_hourly_and_parked(
    store: Store, clock: Clock
) -> None:
    opened_breaker(store, clock)
    probes = 0
    for _ in range(7 * 24 * 6):
        clock.forward(minutes=10)
        store.transact_now(hosts.heard_from, "a.example")
        for claimed in take(store):
            probes += 1
            again = clock.now + timedelta(hours=12)
            fail(store, claimed, again, held_until=clock.now + timedelta(hours=12))
        while store.transact_now(hosts.bring_forward, "a.example"):
            pass
    row = host(store)
    assert row.last_heard_at == clock.now
    assert row.last_delivered_at is None
    assert rules.is_to_be_parked(hosts.memory_of(row), clock.now)
    assert 7 * 24 - 2 <= probes <= 7 * 24 + 2


# ── parking ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_parked_host_gets_nothing_new_but_deletions_and_its_followers_are_followers(
    store: Store, clock: Clock
) -> None:
    alice = account(store)
    follower(store, alice, "bob", "a.example")
    follower(store, alice, "carol", "well.example")
    address(store, said(store, alice), "a.example")
    fail(store, take(store)[0], clock.now)
    clock.forward(days=8)
    store.transact_now(outages.park, "a.example")
    store.transact_now(outages.park, "a.example")  # once
    assert state(store) == "parked"
    both = ("a.example", "well.example")
    assert address(store, said(store, alice), *both) == 1
    assert address(store, said(store, alice, "Update", post_id=None), *both) == 2  # of the account
    assert address(store, said(store, alice, "Delete"), *both) == 2
    assert [(one.host, one.followers, one.since) for one in store.read_now(outages.waiting_followers, alice)] == [
        ("a.example", 1, clock.now)
    ]
    assert len(rows(store, "followers", ended_at=None)) == 2
    told = [decision for _, decision in store.read_now(decisions.page)]
    assert {(d.account_id, d.kind, d.subject) for d in told} == {
        (None, "host", "a.example"), (alice, "host", "a.example"),
    }  # fmt: skip
    assert len(told) == 2
    # What somebody does meanwhile stays as it is: an Undo ends the follow, parked or not.
    assert store.transact_now(followers.end, alice, "https://a.example/users/bob", cause="unfollowed")
    assert store.read_now(outages.waiting_followers, alice) == []


def test_what_waits_too_long_ends_and_deletions_wait_longer(store: Store, clock: Clock) -> None:
    alice = account(store)
    for kind in ("Create", "Delete", "Update"):
        address(store, said(store, alice, kind), "a.example", "other.example")
    for claimed in take(store):
        again = clock.now + timedelta(days=90)
        if claimed.host == "a.example":
            fail(store, claimed, again, held_until=again)
    clock.forward(days=7)
    while store.transact_now(outages.expire, "a.example", limit=1):
        pass
    ended = rows(store, state="given_up")
    assert [(row.host, row.reason) for row in ended] == [("a.example", "could not be reached; given up after 7 days")]
    clock.forward(days=23)
    while store.transact_now(outages.expire, "a.example"):
        pass
    assert [row.reason.rpartition("; ")[2] for row in rows(store, state="given_up")] == [
        "given up after 7 days", "given up after 30 days", "given up after 30 days",
    ]  # fmt: skip
    assert {row.state for row in rows(store, host="other.example")} == {"waiting"}


def test_a_host_that_answers_and_takes_nothing_is_parked_again_at_once(store: Store, clock: Clock) -> None:
    alice = account(store)
    follower(store, alice, "bob", "a.example")
    address(store, said(store, alice, "Delete"), "a.example")
    fail(store, take(store)[0], clock.now, held_until=clock.now)
    clock.forward(days=8)
    store.transact_now(outages.park, "a.example")
    store.transact_now(outages.answered, "a.example")
    assert state(store) == "probing"
    assert store.read_now(outages.waiting_followers, alice) == []
    (probe,) = take(store)
    fail(store, probe, clock.now, held_until=clock.now + timedelta(minutes=1))
    (job,) = rows(store, "jobs", kind=hosts.TEND)
    assert job.due_at <= clock.now


def test_one_that_takes_a_delivery_is_well(store: Store, clock: Clock) -> None:
    alice = account(store)
    address(store, said(store, alice, "Delete"), "a.example/1", "a.example/2", "a.example/3")
    for claimed in take(store):
        fail(store, claimed, clock.now + timedelta(hours=1), held_until=clock.now)
    clock.forward(days=8)
    store.transact_now(outages.park, "a.example")
    store.transact_now(outages.answered, "a.example")
    store.transact_now(hosts.bring_forward, "a.example")
    (probe,) = take(store)
    settle(store, probe)
    assert state(store) == "closed"
    assert host(store).parked_at is None
    while store.transact_now(hosts.bring_forward, "a.example"):
        pass
    assert len(take(store)) == 2


def test_people_and_their_inboxes_may_be_on_different_hosts(store: Store, clock: Clock) -> None:
    """wordpress.com takes the deliveries for blogs under their own names."""
    alice = account(store)
    uri = "https://blog.example/?author=1"
    peer = Peer(
        uri=uri, inbox="https://hub.example/rest/inbox", shared_inbox=None, handle="me@blog.example", name="me",
        url=None, key_id=f"{uri}#main-key", key_pem="pem", kind="Person", moved_to=None,
    )  # fmt: skip

    def follows(tx: Tx) -> None:
        peers.save(tx, peer, "blog.example")
        followers.follow(tx, alice, peer, f"{uri}#follow")

    store.transact_now(follows)
    address(store, said(store, alice), "hub.example")
    fail(store, take(store)[0], clock.now)
    clock.forward(days=8)
    store.transact_now(outages.park, "hub.example")
    assert [one.host for one in store.read_now(outages.waiting_followers, alice)] == ["hub.example"]
    blog = store.read_now(board.sheet, "blog.example")
    hub = store.read_now(board.sheet, "hub.example")
    assert blog is not None
    assert hub is not None
    assert (blog.line.state, blog.served_by) == ("closed", {"hub.example": 1})
    assert (hub.line.state, hub.lives_there, hub.followers) == ("parked", {"blog.example": 1}, 1)
    store.transact_now(followers.move_inbox, Peer(**{**_fields(peer), "inbox": "https://blog.example/inbox"}))
    assert store.read_now(outages.waiting_followers, alice) == []


def _fields(peer: Peer) -> dict[str, Any]:
    return {name: getattr(peer, name) for name in Peer.__dataclass_fields__}


# ── its pace ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_to_be_asked_for_peace_is_no_failure(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), "a.example", "b.example")
    one, two = take(store)
    later = clock.now + timedelta(minutes=4)
    words = {"reason": "slow", "host_trouble": "429: they ask us to slow down"}
    settle(store, one, "waiting", due_at=later, status=429, **words)
    settle(store, two, "waiting", due_at=later, status=503, asked_until=later, **words)
    a, b = host(store, "a.example"), host(store, "b.example")
    assert (a.failures, a.failing_since, a.asked_until, state(store, "a.example")) == (0, None, later, "asked")
    # Whoever is down for a week is parked, whatever it answers.
    assert (b.failures, b.failing_since, b.asked_until) == (0, clock.now, later)
    assert hosts.troubles(a)[0].words == "429: they ask us to slow down"


def test_a_quota_is_spent_and_not_more(store: Store, clock: Clock) -> None:
    address(store, said(store, account(store)), *(f"a.example/{number}" for number in range(9)))
    (first,) = take(store, limit=1)
    until = clock.now + timedelta(minutes=1)
    settle(store, first, quota=(3, until))
    gone = []
    while claimed := take(store):
        # One at a time, since there are so few.
        assert len(claimed) == 1
        gone += claimed
        settle(store, claimed[0], quota=(5, until))  # an answer that was overtaken
    assert len(gone) == 3
    assert state(store) == "asked"
    clock.forward(minutes=1)
    assert len(take(store)) == turns.HOST_LIMIT - 3 or len(rows(store, state="waiting")) == 5


# ── how many are remembered ──────────────────────────────────────────────────────────────────────────────────────


def test_invented_hosts_take_only_so_much_room(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "KEPT", 40)
    monkeypatch.setattr(hosts, "_FORGOTTEN_AT_ONCE", 10)
    me = account(store)
    follower(store, me, "bob", "followed.example")
    for name in ("followed.example", "waited.example", "held.example", "asked.example"):
        store.transact_now(hosts.heard_from, name)
    address(store, said(store, me), "waited.example", "held.example")
    (held,) = [claimed for claimed in take(store) if claimed.host == "held.example"]
    settle(store, held, "refused", status=403, reason="no")
    until = clock.now + timedelta(days=2)
    asked = schema.hosts.update().where(schema.hosts.c.host == "asked.example").values(asked_until=until)
    store.transact_now(Tx.execute, asked)
    for number in range(200):
        clock.forward(seconds=1)
        store.transact_now(hosts.heard_from, f"invented{number}.example")
        store.transact_now(hosts.heard_from, f"never{number}.example", only_known=True)
        assert len(rows(store, "hosts")) <= 41
    kept = {row.host for row in rows(store, "hosts")}
    assert {"followed.example", "waited.example", "asked.example", "invented199.example"} <= kept
    assert not any(name.startswith("never") for name in kept)


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_board_shows_the_worst_first(store: Store, clock: Clock) -> None:
    alice = account(store)
    address(store, said(store, alice), *(f"busy.example/{n}" for n in range(3)), "parked.example", "open.example")
    by_host = {claimed.host: claimed for claimed in take(store)}
    far = clock.now + timedelta(days=90)
    fail(store, by_host["open.example"], far, held_until=far)
    fail(store, by_host["parked.example"], far)
    store.transact_now(outages.park, "parked.example")
    store.transact_now(hosts.heard_from, "well.example")
    lines = store.read_now(board.listed)
    assert [(line.host, line.state, line.queued) for line in lines] == [
        ("parked.example", "parked", 1), ("open.example", "open", 1), ("busy.example", "closed", 3),
    ]  # fmt: skip
    assert "well.example" in {line.host for line in store.read_now(board.listed, everything=True)}
    assert store.read_now(figures.standing).hosts == {"parked": 1, "open": 1, "closed": 1}
    assert store.read_now(board.sheet, "never.example") is None
    sheet = store.read_now(board.sheet, "busy.example")
    assert sheet is not None
    assert sheet.queued_by_lane == {"posts": 3}


def test_what_was_given_up_goes_again_unless_it_is_out_of_date(store: Store, clock: Clock) -> None:
    alice = account(store)
    create, edit = said(store, alice, about="p"), said(store, alice, "Update", about="p")
    gone, gone_too = said(store, alice, about="q"), said(store, alice, "Delete", about="q")
    alone, old = said(store, alice, about="r"), said(store, alice, about="s")
    for activity in (create, edit, gone, gone_too, alone, old):
        address(store, activity, "a.example")
    ends = {create.id: "given_up", edit.id: "delivered", gone.id: "given_up", gone_too.id: "given_up",
            alone.id: "given_up", old.id: "refused"}  # fmt: skip
    while claimed := take(store, limit=1):
        settle(store, claimed[0], ends[claimed[0].activity_id], reason="x")
    clock.forward(days=2)
    since = clock.now - timedelta(days=7)
    assert store.transact_now(board.replay, "a.example", since=since, refused_too=False) == (2, 2, None)
    waiting = rows(store, state="waiting")
    assert {row.activity_id for row in waiting} == {gone_too.id, alone.id}
    assert {(row.attempts, row.created_at) for row in waiting} == {(1, clock.now)}
    assert store.transact_now(board.replay, "a.example", since=clock.now, refused_too=True)[0] == 0
    assert store.transact_now(board.replay, "a.example", since=since, refused_too=True)[0] == 1


def test_nothing_goes_again_to_a_suspended_server_but_a_last_word(store: Store, clock: Clock) -> None:
    alice, bob = account(store), account(store, "bob")
    create, last_word, bobs = said(store, alice), said(store, alice, "Delete"), said(store, bob)
    for activity in (create, last_word, bobs):
        address(store, activity, "a.example")
    for claimed in take(store):
        settle(store, claimed, "given_up", reason="x")
    since = clock.now - timedelta(days=1)
    entry = blocks.Entry("domain", "a.example", "suspend")
    store.transact_now(blocks.put, blocks.owner(alice), [entry], account_id=alice)
    assert store.transact_now(board.replay, "a.example", since=since, refused_too=True)[0] == 2
    assert {row.activity_id for row in rows(store, state="waiting")} == {last_word.id, bobs.id}


def test_what_is_under_way_is_not_dropped(store: Store) -> None:
    address(store, said(store, account(store)), "a.example", "a.example/2")
    (held,) = take(store, limit=1)
    assert store.transact_now(board.drop, "a.example", "closed for good") == 1
    settle(store, held)
    assert sorted(row.state for row in rows(store)) == ["delivered", "refused"]


def test_dropping_and_forgiving(store: Store, clock: Clock) -> None:
    opened_breaker(store, clock)
    address(store, said(store, account(store)), "b.example")
    assert store.transact_now(board.drop, "a.example", "ended: closed for good") == 3
    assert store.transact_now(board.drop, "a.example", "ended: closed for good") == 0
    assert {(row.host, row.state, row.reason) for row in rows(store)} == {
        ("a.example", "refused", "ended: closed for good"), ("b.example", "waiting", None),
    }  # fmt: skip
    assert state(store) == "open"
    store.transact_now(board.forgive, "a.example")
    assert state(store) == "closed"
    assert [row.key for row in rows(store, "jobs", kind=hosts.WAKE)] == ["a.example"]


# ── from before ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hosts_of_inboxes_are_read_from_their_addresses(empty_database_url: str) -> None:
    told = {
        "https://a.example/inbox": "a.example",
        "https://B.Example:8443/users/1/inbox": "b.example:8443",
        "http://c.example?inbox": "c.example",
        "https://d.example": "d.example",
        "https://e.example#x": "e.example",
    }
    store = Store.open(empty_database_url)
    migrate.to_revision(store, "0009")

    def fill(tx: Tx) -> None:
        tx.execute(text("INSERT INTO accounts (id, handle, name, bio, state, discoverable, created_at, changed_at) "
                        "VALUES (1, 'alice', '', '', 'active', true, 0, 0)"))  # fmt: skip
        for number, inbox in enumerate(told):
            values = {"uri": f"https://p.example/{number}", "inbox": inbox}
            tx.execute(text("INSERT INTO peers (uri, host, kind, handle, name, inbox, fetched_at) "
                            "VALUES (:uri, 'p.example', 'Person', 'p', 'p', :inbox, 0)"), values)  # fmt: skip
            tx.execute(text("INSERT INTO followers (account_id, peer_uri, follow_uri, inbox, since) "
                            "VALUES (1, :uri, :uri, :inbox, 0)"), values)  # fmt: skip

    store.transact_now(fill)
    migrate.to_newest(store)
    assert {row.inbox: row.inbox_host for row in rows(store, "followers")} == told
    store.close()
