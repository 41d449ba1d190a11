"""A server that refuses one kind of signature is asked with the other, at once, and what it takes is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.rig import Bridge, running_bridge
from tests.stories.crowd import Arrival, Reply, crowd, drained, follow, ledger_rows, publish

from threadbridge.delivery import retry
from threadbridge.storage import schema


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    monkeypatch.setattr(retry, "REFUSED_SCHEDULE", (timedelta(seconds=0.2), timedelta(seconds=0.2)))
    with running_bridge(tmp_path) as running:
        yield running


def only(wanted: Callable[[Arrival], bool], status: int) -> Callable[[Arrival], Reply]:
    return lambda asked: Reply() if wanted(asked) else Reply(status)


def scheme(bridge: Bridge) -> str | None:
    (row,) = bridge.ground.store.read_now(lambda tx: tx.execute(schema.hosts.select()).all())
    found: str | None = row.scheme
    return found


@pytest.mark.parametrize("status", [400, 401])
def test_rfc_9421_is_tried_at_once_and_remembered(bridge: Bridge, status: int) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=only(lambda asked: asked.rfc9421, status)) as people:
        follow(bridge, account, people, "bob")
        publish(bridge, account)
        drained(bridge)
        publish(bridge, account)
        drained(bridge)
        # The Accept learnt it: an old signature, a new one; from then on the new one alone.
        assert [a.rfc9421 for a in people.arrivals] == [False, True, True, True]
        assert scheme(bridge) == "rfc9421"
        assert {row.attempts for row in ledger_rows(bridge)} == {1}
        assert "signature" in people.arrivals[1].headers
        assert "content-digest" in people.arrivals[1].headers


def test_the_way_back_is_found_as_well(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=only(lambda asked: asked.rfc9421, 401)) as people:
        follow(bridge, account, people, "bob")
        people.script = only(lambda asked: not asked.rfc9421, 401)
        publish(bridge, account)
        drained(bridge)
        assert [a.rfc9421 for a in people.deliveries()] == [True, False]
        assert scheme(bridge) == "cavage"


def test_who_takes_neither_is_left_alone_after_three_tries(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        people.script = only(lambda asked: False, 401)
        publish(bridge, account)
        drained(bridge)
        assert [a.rfc9421 for a in people.deliveries()] == [False, True] * 3
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.status, row.reason) == ("refused", 401, "401: the signature was not accepted")
        assert scheme(bridge) is None


@pytest.mark.parametrize("status", [403, 404, 202])
def test_what_has_nothing_to_do_with_signatures_is_not_asked_twice(bridge: Bridge, status: int) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        people.script = only(lambda asked: False, status)
        publish(bridge, account)
        drained(bridge)
        assert {a.rfc9421 for a in people.deliveries()} == {False}
