"""A document that is ready is answered where it was parsed, and nobody can tell but by the clock."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from tests.peers import judgement
from tests.rig import Bridge, eventually, running_bridge
from tests.stories.neighbours import strangers
from tests.stories.raw_http import Answer, complete, talk

from threadbridge.server import PromptHttp
from threadbridge.storage import accounts
from threadbridge.web.hot import Ready

ACTOR = "/ap/users/1"


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder: Path = tmp_path_factory.mktemp("at-once")
    # The judgement stands between the server and the application: then nothing is answered at once.
    with patch.object(judgement, "answers_of", lambda app: app), running_bridge(folder, worker=False) as running:
        running.account()
        yield running


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[Ready]:
    """Everything that is answered without going through the application."""
    answered: list[Ready] = []
    answer = PromptHttp._answer

    def noting(self: PromptHttp, ready: Ready) -> None:
        answered.append(ready)
        answer(self, ready)

    monkeypatch.setattr(PromptHttp, "_answer", noting)
    return answered


def request(bridge: Bridge, *headers: str, target: str = ACTOR, method: str = "GET", body: str = "") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {bridge.authority}", *headers, "", body]
    return "\r\n".join(lines).encode("latin-1")


def warm(bridge: Bridge, at_once: list[Ready], target: str = ACTOR) -> Answer:
    """An answer that was given at once: right after a change a document may be built once more."""

    def given() -> Answer | None:
        at_once.clear()
        answer = talk(bridge.base, request(bridge, target=target))
        return answer if at_once else None

    found: Answer = eventually(given)
    at_once.clear()
    return found


def without_date(answer: Answer) -> list[bytes]:
    return sorted(line for line in answer.head.lower().split(b"\r\n") if not line.startswith(b"date:"))


def several(bridge: Bridge, sent: bytes, count: int, *, head: bool = False) -> list[Answer]:
    """Answers on one connection, in order."""
    where = urlsplit(bridge.base)
    found: list[Answer] = []
    with socket.create_connection((where.hostname, where.port), timeout=5) as sock:
        sock.sendall(sent)
        received = b""
        while len(found) < count:
            top, end, rest = received.partition(b"\r\n\r\n")
            size = 0 if head else sum(
                int(line.partition(b":")[2]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-len")
            )  # fmt: skip
            if end and len(rest) >= size:
                found.append(Answer(int(top.split(b" ", 2)[1]), top, rest[:size]))
                received = rest[size:]
                continue
            more = sock.recv(65536)
            assert more, (found, received)
            received += more
    assert not received
    return found


def test_the_second_answer_is_the_first_one_again(bridge: Bridge, at_once: list[Ready]) -> None:
    target = f"{ACTOR}/outbox?page=true"
    built = talk(bridge.base, request(bridge, target=target))
    assert at_once == []
    ready = warm(bridge, at_once, target)
    assert complete(ready.head + b"\r\n\r\n" + ready.body)
    assert without_date(built) == without_date(ready)
    assert built.body == ready.body
    assert b"\r\ndate: " in ready.head.lower()


def test_a_head_gets_the_headers_only(bridge: Bridge, at_once: list[Ready]) -> None:
    whole = warm(bridge, at_once)
    answers = several(bridge, request(bridge, method="HEAD") * 2, 2, head=True)
    assert at_once
    assert [without_date(answer) for answer in answers] == [without_date(whole)] * 2


def test_what_has_to_be_decided_is_decided_by_the_application(bridge: Bridge, at_once: list[Ready]) -> None:
    head = warm(bridge, at_once).head
    etag = next(line[6:].decode() for line in head.split(b"\r\n") if line.lower().startswith(b"etag: "))
    assert talk(bridge.base, request(bridge, f"If-None-Match: {etag}"), seconds=0.5).status == 304
    assert talk(bridge.base, request(bridge, f"Host: {bridge.authority}")).status == 421
    assert talk(bridge.base, request(bridge).replace(bridge.authority.encode(), b"evil.example")).status == 421
    assert talk(bridge.base, request(bridge, method="POST", body="")).status in (400, 405)
    assert talk(bridge.base, request(bridge).replace(b"HTTP/1.1", b"HTTP/1.0")).status == 200
    closing = talk(bridge.base, request(bridge, "Connection: close"))
    assert closing.status == 200
    assert b"connection: close" in closing.head.lower()
    assert talk(bridge.base, request(bridge, "Accept: text/html", target=f"{ACTOR}#x")).status != 0
    assert at_once == []


def test_a_body_is_not_taken_for_the_next_request(bridge: Bridge, at_once: list[Ready]) -> None:
    warm(bridge, at_once)
    hidden = "GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = request(bridge, f"Content-Length: {len(hidden)}", body=hidden) + request(bridge, "X-Second: 1")
    first, second = several(bridge, sent, 2)
    assert first.body == second.body
    assert first.status == second.status == 200


def test_answers_keep_the_order_of_the_requests(bridge: Bridge, at_once: list[Ready]) -> None:
    warm(bridge, at_once)
    slow = [f"{ACTOR}/collections/featured", "/@nobody", f"{ACTOR}/followers", f"{ACTOR}/posts/99"]
    sent = b"".join(request(bridge, target=target) + request(bridge) for target in slow)
    answers = several(bridge, request(bridge) + sent, 9)
    assert [answer.status for answer in answers] == [200, 200, 200, 404, 200, 200, 200, 404, 200]
    assert len({answer.body for answer in answers[::2]}) == 1
    assert at_once  # the very first at least


def test_a_request_that_comes_in_pieces_is_answered_the_same(bridge: Bridge, at_once: list[Ready]) -> None:
    whole = warm(bridge, at_once)
    sent = request(bridge, "X-Long: " + "x" * 200)
    pieces = [sent[start : start + 7] for start in range(0, len(sent), 7)]
    assert without_date(talk(bridge.base, *pieces)) == without_date(whole)
    assert len(at_once) == 1


def test_a_change_is_seen_at_once(bridge: Bridge, at_once: list[Ready]) -> None:
    before = warm(bridge, at_once).body
    bridge.ground.store.transact_now(accounts.update_profile, 1, name="Another name")
    after = talk(bridge.base, request(bridge)).body
    assert before != after
    assert b"Another name" in after


def test_in_secure_mode_nothing_for_readers_is_answered_at_once(tmp_path: Path, at_once: list[Ready]) -> None:
    """The shortcut looks at the address alone: what was made ready for somebody who signed is found by nobody."""
    with (
        patch.object(judgement, "answers_of", lambda app: app),
        running_bridge(tmp_path, worker=False, secure_mode=True) as bridge,
        strangers(bridge, "reader") as (reader,),
    ):
        account = bridge.account()
        post = urlsplit(bridge.post(account)).path
        page = f"/@alice/{post.rsplit('/', 1)[1]}"
        signed = ("(request-target)", "host", "date")
        accept = "Accept: application/activity+json"
        for target in (
            ACTOR,
            post,
            f"{ACTOR}/outbox?page=true",
            f"{post}/replies",
            f"{ACTOR}/followers",
            "/@alice",
            page,
        ):
            path = target.partition("?")[0]
            made = reader.signed(bridge.base + path, b"", method="get", covered=signed)
            proof = [f"{name}: {made[name]}" for name in ("date", "signature")]
            for _ in range(3):
                answer = talk(bridge.base, request(bridge, accept, *proof, target=target))
                assert answer.status == (302 if target == page else 200), target
                head = answer.head.lower()
                assert b"\r\ncache-control: private" in head, target
                assert b"\r\nvary: accept, signature, signature-input" in head, target
                assert talk(bridge.base, request(bridge, accept, target=target)).status == (
                    200 if target == ACTOR else 401
                ), target
        assert at_once == []
        # What is for everybody is.
        assert b"cache-control: public" in warm(bridge, at_once, "/actor").head.lower()


def test_no_header_of_a_ready_document_can_break_its_line() -> None:
    with pytest.raises(ValueError, match="line break"):
        Ready.of(b"", "text/plain\r\nSet-Cookie: x=1", max_age=1)
