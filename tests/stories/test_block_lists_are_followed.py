"""A followed list blocks what it names, gives back what it retracts, and is not believed when it breaks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rig import Bridge, Served, eventually, free_socket, running_bridge
from tests.stories.neighbours import domain, enforced, lift, rule, strangers

from threadbridge.activitypub import blocklists as files
from threadbridge.domain.blocks import Standing
from threadbridge.errors import Invalid
from threadbridge.federation import admission, blocklists
from threadbridge.federation.blocklists import READ_LIST
from threadbridge.storage import blocks
from threadbridge.storage.blocks import OPERATOR, Entry, Subscription

MANY = "".join(f"d{number}.example\n" for number in range(20))


class Publisher:
    """Somebody who publishes a list, with an ETag."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.status = 200
        self.asked: list[int] = []

    def app(self) -> Starlette:
        async def serve(request: Request) -> Response:
            etag = f'"{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"'
            same = request.headers.get("if-none-match") == etag
            self.asked.append(304 if same else self.status)
            if same:
                return Response(status_code=304)
            return Response(self.text, self.status, {"ETag": etag}, "text/csv")

        return Starlette(routes=[Route("/list.csv", serve)])


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder: Path = tmp_path_factory.mktemp("lists")
    with running_bridge(folder) as running:
        yield running


@pytest.fixture
def published(bridge: Bridge) -> Iterator[tuple[Publisher, str]]:
    publisher, sock = Publisher(MANY), free_socket()
    served = Served(bridge.loop, publisher.app(), sock)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}/list.csv"
    yield publisher, url
    bridge.ground.store.transact_now(blocklists.unsubscribe, url)
    served.stop()


def follow(bridge: Bridge, url: str, *, priority: int = 0, cap: str = "suspend") -> int:
    number = bridge.ground.store.transact_now(
        blocklists.subscribe,
        url,
        name="",
        priority=priority,
        severity_cap=cap,  # type: ignore[arg-type]
    )
    eventually(lambda: of(bridge, number).asked_at)
    enforced(bridge)
    return number


def of(bridge: Bridge, number: int) -> Subscription:
    found = bridge.ground.store.read_now(blocks.subscription, number)
    assert found is not None
    return found


def again(bridge: Bridge, publisher: Publisher, number: int, *, force: bool = False) -> Subscription:
    asked = len(publisher.asked)
    bridge.ground.store.transact_now(blocklists.ask, number, force=force)
    before = of(bridge, number).asked_at
    eventually(lambda: len(publisher.asked) > asked and of(bridge, number).asked_at != before)
    enforced(bridge)
    return of(bridge, number)


def standing(bridge: Bridge, host: str) -> Standing:
    return bridge.ground.store.read_now(admission.ruling_about, f"https://{host}/users/anybody").standing


def test_what_a_list_names_is_blocked_and_what_it_retracts_comes_back(
    bridge: Bridge, published: tuple[Publisher, str]
) -> None:
    publisher, url = published
    account = bridge.account("listed")
    with strangers(bridge, "bob") as (bob,):
        inbox, actor = f"{bridge.base}/ap/inbox", bridge.ground.ids.actor(account.id)
        assert bob.post(inbox, bob.activity("Follow", actor)).status_code == 202
        publisher.text = MANY + domain(bob) + "\n"
        number = follow(bridge, url)
        assert of(bridge, number).entries == 21
        assert bob.post(inbox, bob.activity("Follow", actor)).status_code == 403
        assert bridge.count("followers", account_id=account.id, ended_by="suspended") == 1
        # Unchanged: asked for with its ETag, and nothing is written anew.
        again(bridge, publisher, number)
        assert publisher.asked[-1] == 304
        publisher.text = MANY
        again(bridge, publisher, number)
        assert standing(bridge, domain(bob)) is Standing.FINE
        assert bridge.count("followers", account_id=account.id, ended_at=None) == 1


def test_a_list_never_goes_below_or_above_the_operators_own_rule(
    bridge: Bridge, published: tuple[Publisher, str]
) -> None:
    publisher, url = published
    rule(bridge, "suspend", "d1.example")
    rule(bridge, "allow", "d2.example")
    number = follow(bridge, url, cap="limit")
    assert standing(bridge, "d0.example") is Standing.LIMITED
    assert standing(bridge, "d1.example") is Standing.SUSPENDED
    assert standing(bridge, "d2.example") is Standing.FINE
    publisher.text = MANY.replace("d1.example\n", "").replace("d2.example\n", "")
    again(bridge, publisher, number)
    assert standing(bridge, "d1.example") is Standing.SUSPENDED
    lift(bridge, "d1.example")
    lift(bridge, "d2.example")
    assert standing(bridge, "d1.example") is Standing.FINE
    assert standing(bridge, "d3.example") is Standing.LIMITED
    bridge.ground.store.transact_now(blocklists.unsubscribe, url)
    assert standing(bridge, "d3.example") is Standing.FINE


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", 200, "empty"),
        ("# nothing any more\n", 200, "empty"),
        (MANY, 500, "500"),
        (MANY, 404, "404"),
        ("<!doctype html>", 200, "no list"),
        ("d1.example\nd2.example\n", 200, "shrunk"),
        (MANY + "".join(f"x*{number}.example\n" for number in range(5)), 200, "line 21"),
    ],
)
def test_a_list_that_breaks_changes_nothing_and_says_so(
    bridge: Bridge, published: tuple[Publisher, str], text: str, status: int, words: str
) -> None:
    publisher, url = published
    number = follow(bridge, url)
    before = bridge.count("blocks")
    publisher.text, publisher.status = text + "# changed\n" if text == MANY else text, status
    now = again(bridge, publisher, number)
    assert words in (now.trouble or "")
    assert bridge.count("blocks") == before
    assert standing(bridge, "d7.example") is Standing.SUSPENDED
    assert bridge.count("jobs", kind=READ_LIST, key=str(number)) == 1
    assert bridge.count("decisions", kind="list", subject=url) >= 1


