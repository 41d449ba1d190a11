"""What the storage tests deliver: accounts, activities and rows of the ledger, made in a line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select

from threadbridge.domain.people import Peer
from threadbridge.storage import followers, ledger, peers, schema, turns
from threadbridge.storage.ledger import Activity, Settled
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.turns import Claimed

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = 8.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


def account(store: Store, handle: str = "alice") -> int:
    """A bare account row."""

    def add(tx: Tx) -> int:
        number: int = tx.execute(
            insert(schema.accounts)
            .values(handle=handle, name="", bio="", state="active", discoverable=True, created_at=tx.now,
                    changed_at=tx.now)
            .returning(schema.accounts.c.id)
        ).scalar_one()  # fmt: skip
        return number

    return store.transact_now(add)


def post(store: Store, account_id: int) -> int:
    def add(tx: Tx) -> int:
        number: int = tx.execute(
            insert(schema.posts)
            .values(account_id=account_id, kind="post", text="Hello", published=tx.now, sensitive=False,
                    silent=False, created_at=tx.now)
            .returning(schema.posts.c.id)
        ).scalar_one()  # fmt: skip
        return number

    return store.transact_now(add)


_numbers = iter(range(1, 10**9))


def said(
    store: Store, account_id: int, kind: str = "Create", *, about: str | None = None, post_id: int | None = None
) -> Activity:
    """An activity about an object (of its own, unless `about` names one)."""

    def add(tx: Tx) -> Activity:
        number = next(_numbers)
        uri = f"https://bridge.example/activities/{number}"
        made = ledger.add_activity(
            tx, account_id=account_id, uri=uri, kind=kind, order_key=about or uri, body=b"{}", post_id=post_id
        )
        assert made is not None
        found = ledger.activity(tx, made)
        assert found is not None
        return found

    return store.transact_now(add)


def address(store: Store, activity: Activity, *hosts: str, lane: int = ledger.LANE_POST, **given: Any) -> int:
    """Deliveries of an activity to the inboxes of these hosts."""
    inboxes = [(f"https://{host}/inbox", host.partition("/")[0]) for host in hosts]
    return store.transact_now(ledger.add_deliveries, activity, inboxes, lane=lane, **given)


def take(store: Store, limit: int = 128, *, busy: dict[str, int] | None = None, **given: Any) -> list[Claimed]:
    return store.transact_now(turns.take, busy=busy or {}, limit=limit, lease_seconds=LEASE, **given)[0]


def settle(store: Store, claimed: Claimed, state: str = "delivered", **given: Any) -> None:
    outcome: dict[str, Any] = {"due_at": None, "status": 202, "reason": None, **given}
    store.transact_now(
        ledger.settle, [Settled(id=claimed.id, lease=claimed.lease, host=claimed.host, state=state, **outcome)]
    )


def fail(store: Store, claimed: Claimed, again: datetime, **given: Any) -> None:
    """Settle as trouble of the host, to be tried again."""
    words = "could not be reached"
    settle(store, claimed, "waiting", due_at=again, status=None, reason=words, host_trouble=words, **given)


def rows(store: Store, table: str = "deliveries", **where: Any) -> list[Any]:
    t = schema.metadata.tables[table]
    query = select(t).order_by(*t.primary_key.columns)
    for column, value in where.items():
        query = query.where(t.c[column] == value)
    return store.read_now(lambda tx: list(tx.execute(query)))


def follower(store: Store, account_id: int, name: str, host: str, *, shared: bool = True) -> Peer:
    """Somebody who follows."""
    uri = f"https://{host}/users/{name}"
    peer = Peer(
        uri=uri, inbox=f"{uri}/inbox", shared_inbox=f"https://{host}/inbox" if shared else None,
        handle=f"{name}@{host}", name=name, url=None, key_id=f"{uri}#main-key", key_pem="pem", kind="Person",
        moved_to=None,
    )  # fmt: skip

    def add(tx: Tx) -> None:
        peers.save(tx, peer, host)
        followers.follow(tx, account_id, peer, f"{uri}/follows/{account_id}")

    store.transact_now(add)
    return peer
