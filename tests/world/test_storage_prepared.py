"""Statements that go to the driver as they are: the same values, the same errors, the same transaction."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, exc, func, insert, select, update

from threadbridge.errors import Conflict
from threadbridge.storage import schema
from threadbridge.storage.prepared import Prepared
from threadbridge.storage.store import Store, Tx

_f, _h = schema.facts, schema.hosts
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

PUT = Prepared(lambda insert: insert(_f), ["name", "value"])
PUT_ONCE = Prepared(
    lambda insert: insert(_f).on_conflict_do_nothing().returning(_f.c.name, _f.c.value), ["name", "value"]
)
CHANGE = Prepared(lambda _: update(_f).where(_f.c.name == bindparam("which")).values(value=bindparam("new")))
FIND = Prepared(lambda _: select(_f.c.name, _f.c.value).where(_f.c.name >= bindparam("first")).order_by(_f.c.name))
LEAVE = Prepared(lambda _: delete(_f).where(_f.c.name == bindparam("which"), _f.c.value == "x"))
MEET = Prepared(
    lambda insert: insert(_h).on_conflict_do_update(
        index_elements=["host"], set_={"failures": _h.c.failures + 1, "last_heard_at": None}
    ),
    ["host", "last_heard_at", "failures"],
)
HOST = Prepared(
    lambda _: select(_h.c.host, _h.c.failures, _h.c.last_heard_at, _h.c.held_until).where(
        _h.c.last_heard_at == bindparam("at", type_=_h.c.last_heard_at.type)
    )
)


def test_rows_are_found_by_name_and_counted(store: Store) -> None:
    def work(tx: Tx) -> None:
        PUT.run(tx, name="a", value="x")
        PUT.run(tx, name="b%s", value="100% ?")
        assert FIND.first(tx, first="zzz") is None
        assert [(row.name, row.value) for row in FIND.all(tx, first="a")] == [("a", "x"), ("b%s", "100% ?")]
        assert CHANGE.run(tx, which="a", new="y") == 1
        assert CHANGE.run(tx, which="nobody", new="y") == 0
        assert LEAVE.run(tx, which="a") == 0
        assert LEAVE.run(tx, which="b%s") == 0
        assert FIND.first(tx, first="a").value == "y"

    store.transact_now(work)


def test_times_pass_through_the_same_conversion_as_everywhere(store: Store) -> None:
    def work(tx: Tx) -> None:
        MEET.run(tx, host="a.example", last_heard_at=AT, failures=3)
        row = HOST.first(tx, at=AT)
        assert (row.host, row.failures, row.last_heard_at, row.held_until) == ("a.example", 3, AT, None)
        assert tx.execute(select(_h.c.last_heard_at)).scalar_one() == AT
        MEET.run(tx, host="a.example", last_heard_at=AT, failures=9)
        assert tx.execute(select(_h.c.failures, _h.c.last_heard_at)).one() == (4, None)

    store.transact_now(work)


def test_who_comes_second_is_told_so(store: Store) -> None:
    def work(tx: Tx) -> tuple[Any, Any]:
        return PUT_ONCE.first(tx, name="a", value="1"), PUT_ONCE.first(tx, name="a", value="2")

    first, second = store.transact_now(work)
    assert (first.name, first.value) == ("a", "1")
    assert second is None


def test_it_stands_in_the_same_transaction_as_core(store: Store) -> None:
    def work(tx: Tx) -> None:
        tx.execute(insert(_f).values(name="core", value="x"))
        assert FIND.first(tx, first="core").value == "x"
        PUT.run(tx, name="driver", value="x")
        assert tx.execute(select(func.count()).select_from(_f)).scalar_one() == 2
        raise Conflict("no")

    with pytest.raises(Conflict):
        store.transact_now(work)
    assert store.read_now(lambda tx: FIND.all(tx, first="")) == []


@pytest.mark.parametrize("values", [{}, {"name": "a"}, {"name": "a", "value": "x", "more": 1}])
def test_a_value_too_few_or_too_many_is_a_mistake_that_shows(store: Store, values: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        store.transact_now(lambda tx: PUT.run(tx, **values))
    assert store.read_now(lambda tx: FIND.all(tx, first="")) == []


def test_what_the_driver_raises_comes_as_an_error_of_sqlalchemy_without_the_values(store: Store) -> None:
    def twice(tx: Tx) -> None:
        PUT.run(tx, name="a", value="secret")
        PUT.run(tx, name="a", value="secret")

    with pytest.raises(exc.IntegrityError) as caught:
        store.transact_now(twice)
    assert "[parameters" not in str(caught.value)
    assert store.read_now(lambda tx: FIND.all(tx, first="")) == []


def test_one_that_fails_takes_nobody_with_it(store: Store) -> None:
    def put(tx: Tx, name: str) -> str:
        PUT.run(tx, name=name, value="x")
        if name.startswith("bad"):
            PUT.run(tx, name=name, value="x")
        return name

    async def together() -> list[Any]:
        wanted = [f"{kind}{number}" for number in range(6) for kind in ("good", "bad")]
        return await asyncio.gather(*(store.transact(put, name) for name in wanted), return_exceptions=True)

    answers = asyncio.run(together())
    assert [answer for answer in answers if isinstance(answer, str)] == [f"good{number}" for number in range(6)]
    assert sum(isinstance(answer, exc.IntegrityError) for answer in answers) == 6
    held = store.read_now(lambda tx: [row.name for row in FIND.all(tx, first="")])
    assert held == [f"good{number}" for number in range(6)]


def test_readers_that_come_together_fail_alone_and_see_what_was_answered_before(store: Store) -> None:
    def fails(tx: Tx) -> str:
        raise Conflict("mine alone")

    async def together() -> list[Any]:
        await store.transact(lambda tx: PUT.run(tx, name="a", value="x"))
        works = [lambda tx: FIND.first(tx, first="a").value, fails] * 10
        return await asyncio.gather(*(store.read(work) for work in works), return_exceptions=True)

    answers = asyncio.run(together())
    assert answers[::2] == ["x"] * 10
    assert all(isinstance(answer, Conflict) for answer in answers[1::2])


def test_who_went_away_before_his_turn_leaves_no_trace(store: Store) -> None:
    async def leave() -> None:
        task = asyncio.create_task(store.transact(lambda tx: PUT.run(tx, name="gone", value="x")))
        await asyncio.sleep(0)  # asked, not yet handed over
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.transact(lambda tx: PUT.run(tx, name="here", value="x")) == 1

    asyncio.run(leave())
    held = store.read_now(lambda tx: [row.name for row in FIND.all(tx, first="")])
    assert "here" in held
    assert store.dialect != "sqlite" or held == ["here"]