def test_the_operator_can_believe_a_list_that_has_shrunk(bridge: Bridge, published: tuple[Publisher, str]) -> None:
    publisher, url = published
    number = follow(bridge, url)
    publisher.text = "d1.example\nobf*scated.example\n" + "".join(f"e{n}.example\n" for n in range(9))
    assert "shrunk" not in (again(bridge, publisher, number).trouble or "")
    publisher.text = "d1.example\n"
    assert "shrunk" in (again(bridge, publisher, number).trouble or "")
    taken = again(bridge, publisher, number, force=True)
    assert (taken.entries, taken.trouble) == (1, None)
    assert standing(bridge, "d7.example") is Standing.FINE


def test_the_list_with_the_greater_priority_goes_first(bridge: Bridge, published: tuple[Publisher, str]) -> None:
    _, url = published
    follow(bridge, url, priority=1)
    mild, sock = Publisher("#domain,#severity\nd3.example,silence\n"), free_socket()
    served = Served(bridge.loop, mild.app(), sock)
    second = f"http://127.0.0.1:{sock.getsockname()[1]}/list.csv"
    follow(bridge, second, priority=2)
    assert standing(bridge, "d3.example") is Standing.LIMITED
    follow(bridge, second, priority=0)
    assert standing(bridge, "d3.example") is Standing.SUSPENDED
    bridge.ground.store.transact_now(blocklists.unsubscribe, second)
    served.stop()


def test_a_preview_says_what_would_be_cut_and_changes_nothing(bridge: Bridge) -> None:
    account, store = bridge.account("previewed"), bridge.ground.store
    with strangers(bridge, "bob", "eve") as (bob, eve):
        inbox, post = f"{bridge.base}/ap/inbox", bridge.post(account)
        for one in (bob, eve):
            assert one.post(inbox, one.activity("Follow", bridge.ground.ids.actor(account.id))).status_code == 202
        assert bob.post(inbox, bob.activity("Create", bob.note(post))).status_code == 202
        before = bridge.everything()
        entries = [Entry("domain", domain(bob), "suspend"), Entry("domain", domain(eve), "limit")]
        cut = store.read_now(blocklists.preview, entries)
        losses = {loss.host: loss for loss in cut.losses}
        assert (losses[domain(bob)].handle, losses[domain(bob)].followers, losses[domain(bob)].replies) == (
            "previewed",
            1,
            1,
        )
        assert (losses[domain(eve)].standing, losses[domain(eve)].followers) == (Standing.LIMITED, 0)
        assert bridge.everything() == before
        rule(bridge, "suspend", domain(bob))
        assert store.read_now(blocklists.preview, entries[:1]).hosts == ()
        lift(bridge, domain(bob))


def test_a_broken_file_stores_nothing_and_a_good_one_is_idempotent(bridge: Bridge) -> None:
    store = bridge.ground.store
    before = bridge.everything()
    broken = files.read(b"#domain,#severity\ngood.example,suspend\nbad.example,destroy\n")
    with pytest.raises(Invalid, match="was not taken") as caught:
        store.transact_now(blocklists.import_file, broken)
    assert "line 3" in str(caught.value)
    assert bridge.everything() == before
    good = files.read(b"#domain,#severity\ngood.example,suspend\nmild.example,silence\n")
    assert store.transact_now(blocklists.import_file, good) == (2, 0, 0)
    assert store.transact_now(blocklists.import_file, good) == (0, 2, 0)
    exported = store.read_now(blocklists.export)
    assert store.transact_now(blocklists.import_file, files.read(exported)) == (0, 2, 0)
    rest = files.read(b"mild.example,silence\n".replace(b",silence", b""), default="limit")
    assert store.transact_now(blocklists.import_file, rest, replace=True) == (0, 1, 1)
    assert [held.entry.subject for held in store.read_now(blocks.of_holder, OPERATOR)] == ["mild.example"]
    enforced(bridge)
    lift(bridge, "mild.example")
