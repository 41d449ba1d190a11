"""The mock network speaks Graph: fields, paging, errors, allowance and dying media addresses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from threadbridge.sandbox.app import create_app
from threadbridge.sandbox.network import Draft, Network, Person, Poll

BASE = "http://sandbox.test"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def sleep(self, **duration: float) -> None:
        self.time += timedelta(**duration)


class Stage:
    """A network with one person, its clock, and somebody asking."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = Network(now=self.clock, secret=b"s" * 32)
        self.mira = self.network.join("mira", name="Mira", bio="Draws")
        self.web = TestClient(create_app(self.network, BASE), base_url=BASE)

    def get(self, path: str, person: Person | None = None, **params: str) -> Any:
        token = (person or self.mira).token
        return self.web.get(path, params={"access_token": token, **params}).json()

    def write(self, count: int, **fields: Any) -> list[str]:
        made = []
        for n in range(count):
            made.append(self.network.post(self.mira, Draft(text=f"Post {n}", **fields)).id)
            self.clock.sleep(minutes=1)
        return made


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    with stage.web:
        yield stage


def test_only_the_id_comes_unasked(stage: Stage) -> None:
    (id,) = stage.write(1)
    assert stage.get("/v1.0/me") == {"id": stage.mira.id}
    assert stage.get(f"/v1.0/{id}") == {"id": id}
    assert stage.get("/v1.0/me/threads")["data"] == [{"id": id}]


def test_the_version_may_be_left_out_and_me_may_be_an_id(stage: Stage) -> None:
    (id,) = stage.write(1)
    for path in ("/me/threads", f"/{stage.mira.id}/threads", f"/v1.0/{stage.mira.id}/threads"):
        assert stage.get(path)["data"] == [{"id": id}]


def test_fields_are_selected_and_what_has_no_value_is_left_out(stage: Stage) -> None:
    (id,) = stage.write(1, topic="Trams")
    row = stage.get(f"/{id}", fields="id,text,timestamp,topic_tag,alt_text,media_type,owner")
    assert row == {
        "id": id,
        "text": "Post 0",
        "timestamp": "2026-03-01T12:00:00+0000",
        "topic_tag": "Trams",
        "media_type": "TEXT_POST",
        "owner": {"id": stage.mira.id},
    }
    assert stage.get("/me", fields="username,name,threads_biography") == {
        "id": stage.mira.id,
        "username": "mira",
        "name": "Mira",
        "threads_biography": "Draws",
    }


@pytest.mark.parametrize("fields", ["id,likes", "id,children{id", "id,,{", "gif_attachment"])
def test_fields_that_do_not_exist_are_refused(stage: Stage, fields: str) -> None:
    stage.write(1)
    assert stage.get("/me/threads", fields=fields)["error"]["code"] == 100


def test_a_carousel_can_be_expanded_or_asked_for_one_by_one(stage: Stage) -> None:
    files = [stage.network.store(bytes([n]), "image/jpeg") for n in range(3)]
    items = tuple(stage.network.item(file, alt=f"Alt {n}") for n, file in enumerate(files))
    entry = stage.network.post(stage.mira, Draft(text="Three", media=items))
    bare = stage.get(f"/{entry.id}", fields="media_type,children")
    assert bare["media_type"] == "CAROUSEL_ALBUM"
    assert bare["children"] == {"data": [{"id": item.id} for item in items]}
    full = stage.get(f"/{entry.id}", fields="children{id,media_type,media_url,alt_text}")["children"]["data"]
    assert [child["alt_text"] for child in full] == ["Alt 0", "Alt 1", "Alt 2"]
    assert stage.get(f"/{items[1].id}", fields="media_type,alt_text")["alt_text"] == "Alt 1"
    assert len(stage.get(f"/{entry.id}/children", fields="id")["data"]) == 3
    stage.network.faults.expand_children = False
    assert stage.get(f"/{entry.id}", fields="children{id,media_url}")["children"] == bare["children"]


def test_a_poll_tells_shares_only_when_it_is_expanded(stage: Stage) -> None:
    poll = Poll(("Tea", "Coffee"), (1, 3), START + timedelta(days=1))
    id = stage.network.post(stage.mira, Draft(text="Which?", poll=poll)).id
    assert stage.get(f"/{id}", fields="poll_attachment") == {"id": id, "poll_attachment": {"id": id}}
    wanted = "poll_attachment{option_a,option_b,option_c,option_b_votes_percentage,total_votes,expiration_timestamp}"
    told = stage.get(f"/{id}", fields=wanted)["poll_attachment"]
    assert told["option_b_votes_percentage"] == 0.75
    assert (told["total_votes"], told["expiration_timestamp"]) == (4, "2026-03-02T12:00:00+0000")
    assert "option_c" not in told


def test_replies_are_a_list_of_their_own(stage: Stage) -> None:
    (root,) = stage.write(1)
    first = stage.network.post(stage.mira, Draft(text="More", reply_to=root))
    second = stage.network.post(stage.mira, Draft(text="And more", reply_to=first.id))
    assert [row["id"] for row in stage.get("/me/threads")["data"]] == [root]
    rows = stage.get("/me/replies", fields="is_reply,is_reply_owned_by_me,replied_to,root_post")["data"]
    assert rows[0] == {
        "id": second.id,
        "is_reply": True,
        "is_reply_owned_by_me": True,
        "replied_to": {"id": first.id},
        "root_post": {"id": root},
    }
    assert [row["id"] for row in stage.get(f"/{root}/replies")["data"]] == [first.id]


