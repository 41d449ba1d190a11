"""A server that says in its 401 which signature it takes is given that one, and for a month again without asking;
what was refused and what was accepted is written down."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.rig import Bridge, running_bridge
from tests.stories.crowd import Arrival, Reply, crowd, drained, follow, ledger_rows, publish

from threadbridge.delivery import retry
from threadbridge.storage import decisions, schema

WANTED = 'theirs=("@authority" "content-type" "date");created;tag="inbox"'


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    monkeypatch.setattr(retry, "REFUSED_SCHEDULE", (timedelta(seconds=0.2), timedelta(seconds=0.2)))
    with running_bridge(tmp_path) as running:
        yield running


def signature_input(asked: Arrival) -> str:
    return re.sub(r";created=\d+", "", asked.headers.get("signature-input", "draft"))


def only(label: str, wanted: str, nonce: Callable[[], str] | None = None) -> Callable[[Arrival], Reply]:
    """Takes a signature with this label only (and this nonce), and says so."""

    def answer(asked: Arrival) -> Reply:
        given = asked.headers.get("signature-input", "")
        if given.startswith(label) and (nonce is None or f'nonce="{nonce()}"' in given):
            return Reply()
        fresh = f';nonce="{nonce()}"' if nonce is not None else ""
        return Reply(401, {"Accept-Signature": wanted + fresh}, body=b'{"error": "Signed differently, please"}')

    return answer


def host(bridge: Bridge) -> Any:
    (row,) = bridge.ground.store.read_now(lambda tx: tx.execute(schema.hosts.select()).all())
    return row


def test_the_signature_that_is_asked_for_is_given_and_remembered_with_the_evidence(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=only("theirs=", WANTED)) as people:
        follow(bridge, account, people, "bob")
        drained(bridge)
        publish(bridge, account)
        drained(bridge)
        key = bridge.ground.ids.key(account.id)
        asked = (
            'theirs=("@authority" "content-type" "date" "@method" "@target-uri" "content-digest");'
            f'keyid="{key}";alg="rsa-v1_5-sha256";tag="inbox"'
        )
        assert [signature_input(a) for a in people.arrivals] == ["draft", asked, asked]
        row = host(bridge)
        assert (row.scheme, row.scheme_asked) == ("rfc9421", WANTED)
        assert row.scheme_evidence == ('cavage: 401 ({"error": "Signed differently, please"}); rfc9421 as asked: 202')
        ((_, decided),) = bridge.ground.store.read_now(decisions.page)
        assert (decided.kind, decided.reason) == ("signature", row.scheme_evidence)
        assert {row.attempts for row in ledger_rows(bridge)} == {1}


def test_after_a_month_the_usual_is_tried_anew(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=only("theirs=", WANTED)) as people:
        follow(bridge, account, people, "bob")
        drained(bridge)

        def age(tx: Any) -> None:
            then = tx.now - timedelta(days=30, seconds=1)
            tx.execute(schema.hosts.update().values(scheme_at=then))

        bridge.ground.store.transact_now(age)
        people.script = lambda asked: Reply(401) if asked.rfc9421 else Reply()
        publish(bridge, account)
        drained(bridge)
        assert [a.rfc9421 for a in people.deliveries()] == [False]


def test_a_nonce_is_good_once(bridge: Bridge) -> None:
    account = bridge.account()
    nonces = [0]
    with crowd(bridge.loop) as people:
        inner = only("theirs=", WANTED, nonce=lambda: f"n{nonces[0]}")

        def script(asked: Arrival) -> Reply:
            reply = inner(asked)
            if reply.status == 202:
                nonces[0] += 1
            return reply

        people.script = script
        follow(bridge, account, people, "bob")
        drained(bridge)
        publish(bridge, account)
        drained(bridge)
        # The second begins as was asked the last time, and is told the nonce of this one.
        assert [a.status for a in people.arrivals] == [401, 202, 401, 202]
        assert [a.rfc9421 for a in people.arrivals] == [False, True, True, True]
        assert [re.findall(r'nonce="(\w+)"', signature_input(a)) for a in people.arrivals] == [[], ["n0"], [], ["n1"]]
        assert host(bridge).scheme_asked == WANTED


def test_what_cannot_be_given_is_answered_with_the_plain_form(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop, script=only("sig1=", 'sig1=("cookie");alg="hmac-sha256";created')) as people:
        follow(bridge, account, people, "bob")
        drained(bridge)
        assert [a.rfc9421 for a in people.arrivals] == [False, True]
        assert (host(bridge).scheme, host(bridge).scheme_asked) == ("rfc9421", None)


def test_who_is_never_content_is_asked_thrice_at_most(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        drained(bridge)
        people.script = lambda asked: Reply(
            401, {"Accept-Signature": f'x{len(people.arrivals)}=("host");nonce="{len(people.arrivals)}";created'}
        )
        publish(bridge, account)
        drained(bridge)
        assert len(people.deliveries()) == 2 * 3
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.status) == ("refused", 401)
        assert host(bridge).scheme is None


def test_an_answer_to_the_second_knock_that_is_about_something_else_counts(bridge: Bridge) -> None:
    account = bridge.account()
    with crowd(bridge.loop) as people:
        follow(bridge, account, people, "bob")
        drained(bridge)
        people.script = lambda asked: Reply(404) if asked.rfc9421 else Reply(401)
        publish(bridge, account)
        drained(bridge)
        (row,) = ledger_rows(bridge, post_id=1)
        assert (row.state, row.status) == ("refused", 404)
        assert host(bridge).scheme is None
