"""Lanes and turns with many rows; what is superseded; the backlog that one looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import event, text
from tests.world.deliverable import Clock, account, address, fail, post, rows, said, settle, take

from threadbridge.delivery import fanout
from threadbridge.delivery.outbox import FAN_OUT
from threadbridge.storage import blocks, jobs, migrate, superseding, turns
from threadbridge.storage.ledger import LANE_ANSWER, LANE_BULK, LANE_CHANGE, LANE_POST, Activity
from threadbridge.storage.store import Store, Tx


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    opened = Store.open(database_url, clock=clock)
    migrate.to_newest(opened)
    yield opened
    opened.close()


def many(store: Store, activity: Activity, count: int, lane: int, *, age_seconds: int = 3600) -> None:
    """`count` waiting rows of one activity, each to a host of its own, all due for a while; written in SQL."""

    def write(tx: Tx) -> None:
        numbers = (
            f"SELECT n FROM generate_series(1, {count}) AS s(n)"
            if store.dialect == "postgresql"
            else f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s"
        )
        due = int((tx.now - timedelta(seconds=age_seconds)).timestamp() * 1_000_000)
        tx.execute(
            text(
                "INSERT INTO deliveries (activity_id, account_id, inbox, host, order_key, lane, state, due_at, "
                "created_at) "
                "SELECT :activity, :account, 'https://h' || n || '.example/inbox', 'h' || n || '.example', "
                f":key, :lane, 'waiting', :due, :due FROM ({numbers}) AS numbers"
            ),
            {"activity": activity.id, "account": activity.account_id, "key": activity.order_key, "lane": lane,
             "due": due},
        )  # fmt: skip

    store.transact_now(write)


# ── lanes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fifty_thousand_sends_of_one_account_delay_nobody_and_are_not_starved_themselves(store: Store) -> None:
    """Three million queued sends of one prolific user delayed everybody else by ten hours (bridgy-fed#1520)."""
    loud = account(store, "loud")
    many(store, said(store, loud), 25_000, LANE_POST)
    many(store, said(store, loud, "Update"), 25_000, LANE_BULK)
    quiet = account(store, "quiet")
    address(store, said(store, quiet, "Accept"), "p.example", lane=LANE_ANSWER)
    address(store, said(store, quiet), "q.example", "r.example", lane=LANE_POST)
    address(store, said(store, quiet, "Update"), "s.example", lane=LANE_CHANGE)
    # The very next turn has everything of the quiet account, though all of the other's was due before.
    taken = Counter((row.account_id, row.lane) for row in take(store, limit=96))
    assert {key: taken[key] for key in taken if key[0] == quiet} == {
        (quiet, LANE_ANSWER): 1, (quiet, LANE_POST): 2, (quiet, LANE_CHANGE): 1,
    }  # fmt: skip
    # What is in bulk goes last and goes all the same.
    assert taken[loud, LANE_POST] > taken[loud, LANE_BULK] >= 96 // 15
    found = store.read_now(turns.backlog)
    assert {lane: each.waiting for lane, each in found.items()} == {
        LANE_ANSWER: 1, LANE_POST: 25_002, LANE_CHANGE: 1, LANE_BULK: 25_000,
    }  # fmt: skip
    assert found[LANE_BULK].due == 25_000
    assert found[LANE_BULK].oldest_due_seconds == 3600


def test_answers_of_a_late_account_do_not_wait_for_the_bulk_of_hundreds_before_it(store: Store) -> None:
    for number in range(150):
        activity = said(store, account(store, f"a{number}"), "Update")
        address(store, activity, f"h{number}.example", f"i{number}.example", lane=LANE_BULK)
    last = account(store, "last")
    address(store, said(store, last, "Accept"), "x.example", lane=LANE_ANSWER)
    first = take(store, limit=20)
    assert last in {row.account_id for row in first}
    assert {row.lane for row in first} == {LANE_ANSWER, LANE_BULK}


def test_more_accounts_than_a_turn_has_room_for_come_one_after_the_other(store: Store) -> None:
    numbers = [account(store, f"a{number:02}") for number in range(18)]
    for number in numbers:
        address(store, said(store, number), *(f"h{n}.example" for n in range(8)))
    place: turns.Place = {}
    came: list[int] = []
    for _ in range(6):
        taken, place = store.transact_now(turns.take, busy={}, limit=6, lease_seconds=60, after=place)
        came += [row.account_id for row in taken]
    # Nobody twice before everybody had a turn, and behind the last one the first follows.
    assert sorted(came[:18]) == sorted(came[18:]) == numbers


def test_a_turn_is_few_statements_however_many_accounts_have_something_due(store: Store) -> None:
    for number in range(30):
        here = account(store, f"a{number:02}")
        for lane in (LANE_POST, LANE_BULK):
            address(store, said(store, here, str(lane)), *(f"h{number}-{n}.example" for n in range(3)), lane=lane)
    asked: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda _c, _d, said, *_: asked.append(said))
    assert len(take(store, limit=96)) == 96
    # Which lanes, and for each lane who, what, and (at most twice) the leases; the signatures that hosts take.
    assert len([said for said in asked if "deliveries" in said or "hosts" in said]) <= 12