def test_paging_forward_and_backward_by_the_addresses_given(stage: Stage) -> None:
    made = list(reversed(stage.write(7)))
    answer, seen = stage.get("/v1.0/me/threads", limit="3"), []
    assert "previous" not in answer["paging"]
    while True:
        seen += [row["id"] for row in answer["data"]]
        if "next" not in answer["paging"]:
            break
        answer = stage.web.get(answer["paging"]["next"].removeprefix(BASE)).json()
    assert seen == made
    back = stage.web.get(answer["paging"]["previous"].removeprefix(BASE)).json()
    assert [row["id"] for row in back["data"]] == made[3:6]
    assert stage.get("/me/threads", after="A", before="B")["error"]["code"] == 100
    assert stage.get("/me/threads", after="nonsense")["error"]["code"] == 100


def test_a_deletion_between_two_pages_loses_nothing(stage: Stage) -> None:
    made = list(reversed(stage.write(6)))
    answer = stage.get("/me/threads", limit="2")
    stage.network.delete(stage.mira, made[0])
    stage.network.delete(stage.mira, made[1])
    rest = stage.get("/me/threads", limit="10", after=answer["paging"]["cursors"]["after"])
    assert [row["id"] for row in rest["data"]] == made[2:]


def test_limits_and_times(stage: Stage) -> None:
    made = list(reversed(stage.write(30)))
    assert len(stage.get("/me/threads")["data"]) == 25
    assert len(stage.get("/me/threads", limit="100")["data"]) == 30
    assert stage.get("/me/threads", limit="0")["error"]["code"] == 100
    since = str(int((START + timedelta(minutes=28)).timestamp()))
    assert [row["id"] for row in stage.get("/me/threads", since=since)["data"]] == made[:2]
    until = (START + timedelta(minutes=1)).isoformat()
    assert [row["id"] for row in stage.get("/me/threads", until=until)["data"]] == made[-2:]
    assert stage.get("/me/threads", since="1688540399")["error"]["code"] == 100


def test_errors_have_graphs_shape(stage: Stage) -> None:
    answer = stage.web.get("/v1.0/me?access_token=wrong")
    assert answer.status_code == 401
    assert {"message", "type", "code", "fbtrace_id"} <= set(answer.json()["error"])
    assert answer.json()["error"]["code"] == 190
    assert "x-app-usage" in answer.headers
    unknown = stage.get("/v1.0/17999999999999999")["error"]
    assert (unknown["code"], unknown["error_subcode"]) == (100, 33)
    stage.mira.expired = True
    assert stage.get("/me")["error"]["code"] == 190


def test_a_bearer_header_is_as_good_as_a_parameter(stage: Stage) -> None:
    answer = stage.web.get("/me", headers={"authorization": f"Bearer {stage.mira.token}"})
    assert answer.json() == {"id": stage.mira.id}


def test_other_peoples_lists_are_closed_and_their_posts_tell_no_owner(stage: Stage) -> None:
    other = stage.network.join("other")
    (id,) = stage.write(1)
    assert stage.get(f"/{stage.mira.id}/threads", person=other)["error"]["error_subcode"] == 33
    row = stage.get(f"/{id}", person=other, fields="username,permalink,owner,reply_audience")
    assert set(row) == {"id", "username", "permalink"}


def test_the_allowance_runs_out_and_comes_back(stage: Stage) -> None:
    stage.network.budget = 4
    ask = {"params": {"access_token": stage.mira.token}}
    used = [stage.web.get("/me", **ask).headers["x-app-usage"] for _ in range(4)]  # type: ignore[arg-type]
    assert [f'"call_count": {n}' in header for n, header in zip((25, 50, 75, 100), used, strict=True)] == [True] * 4
    assert stage.get("/me")["error"]["code"] == 4
    stage.clock.sleep(hours=1)
    assert stage.get("/me") == {"id": stage.mira.id}


def test_a_media_address_dies_and_cannot_be_forged(stage: Stage) -> None:
    file = stage.network.store(b"\xff\xd8picture", "image/jpeg")
    id = stage.network.post(stage.mira, Draft(media=(stage.network.item(file),))).id
    url = stage.get(f"/{id}", fields="media_url")["media_url"].removeprefix(BASE)
    answer = stage.web.get(url)
    assert (answer.status_code, answer.content) == (200, b"\xff\xd8picture")
    assert answer.headers["content-type"] == "image/jpeg"
    stage.clock.sleep(hours=1)
    assert stage.web.get(url).status_code == 403
    later = f"{int(stage.clock.time.timestamp()) + 9999:X}"
    assert stage.web.get(url.partition("oe=")[0] + "oe=" + later).status_code == 403
    assert stage.web.get("/cdn/other.jpg").status_code == 403
    again = stage.get(f"/{id}", fields="media_url")["media_url"].removeprefix(BASE)
    assert stage.web.get(again).status_code == 200


def test_ghosts_are_listed_apart_and_run_out(stage: Stage) -> None:
    id = stage.network.post(stage.mira, Draft(text="Boo", ghost=True)).id
    fields = "ghost_post_status,ghost_post_expiration_timestamp"
    assert stage.get("/me/threads") == {"data": []}
    assert stage.get("/me/ghost_posts", fields=fields)["data"] == [
        {"id": id, "ghost_post_status": "ACTIVE", "ghost_post_expiration_timestamp": "2026-03-02T12:00:00+0000"}
    ]
    stage.clock.sleep(days=2)
    assert stage.get(f"/{id}", fields=fields)["ghost_post_status"] == "ARCHIVED"
