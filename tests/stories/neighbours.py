"""For stories about who may speak: several strangers on servers of their own, and rules about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
from tests.rig import Bridge, Served, Stranger, a_key, eventually, free_socket

from threadbridge.domain.blocks import Severity, SubjectKind
from threadbridge.federation import enforcement
from threadbridge.storage import blocks
from threadbridge.storage.blocks import OPERATOR, Entry

# What is written down about a refusal itself.
NOTES = ("dropped", "decisions")


@contextmanager
def strangers(bridge: Bridge, *names: str) -> Iterator[list[Stranger]]:
    """People, each on a server of their own."""
    with ExitStack() as stack:
        found = []
        for number, name in enumerate(names):
            sock = free_socket()
            one = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", name=name, key=a_key(1 + number))
            served = Served(bridge.loop, one.create_app(), sock)
            stack.callback(served.stop)
            found.append(one)
        yield found


_CLIENT = httpx2.Client(trust_env=False)


def send(speaker: Stranger, inbox: str, activity: dict[str, Any], **bent: Any) -> httpx2.Response:
    """`Stranger.post` over a connection that is kept: for many requests."""
    body = orjson.dumps(activity)
    return _CLIENT.post(inbox, content=body, headers=speaker.signed(inbox, body, **bent))


def hears(somebody: Stranger, kind: str) -> list[dict[str, Any]]:
    """Wait until an activity of this type has arrived; all of them."""
    found: list[dict[str, Any]] = eventually(lambda: somebody.of_kind(kind))
    return found


def domain(somebody: Stranger) -> str:
    return urlsplit(somebody.base).netloc


def rule(
    bridge: Bridge,
    severity: Severity,
    subject: str,
    kind: SubjectKind = "domain",
    *,
    owner: int | None = None,
    wait: bool = True,
) -> None:
    """Hold a rule, and wait until what follows from it is done."""
    held_by = OPERATOR if owner is None else blocks.owner(owner)
    entry = Entry(kind, subject, severity)
    bridge.ground.store.transact_now(enforcement.add_rules, held_by, [entry], account_id=owner)
    if wait:
        enforced(bridge)


def lift(bridge: Bridge, subject: str, kind: SubjectKind = "domain", *, owner: int | None = None) -> None:
    held_by = OPERATOR if owner is None else blocks.owner(owner)
    assert bridge.ground.store.transact_now(enforcement.lift_rule, held_by, kind, subject)
    enforced(bridge)


def enforced(bridge: Bridge) -> None:
    eventually(lambda: bridge.count("jobs", kind=enforcement.ENFORCE) == 0)


def kept(bridge: Bridge) -> dict[str, int]:
    """{table: rows} of everything but what is written down about refusals."""
    return {name: rows for name, rows in bridge.everything().items() if name not in NOTES}