def test_places_kept_free_stay_free(store: Store) -> None:
    alice = account(store)
    for lane in turns.LANES:
        address(store, said(store, alice, str(lane)), *(f"h{lane}-{n}.example" for n in range(60)), lane=lane)
    taken = Counter(row.lane for row in take(store, 100, room={LANE_POST: 20, LANE_CHANGE: 6, LANE_BULK: 0}))
    assert taken[LANE_ANSWER] == 55  # all but the shares of the others
    assert taken[LANE_POST] + taken[LANE_CHANGE] <= 20
    assert (taken[LANE_CHANGE], taken[LANE_BULK]) == (0, 0) or taken[LANE_CHANGE] <= 6
    assert taken[LANE_BULK] == 0


def test_the_backlog_of_nothing_and_of_what_is_held_back(store: Store, clock: Clock) -> None:
    nothing = turns.Backlog(0, 0, 0.0)
    assert store.read_now(turns.backlog) == dict.fromkeys(turns.LANES, nothing)
    address(store, said(store, account(store)), "a.example", "b.example")
    held = take(store)[0]
    fail(store, held, clock.now + timedelta(hours=2))
    clock.forward(seconds=30)
    assert store.read_now(turns.backlog)[LANE_POST] == turns.Backlog(2, 1, 30.0)
    assert store.read_now(turns.next_due) == clock.now + timedelta(hours=2, seconds=-30)


# ── superseding ──────────────────────────────────────────────────────────────────────────────────────────────────


def about(store: Store, account_id: int, kind: str, post_id: int | None, key: str) -> Activity:
    """An activity as the outbox says it: what it makes pointless is told so, and is not addressed any more."""
    made = said(store, account_id, kind, about=key, post_id=post_id)

    def say(tx: Tx) -> None:
        for number in superseding.replace(tx, made.id):
            jobs.drop(tx, FAN_OUT, str(number))
        place = {"phase": "holders", "of": 0, "after": ""} if post_id else {}
        jobs.add(tx, FAN_OUT, str(made.id), {"activity": made.id, **place})

    store.transact_now(say)
    return made


def addressed(store: Store) -> None:
    """Do all the addressing there is."""
    for job in store.transact_now(jobs.take, [FAN_OUT], 8.0, 100):
        current = job
        while (left := store.transact_now(fanout.step, current)) is not None:
            current = jobs.Job(job.id, job.kind, job.key, left, job.attempts, job.lease)


def states(store: Store, activity: Activity) -> list[tuple[str, str, str | None]]:
    return [(row.host, row.state, row.reason) for row in rows(store, activity_id=activity.id)]


