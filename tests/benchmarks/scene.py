"""A populated bridge for the benchmarks: a data folder with an account, posts, followers, and its server process."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert, update
from tests.benchmarks import load
from tests.rig import a_key

from threadbridge.config import Config
from threadbridge.domain.accounts import Account
from threadbridge.services import Ground, open_ground
from threadbridge.storage import accounts, posts, schema
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx

Figure = tuple[str, float, str, str | None]
"""(what, value, unit, name of the limit beside it)"""


@dataclass(frozen=True)
class Scene:
    folder: Path
    port: int
    base: str
    account: Account

    def environment(self) -> dict[str, str]:
        return {
            "THREADBRIDGE_BASE_URL": self.base,
            "THREADBRIDGE_DATA_DIR": str(self.folder),
            "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "THREADBRIDGE_PORT": str(self.port),
        }

    @contextlib.contextmanager
    def serving(self, *arguments: str) -> Iterator[load.Running]:
        command = ["-m", "threadbridge.cli", "serve", *arguments]
        with load.process(command, self.port, env=self.environment()) as running:
            yield running

    @contextlib.contextmanager
    def ground(self) -> Iterator[Ground]:
        opened = open_ground(config(self.folder, self.base))
        try:
            yield opened
        finally:
            opened.close()


def config(folder: Path, base: str) -> Config:
    return Config(base_url=base, data_dir=folder, allowed_private_networks=(ipaddress.ip_network("127.0.0.0/8"),))


@contextlib.contextmanager
def populated(count: int = 200) -> Iterator[Scene]:
    """An account with `count` posts of ordinary length."""
    with load.folder() as folder:
        port = load.free_port()
        base = f"http://127.0.0.1:{port}"
        ground = open_ground(config(folder, base))

        def fill(tx: Tx) -> Account:
            account = accounts.create(
                tx, ground.vault, a_key(), handle="alice", name="Alice", bio="Draws boats. https://example.org",
                source_url="https://www.threads.com/@alice", joined_at=None, consent_kind="download",
                consent_wording="bench",
            )  # fmt: skip
            start = datetime(2025, 1, 1, tzinfo=UTC)
            for number in range(count):
                text = f"Post number {number} of a day at the harbour, with #boats and a link https://example.org/{number}"
                content = PostContent("post", text, "en", start + timedelta(hours=number), tags=("boats",))
                posts.add(tx, account.id, content, [], silent=True)
            return account

        account = ground.store.transact_now(fill)
        ground.close()
        yield Scene(folder, port, base, account)


def add_followers(tx: Tx, account_id: int, inboxes: list[str]) -> None:
    """Followers with an inbox each."""
    now = tx.now
    rows = [
        {"uri": f"{inbox}/actor", "host": inbox.split("/")[2], "kind": "Person", "handle": f"f{n}@x", "name": "",
         "inbox": inbox, "key_id": f"{inbox}/actor#main-key", "key_pem": "", "fetched_at": now}
        for n, inbox in enumerate(inboxes)
    ]  # fmt: skip
    tx.execute(insert(schema.peers), rows)
    tx.execute(
        insert(schema.followers),
        [
            {"account_id": account_id, "peer_uri": row["uri"], "follow_uri": f"{row['uri']}/follow",
             "inbox": row["inbox"], "since": now}
            for row in rows
        ],
    )  # fmt: skip
    tx.execute(update(schema.accounts).where(schema.accounts.c.id == account_id).values(followers_count=len(inboxes)))
