"""A populated bridge for the benchmarks: a data folder with an account, posts, followers, and its server process."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.benchmarks import load
from tests.rig import a_key

from threadbridge.config import Config
from threadbridge.domain.accounts import Account
from threadbridge.domain.people import Peer
from threadbridge.services import Ground, open_ground
from threadbridge.storage import accounts, followers, peers, posts
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
    database: str | None = None

    def environment(self) -> dict[str, str]:
        return {
            **({"THREADBRIDGE_DATABASE_URL": self.database} if self.database else {}),
            "THREADBRIDGE_BASE_URL": self.base,
            "THREADBRIDGE_DATA_DIR": str(self.folder),
            "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "THREADBRIDGE_PORT": str(self.port),
        }

    @contextlib.contextmanager
    def serving(
        self, *arguments: str, core: int | None = load.SERVER_CORE, ca_file: Path | None = None
    ) -> Iterator[load.Running]:
        command = ["-m", "threadbridge.cli", "serve", *arguments]
        env = self.environment() | ({"THREADBRIDGE_CA_FILE": str(ca_file)} if ca_file else {})
        with load.process(command, self.port, core=core, env=env) as running:
            yield running

    @contextlib.contextmanager
    def ground(self) -> Iterator[Ground]:
        opened = open_ground(config(self.folder, self.base, self.database))
        try:
            yield opened
        finally:
            opened.close()


def config(folder: Path, base: str, database: str | None = None) -> Config:
    loopback = (ipaddress.ip_network("127.0.0.0/8"),)
    return Config(base_url=base, data_dir=folder, allowed_private_networks=loopback, database_url=database)


@contextlib.contextmanager
def populated(count: int = 200, *, database: str | None = None) -> Iterator[Scene]:
    """An account with `count` posts of ordinary length, in SQLite or in the PostgreSQL database at `database`."""
    with load.folder() as folder:
        port = load.free_port()
        base = f"http://127.0.0.1:{port}"
        ground = open_ground(config(folder, base, database))

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
        yield Scene(folder, port, base, account, database)


def neighbours(scene: Scene, count: int) -> list[tuple[str, int]]:
    """(handle, number) of further accounts on the same bridge, with a post each."""
    with scene.ground() as ground:

        def settle(tx: Tx) -> list[tuple[str, int]]:
            made = []
            for number in range(count):
                handle = f"neighbour{number}"
                account = accounts.create(
                    tx, ground.vault, a_key(), handle=handle, name=handle, bio="Lives here too.",
                    source_url=f"https://www.threads.com/@{handle}", joined_at=None, consent_kind="download",
                    consent_wording="bench",
                )  # fmt: skip
                posts.add(tx, account.id, PostContent("post", "Good morning", "en", tx.now), [], silent=True)
                made.append((handle, account.id))
            return made

        return ground.store.transact_now(settle)


def add_followers(tx: Tx, account_id: int, inboxes: list[str]) -> None:
    """Followers with an inbox each."""
    for number, inbox in enumerate(inboxes):
        uri = f"{inbox}/actor"
        peer = Peer(uri, inbox, None, f"f{number}@x", "", None, f"{uri}#main-key", a_key().public_pem)
        peers.save(tx, peer, inbox.split("/")[2])
        followers.follow(tx, account_id, peer, f"{uri}/follow")