def test_a_hundred_edits_leave_one_that_waits_at_each_inbox(store: Store, clock: Clock) -> None:
    alice = account(store)
    number = post(store, alice)
    create = said(store, alice, about="p", post_id=number)
    address(store, create, "a.example", "b.example")
    for row in take(store):
        settle(store, row)
    edits = []
    for turn in range(20):
        clock.forward(seconds=1)
        edits.append(about(store, alice, "Refresh" if turn % 2 else "Update", number, "p"))
        if turn % 3 == 0:
            addressed(store)
    addressed(store)
    assert [row.activity_id for row in rows(store, state="waiting")] == [edits[-1].id] * 2
    ended = rows(store, state="superseded")
    assert ended
    assert {row.reason for row in ended} == {superseding.EDITED}
    assert all(row.ended_at for row in ended)
    assert Counter(row.activity_id for row in take(store)) == {edits[-1].id: 2}


def test_what_somebody_holds_is_settled_by_them_and_not_tried_again_once_it_is_replaced(
    store: Store, clock: Clock
) -> None:
    alice = account(store)
    number = post(store, alice)
    address(store, said(store, alice, about="p", post_id=number), "a.example", "b.example")
    for row in take(store):
        settle(store, row)
    first = about(store, alice, "Update", number, "p")
    addressed(store)
    at_a, at_b = sorted(take(store), key=lambda row: row.host)
    second = about(store, alice, "Update", number, "p")
    addressed(store)
    assert [state for _, state, _ in states(store, first)] == ["waiting", "waiting"]
    settle(store, at_a)
    fail(store, at_b, clock.now + timedelta(seconds=15))
    assert states(store, first) == [("a.example", "delivered", None), ("b.example", "superseded", superseding.EDITED)]
    clock.forward(seconds=1)
    assert [row.activity_id for row in take(store)] == [second.id] * 2


def test_a_deletion_calls_back_what_has_not_left_and_goes_where_it_may_have_arrived(
    store: Store, clock: Clock
) -> None:
    """Deletes that overtook their Creates, or went to nobody: a Delete that arrived while its post was still queued
    was lost (bridgy-fed#1361)."""
    alice = account(store)
    number = post(store, alice)
    create = said(store, alice, about="p", post_id=number)
    address(store, create, "arrived.example", "underway.example", "timeout.example", "untouched.example")
    taken = {row.host: row for row in take(store, limit=3)}
    settle(store, taken["arrived.example"])
    fail(store, taken["timeout.example"], clock.now + timedelta(hours=1))
    delete = about(store, alice, "Delete", number, "p")
    # Before anybody has addressed the deletion, the post is called back already.
    assert [row.activity_id for row in take(store)] == []
    assert states(store, create)[3][1:] == ("superseded", superseding.DELETED)
    addressed(store)
    assert states(store, create)[2][1:] == ("superseded", superseding.DELETED_AFTER_A_TRY)
    assert [row.host for row in rows(store, activity_id=delete.id)] == [
        "arrived.example", "timeout.example", "underway.example",
    ]  # fmt: skip
    clock.forward(seconds=2)
    assert [row.host for row in take(store)] == ["arrived.example", "timeout.example"]
    # What was under way fails: it may have arrived, is not tried again, and the deletion follows.
    fail(store, taken["underway.example"], clock.now)
    assert states(store, create)[1][1:] == ("superseded", superseding.DELETED_AFTER_A_TRY)
    clock.forward(seconds=1)
    assert [(row.activity_id, row.host) for row in take(store)] == [(delete.id, "underway.example")]


def test_who_may_have_found_an_older_post_elsewhere_hears_of_its_deletion(store: Store, clock: Clock) -> None:
    alice = account(store)
    number = post(store, alice)
    create = said(store, alice, about="p", post_id=number)
    address(store, create, "a.example")
    clock.forward(seconds=superseding.UNSEEN.total_seconds() + 1)
    delete = about(store, alice, "Delete", number, "p")
    addressed(store)
    assert states(store, create) == [("a.example", "superseded", superseding.DELETED)]
    assert [row.host for row in rows(store, activity_id=delete.id)] == ["a.example"]


