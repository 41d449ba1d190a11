"""Whatever form a post of the Fediverse has, it is taken or refused with a reason, and never breaks anything."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from tests.peers.pasture import inputs
from tests.rig import PUBLIC, Served, Stranger, free_socket, running_bridge

# What the pasture's own documents call their sender and his server.
THEIR_ACTOR = "http://pasture-one-actor/actor"
THEIR_HOST = "http://pasture-one-actor"


def filled(example: Any, somebody: Stranger, post: str) -> Any:
    """The example as said by our stranger about our post."""
    text = orjson.dumps(example).decode()
    text = text.replace(THEIR_ACTOR, somebody.uri).replace(f"{THEIR_HOST}/assets/note1.jsonap", post)
    return orjson.loads(text.replace(THEIR_HOST, somebody.base))


def test_every_input_of_the_pasture_has_a_sensible_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = inputs()
    assert sum(len(examples) for examples in sets.values()) > 200
    with running_bridge(tmp_path) as bridge:
        sock = free_socket()
        somebody = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}")
        served = Served(bridge.loop, somebody.create_app(), sock)
        post = bridge.post(bridge.account())
        inbox = f"{bridge.base}/ap/inbox"
        outcomes: dict[str, Counter[int]] = {}
        kept = bridge.count("replies")
        with httpx2.Client(trust_env=False) as client:
            for name, examples in sets.items():
                outcomes[name] = Counter()
                for example in examples:
                    note = {**somebody.note(post), **filled(example, somebody, post)}
                    context = note.pop("@context", None)
                    activity = {**somebody.activity("Create", note), "to": [PUBLIC]}
                    if context is not None:
                        activity["@context"] = context
                    body = orjson.dumps(activity)
                    answer = client.post(inbox, content=body, headers=somebody.signed(inbox, body))
                    outcomes[name][answer.status_code] += 1
                    assert answer.status_code in (202, 400, 401, 403), (name, example, answer.text)
                    if answer.status_code != 202:
                        assert answer.json()["error"], (name, example)
        served.stop()
        taken = bridge.count("replies") - kept
    # What all servers agree about is taken whole.
    for name in ("html_tags", "html_anchor", "html_bad", "content_warnings", "image_description", "language", "url"):
        assert set(outcomes[name]) == {202}, (name, outcomes[name])
    assert taken > 150, outcomes
    assert "a request failed" not in capsys.readouterr().out
