"""The forged twins: for each kind of accepted activity, requests that prove nothing or prove somebody else. Each is
refused with 4xx, and nothing is stored or queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from tests.rig import AS, Bridge, Served, Stranger, a_key, free_socket, running_bridge

KINDS: dict[str, Callable[[Stranger, str, str], dict[str, Any]]] = {
    "Follow": lambda s, actor, post: s.activity("Follow", actor),
    "Undo": lambda s, actor, post: s.activity("Undo", {"type": "Follow", "actor": s.uri, "object": actor}),
    "Like": lambda s, actor, post: s.activity("Like", post),
    "Announce": lambda s, actor, post: s.activity("Announce", post),
    "Create": lambda s, actor, post: s.activity("Create", s.note(post)),
    "Update": lambda s, actor, post: s.activity("Update", s.note(post)),
    "Delete": lambda s, actor, post: s.activity("Delete", f"{s.base}/notes/1"),
    "Block": lambda s, actor, post: s.activity("Block", actor),
    "EmojiReact": lambda s, actor, post: s.activity("EmojiReact", post, content="🎉"),
    "Move": lambda s, actor, post: s.activity("Move", s.uri, target=f"{s.base}/users/robert"),
    "Accept": lambda s, actor, post: s.activity("Accept", f"{actor}#follows/1"),
    "Add": lambda s, actor, post: s.activity("Add", post, target=f"{s.uri}/featured"),
    "Flag": lambda s, actor, post: s.activity("Flag", [actor, post], content="Rude"),
    "QuoteRequest": lambda s, actor, post: s.activity("QuoteRequest", post, instrument=s.note(None, quote=post)),
    "ReplyRequest": lambda s, actor, post: s.activity("ReplyRequest", post, instrument=s.note(post)),
    "vote": lambda s, actor, post: s.activity("Create", {**s.note(post), "name": "Tea", "content": None}),
}

Send = Callable[[Stranger, str, dict[str, Any]], httpx2.Response]


def unsigned(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    headers = {"content-type": "application/activity+json"}
    return httpx2.post(inbox, content=orjson.dumps(activity), headers=headers, trust_env=False)


def by_another_key(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, activity, key=a_key(2))


def with_another_body(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    headers = s.signed(inbox, orjson.dumps(activity))
    changed = orjson.dumps({**activity, "summary": "changed on the way"})
    return httpx2.post(inbox, content=changed, headers=headers, trust_env=False)


def without_digest_covered(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, activity, covered=("(request-target)", "host", "date"))


def without_host_covered(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, activity, covered=("(request-target)", "date", "digest"))


def without_target_covered(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, activity, covered=("host", "date", "digest"))


def without_date_covered(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, activity, covered=("(request-target)", "host", "digest"))


def too_old(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, activity, at=datetime.now(UTC) - timedelta(hours=2))


def from_the_future(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, activity, at=datetime.now(UTC) + timedelta(minutes=10))


def for_another_inbox(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    body = orjson.dumps(activity)
    return httpx2.post(inbox, content=body, headers=s.signed(inbox + "x", body), trust_env=False)


def in_somebodys_name(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, {**activity, "actor": s.uri.replace("bob", "carol")})


def with_a_foreign_id(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, {**activity, "id": "https://victim.example/activities/1"})


def without_an_id(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, {key: value for key, value in activity.items() if key != "id"})


def with_an_unknown_key(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, activity, key_id=f"{s.base}/users/nobody#main-key")


def with_rearranging_json_ld(s: Stranger, inbox: str, activity: dict[str, Any]) -> httpx2.Response:
    return s.post(inbox, {"@context": AS, "@graph": [activity], **activity})


FORGERIES: list[Send] = [
    unsigned, by_another_key, with_another_body, without_digest_covered, without_host_covered, without_target_covered,
    without_date_covered, too_old, from_the_future, for_another_inbox, in_somebodys_name, with_a_foreign_id,
    without_an_id, with_an_unknown_key, with_rearranging_json_ld,
]  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Bridge, Stranger, str, str]]:
    """One bridge for the whole table, on either database; each request is checked to have changed nothing."""
    folder: Path = tmp_path_factory.mktemp("forged")
    url = request.getfixturevalue("postgres_url_of_module") if request.param == "postgresql" else None
    with running_bridge(folder, worker=False, database_url=url) as bridge:
        sock = free_socket()
        stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, stranger.create_app(), sock)
        account = bridge.account()
        yield bridge, stranger, bridge.ground.ids.actor(account.id), bridge.post(account)
        served.stop()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_refused_and_nothing_stored(scene: tuple[Bridge, Stranger, str, str], kind: str, forge: Send) -> None:
    bridge, stranger, actor, post = scene
    activity = KINDS[kind](stranger, actor, post)
    before = bridge.contents()
    answer = forge(stranger, f"{actor}/inbox", activity)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]
    assert bridge.contents() == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_genuine_twin_is_accepted(tmp_path: Path, kind: str) -> None:
    with running_bridge(tmp_path, worker=False) as bridge:
        sock = free_socket()
        stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, stranger.create_app(), sock)
        account = bridge.account()
        actor, post = bridge.ground.ids.actor(account.id), bridge.post(account)
        answer = stranger.post(f"{actor}/inbox", KINDS[kind](stranger, actor, post))
        assert answer.status_code == 202, answer.text
        assert bridge.count("seen_activities") >= 1
        served.stop()
