"""The same person as a data download and by the API: one set of posts, whichever came first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.stories.bridged_account import Place, place

from threadbridge.domain.source import SourcePost
from threadbridge.portability import imports
from threadbridge.portability.imports import ImportSummary
from threadbridge.sandbox import sample
from threadbridge.sources.threads_download import open_download
from threadbridge.storage import accounts, content, posts, schema
from threadbridge.storage.posts import PostContent
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import new_rsa_key

MIRA = "mira.draws"


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sample.write_download(tmp_path_factory.mktemp("download"))


def take_in(here: Place, paths: list[Path]) -> ImportSummary:
    ground = here.bridge.ground
    with open_download(paths) as opened:
        return imports.import_download(
            ground.store, ground.media, ground.vault, opened, handle=None, dry_run=False,
            new_key=new_rsa_key, on_progress=lambda step: None,
        )  # fmt: skip


def enter(here: Place) -> str:
    """Let the sample person join the mock network; returns the token."""
    return here.threads.do(lambda: sample.seed(here.threads.network)).token


def figures(here: Place) -> dict[str, int]:
    p, a = schema.posts.c, schema.attachments.c
    wanted = {
        "posts": p.id.is_not(None),
        "alt texts": a.alt != "",
        "files": a.sha256.is_not(None),
        "parents": p.parent_id.is_not(None),
        "threads": p.thread_id.is_not(None),
        "quotes": p.quoted_id.is_not(None),
        "polls": p.poll.is_not(None),
        "topics": p.topic.is_not(None),
        "spoilers": p.sensitive,
        "addresses": p.original_url.is_not(None),
        "tags": schema.post_tags.c.tag != "",
    }

    def count(tx: Tx) -> dict[str, int]:
        return {name: tx.execute(select(func.count()).where(one)).scalar_one() for name, one in wanted.items()}

    return here.bridge.ground.store.read_now(count)


def test_both_ways_end_alike(tmp_path: Path, download: list[Path]) -> None:
    with place(tmp_path / "a") as here:
        imported = take_in(here, download)
        account = here.bridge.ground.store.read_now(accounts.named, MIRA)
        here.follow(account)
        token = enter(here)
        fetched_before = len(here.threads.asked)
        changes = here.connect(token=token).changes
        assert (changes.created, len(changes.recognised)) == ([], imported.posts_new + imported.replies_new)
        fetched = [path for path in here.threads.asked[fetched_before:] if path.startswith("/cdn/")]
        assert len(fetched) == 1, "only the profile's picture is new"
        here.threads.after_reads(2)
        assert here.stranger.of_kind("Create") == here.stranger.of_kind("Update") == []
        first = figures(here)
        held = {post.text: post for post in here.posts(MIRA)}
        assert next(post for text, post in held.items() if text.startswith("7/7")).thread_id is not None
        again = take_in(here, download)
        assert (again.posts_new, again.replies_new) == (0, 0)
        assert figures(here) == first

    with place(tmp_path / "b") as here:
        token = enter(here)
        connected = here.connect(token=token)
        summary = take_in(here, download)
        assert (summary.posts_new, summary.replies_new, summary.handle) == (0, 0, MIRA)
        assert summary.posts_known + summary.replies_known == len(connected.changes.created)
        assert figures(here) == first


def test_what_a_download_lacks_is_filled_and_what_it_has_stays(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        account = here.bridge.account("mira")
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
        here.bridge.post(account, "Two  words \n", published=at)
        here.bridge.ground.store.transact_now(_from_download, account.id, "Two  words \n", at)
        root = here.threads.post("root", at=at - timedelta(minutes=1))
        entry = here.threads.post(
            "Two  words", at=at, reply_to=root.id, topic="Slow Mornings", media=here.threads.items("a cat")
        )
        changes = here.connect().changes
        held, parent = here.held(entry), here.held(root)
        assert held is not None
        assert parent is not None
        assert (changes.recognised, len(here.posts())) == ([held.id], 2)
        assert (held.kind, held.parent_id, held.topic) == ("reply", parent.id, "Slow Mornings")
        assert [item.alt for item in held.attachments] == ["a cat"]
        assert held.attachments[0].sha256
        assert (held.silent, held.updated) == (True, None)
        assert held.original_url
        assert held.original_url.endswith(entry.shortcode)


def _from_download(tx: Tx, account_id: int, text: str, at: datetime) -> None:
    found = content.twin(tx, account_id, imports.SOURCE, SourcePost("d1", at, text))
    assert found is not None
    posts.add_origin(tx, account_id, imports.SOURCE, "d1", found, "f")


def test_equal_posts_of_one_second_are_told_apart(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        account = here.bridge.account("mira")
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)

        def add(tx: Tx) -> None:
            for name in ("d1", "d2"):
                number = posts.add(tx, account.id, PostContent("post", "again", None, at), [], silent=True)
                posts.add_origin(tx, account.id, imports.SOURCE, name, number, "f")

        here.bridge.ground.store.transact_now(add)
        for _ in range(3):
            here.threads.post("again", at=at)
        here.threads.post("another", at=at)
        changes = here.connect().changes
        assert (len(changes.recognised), len(changes.created)) == (2, 2)


def test_an_old_download_does_not_bring_back_what_was_deleted(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        here.followed()
        entry = here.threads.post("regretted")
        here.note_of(entry)
        here.threads.delete(entry)
        here.heard("Delete")
        account_id = here.account().id

        def known(tx: Tx) -> int | None:
            return content.twin(tx, account_id, imports.SOURCE, SourcePost("d1", entry.created, "regretted"))

        held = here.held(entry)
        assert held is not None
        assert here.bridge.ground.store.read_now(known) == held.id