def test_a_repost_that_is_taken_back_at_once_never_leaves(store: Store) -> None:
    alice = account(store)
    number = post(store, alice)
    announce = said(store, alice, "Announce", about="p", post_id=number)
    address(store, announce, "a.example")
    undo = about(store, alice, "Undo", number, "p")
    addressed(store)
    assert states(store, announce) == [("a.example", "superseded", superseding.DELETED)]
    assert rows(store, activity_id=undo.id) == []


def test_other_posts_of_a_thread_and_other_accounts_are_left_alone(store: Store) -> None:
    alice, bob = account(store, "alice"), account(store, "bob")
    first, second = post(store, alice), post(store, alice)
    mine = said(store, alice, about="thread", post_id=first)
    part = said(store, alice, about="thread", post_id=second)
    profile = said(store, bob, "Update", about="bob")
    for activity in (mine, part, profile):
        address(store, activity, "a.example")
    about(store, alice, "Delete", first, "thread")
    about(store, alice, "Update", None, "alice")
    addressed(store)
    assert [states(store, each)[0][1] for each in (mine, part, profile)] == ["superseded", "waiting", "waiting"]


def test_five_thousand_deletions_at_once_keep_the_other_lanes_moving(store: Store, clock: Clock) -> None:
    """Mass deletion tools: thousands of deletes a minute by honest users (bridgy-fed#1788)."""
    alice, bob = account(store, "alice"), account(store, "bob")
    many(store, said(store, alice, "Delete"), 5_000, LANE_CHANGE)
    reply = said(store, bob)
    address(store, reply, "b.example", lane=LANE_POST)
    own = said(store, alice)
    address(store, own, "c.example", lane=LANE_POST)
    first = take(store, limit=64)
    assert {reply.id, own.id} <= {row.activity_id for row in first}
    assert sum(row.lane == LANE_CHANGE for row in first) == 62


def test_a_post_waits_for_the_accept_of_who_is_to_read_it_once(store: Store, clock: Clock) -> None:
    alice = account(store)
    accept, news = said(store, alice, "Accept"), said(store, alice, "Create")
    address(store, accept, "far.example/users/bob", lane=LANE_ANSWER)
    address(store, news, "far.example", "near.example", lane=LANE_POST)
    first = {row.inbox: row for row in take(store)}
    assert set(first) == {"https://far.example/users/bob/inbox", "https://near.example/inbox"}
    clock.forward(seconds=1)
    assert take(store) == []
    settle(store, first["https://near.example/inbox"])
    words = "404: there is no such inbox"
    tried = first["https://far.example/users/bob/inbox"]
    settle(store, tried, "waiting", due_at=clock.forward(hours=1), status=404, reason=words)
    clock.forward(seconds=-3590)
    # It was tried: a personal inbox that does not work keeps nothing back from the others at its server.
    assert [row.inbox for row in take(store)] == ["https://far.example/inbox"]


def test_who_holds_a_copy_and_is_not_told_of_its_deletion_is_written_down(store: Store) -> None:
    alice = account(store)
    number = post(store, alice)
    news = said(store, alice, post_id=number)
    address(store, news, "shut.example", "open.example")
    for row in take(store):
        settle(store, row)
    store.transact_now(blocks.put, blocks.OPERATOR, [blocks.Entry("domain", "shut.example", "suspend")])
    deletion = said(store, alice, "Delete", post_id=number)
    address(store, deletion, "shut.example", "open.example")
    told = {row.host: (row.state, row.reason) for row in rows(store, activity_id=deletion.id)}
    assert told == {
        "shut.example": ("given_up", "this server is suspended here"), "open.example": ("waiting", None),
    }  # fmt: skip
    assert [row.host for row in take(store)] == ["open.example"]
