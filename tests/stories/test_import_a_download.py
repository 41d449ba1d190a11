"""A data download becomes an account with its history: silent, backdated, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from tests.world.download_samples import (
    NOON,
    POSTS,
    PROFILE,
    THREADS,
    carousel,
    movie,
    people_file,
    picture,
    posts_file,
    profile_file,
    single,
    zip_of,
)

from threadbridge.domain.accounts import AccountState
from threadbridge.domain.source import SourceMedia, SourcePost
from threadbridge.errors import Conflict, Invalid
from threadbridge.media.store import MediaStore
from threadbridge.portability import imports
from threadbridge.portability.imports import ImportProgress, ImportSummary, import_download
from threadbridge.sources.threads_download import open_download
from threadbridge.storage import accounts, contacts, posts, schema
from threadbridge.storage.content import content_of, hashtags
from threadbridge.storage.posts import NewAttachment
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import NewKey, Vault

KEY = NewKey("public", b"private")


@dataclass
class House:
    store: Store
    media: MediaStore
    vault: Vault
    folder: Path

    def take_in(self, *paths: Path, handle: str | None = None, dry_run: bool = False, **more: Any) -> ImportSummary:
        heard: Callable[[ImportProgress], None] = more.get("on_progress", lambda progress: None)
        with open_download(paths) as download:
            return import_download(
                self.store,
                self.media,
                self.vault,
                download,
                handle=handle,
                dry_run=dry_run,
                new_key=lambda: KEY,
                on_progress=heard,
            )

    def rows(self) -> dict[str, int]:
        """How many rows every table has."""

        def count(tx: Tx) -> dict[str, int]:
            return {
                table.name: tx.execute(select(func.count()).select_from(table)).scalar_one()
                for table in schema.metadata.sorted_tables
            }

        return {name: rows for name, rows in self.store.read_now(count).items() if rows}

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def posts(self, handle: str = "ana.example") -> list[Any]:
        def read(tx: Tx) -> list[Any]:
            account = accounts.named(tx, handle)
            return posts.newest(tx, account.id, limit=1000)

        return self.store.read_now(read)


@pytest.fixture
def house(store: Store, tmp_path: Path) -> Iterator[House]:
    with MediaStore(tmp_path / "media", children=1) as media:
        yield House(store, media, Vault(bytes(32)), tmp_path / "media")


@pytest.fixture
def download(tmp_path: Path) -> Path:
    uris = [f"media/posts/1806974511857286{number}.jpg" for number in range(3)]
    members: dict[str, str | bytes] = {
        POSTS: posts_file(
            single("Guten Morgen aus dem Hafen, der Kaffee läuft schon und die Schiffe kommen herein. #Hafen #2025"),
            single("An answer", NOON + 60, reply=True),
            carousel("Three, one of them lost and one no picture", uris, NOON + 120),
            single("", NOON + 180),
            single("", NOON + 240, "media/reels/film.jpg"),
            single("only here", NOON + 300, text_app_post={"geo_gated_country_list": "DE"}),
        ),
        PROFILE: profile_file("Ana.Example"),
        f"{THREADS}/followers.json": people_file("text_post_app_text_post_app_followers", "ben", "cem"),
        f"{THREADS}/following.json": people_file("text_post_app_text_post_app_following", "ben"),
        uris[0]: picture(),
        uris[1]: b"this is no picture",
        "media/reels/film.jpg": movie(),
        "../evil": b"x",
    }
    return zip_of(tmp_path / "instagram-ana-2026-01-02-x.zip", members)


def test_everything_arrives_once(house: House, download: Path) -> None:
    heard: list[ImportProgress] = []
    summary = house.take_in(download, on_progress=heard.append)
    assert (summary.handle, summary.created, summary.dry_run) == ("ana.example", True, False)
    assert (summary.posts_new, summary.replies_new, summary.posts_known) == (3, 1, 0)
    assert (summary.media_found, summary.media_missing) == (2, 1)
    assert summary.media_refused == {"This is no picture that we serve, but text": 1}
    assert summary.skipped == {"empty (no text and no media)": 1, "only visible in some countries": 1}
    assert any("entry 4" in where for where in summary.skipped_where)
    assert summary.contacts_new == {"follower": 2, "following": 1}
    assert summary.unsafe == [("../evil", "its name climbs out of the archive")]
    assert heard[-1] == ImportProgress(6, 6, 4, 2)

    film, three, answer, morning = house.posts()
    assert morning.text.startswith("Guten Morgen")
    assert morning.language == "de"
    assert morning.published == datetime.fromtimestamp(NOON, UTC)
    assert (answer.kind, answer.language) == ("reply", None)
    assert [item.missing for item in three.attachments] == [
        None,
        "This is no picture that we serve, but text",
        imports.NOT_INCLUDED,
    ]
    assert (three.attachments[0].width, three.attachments[0].media_type) == (60, "image/jpeg")
    assert (film.attachments[0].kind, film.attachments[0].media_type) == ("video", "video/mp4")
    assert len(house.files()) == 2

    account = house.store.read_now(accounts.by_handle, "ana.example")
    assert account is not None
    assert summary.account_id == account.id
    assert (account.name, account.bio, account.state) == ("Ana Example", "Ships and coffee ☕", AccountState.ACTIVE)
    assert (account.posts_count, account.source_url) == (4, "https://www.threads.com/@Ana.Example")
    assert house.store.read_now(posts.top_tags, account.id) == [("Hafen", 1)]
    assert house.store.read_now(contacts.counts, account.id) == {"follower": 2, "following": 1}


def test_an_import_is_silent(house: House, download: Path) -> None:
    house.take_in(download)
    assert all(post.silent for post in house.posts())
    assert not house.rows().keys() & {"activities", "deliveries", "jobs"}


def test_consent_is_recorded(house: House, download: Path) -> None:
    house.take_in(download)
    rows = house.store.read_now(lambda tx: tx.execute(select(schema.consents)).all())
    assert [(row.kind, row.wording) for row in rows] == [("download", imports.CONSENT)]


def test_a_second_import_changes_nothing(house: House, download: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house.take_in(download)
    before, revision = house.rows(), house.store.read_now(accounts.named, "ana.example").revision
    monkeypatch.setattr(house.media, "ingest_stream", None)  # not one file is read again
    summary = house.take_in(download)
    assert (summary.posts_new, summary.replies_new, summary.posts_known, summary.replies_known) == (0, 0, 3, 1)
    assert (summary.created, +summary.contacts_new, summary.contacts_known["follower"]) == (False, {}, 2)
    assert house.rows() == before
    assert house.store.read_now(accounts.named, "ana.example").revision == revision


def test_a_rehearsal_says_the_same_and_writes_nothing(house: House, download: Path) -> None:
    rehearsed = house.take_in(download, dry_run=True)
    assert house.rows() == {}
    assert not house.folder.exists()
    real = house.take_in(download)
    expected = asdict(real) | {"dry_run": True, "account_id": None}
    assert asdict(rehearsed) == expected
    rows, files = house.rows(), house.files()
    again = house.take_in(download, dry_run=True)
    assert (again.posts_new, again.posts_known, again.account_id) == (0, 3, real.account_id)
    assert (house.rows(), house.files()) == (rows, files)


def test_posts_known_from_the_api_are_not_doubled(house: House, download: Path) -> None:
    at = datetime.fromtimestamp(NOON + 60, UTC)
    known = SourcePost("17900", at + timedelta(milliseconds=300), "An answer", kind="reply")

    def connect(tx: Tx) -> int:
        account = accounts.create(
            tx,
            house.vault,
            KEY,
            handle="ana.example",
            name="Ana of the API",
            bio="fresh",
            source_url=None,
            joined_at=None,
            consent_kind="token",
            consent_wording="…",
        )
        columns = content_of(known, parent_id=None, quoted_id=None, language=None)
        post_id = posts.add(tx, account.id, columns, [], silent=False)
        posts.add_origin(tx, account.id, "threads", "17900", post_id, "f")
        return post_id

    post_id = house.store.transact_now(connect)
    for dry_run in (True, False):
        summary = house.take_in(download, dry_run=dry_run)
        assert (summary.replies_new, summary.replies_known, summary.posts_new) == (0, 1, 3)
    assert [post.id for post in house.posts() if post.kind == "reply"] == [post_id]
    account = house.store.read_now(accounts.named, "ana.example")
    assert (account.name, account.bio) == ("Ana of the API", "fresh")
    assert house.take_in(download).posts_known == 3


def test_equal_posts_of_one_second_stay_two(house: House, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {POSTS: posts_file(single("twice"), single("twice")), PROFILE: profile_file()})
    assert house.take_in(path).posts_new == 2
    assert house.take_in(path).posts_known == 2


def test_a_missing_part_can_come_later(house: House, tmp_path: Path) -> None:
    texts = {POSTS: posts_file(single("with picture", uri="media/7.jpg")), PROFILE: profile_file()}
    first = zip_of(tmp_path / "1.zip", texts)
    second = zip_of(tmp_path / "2.zip", {"media/7.jpg": picture()})
    assert house.take_in(first).media_missing == 1
    rehearsed = house.take_in(first, second, dry_run=True)
    assert (rehearsed.posts_known, rehearsed.media_found) == (1, 1)
    assert house.posts()[0].attachments[0].sha256 is None
    assert house.take_in(first, second).media_found == 1
    attachment = house.posts()[0].attachments[0]
    assert (attachment.missing, attachment.width) == (None, 60)


def test_the_avatar_comes_along(house: House, tmp_path: Path) -> None:
    profile = profile_file().replace('"media_map_data": {}', '"media_map_data": {"Photo": {"uri": "media/me.jpg"}}')
    house.take_in(zip_of(tmp_path / "a.zip", {POSTS: posts_file(), PROFILE: profile, "media/me.jpg": picture("PNG")}))
    account = house.store.read_now(accounts.named, "ana.example")
    assert account.avatar_type == "image/png"
    assert account.avatar is not None
    assert house.media.path(account.avatar, "image/png").exists()


def test_another_handle_can_be_chosen(house: House, download: Path) -> None:
    assert house.take_in(download, handle="@harbour").handle == "harbour"
    assert house.take_in(download).created
    assert len(house.store.read_now(accounts.listed)) == 2


@pytest.mark.parametrize("handle", ["Ana", "ana example", "ana.", "", "ана", "a" * 31, "admin"])
def test_a_handle_that_servers_refuse_is_refused_before_anything(house: House, download: Path, handle: str) -> None:
    with pytest.raises(Invalid, match="--handle"):
        house.take_in(download, handle=handle)
    assert house.rows() == {}
    assert not house.folder.exists()


def test_a_deleted_account_is_not_brought_back(house: House, download: Path) -> None:
    account = house.store.read_now(accounts.named, house.take_in(download).handle)
    house.store.transact_now(accounts.set_state, account.id, AccountState.GONE, "owner")
    with pytest.raises(Conflict, match="deleted for good"):
        house.take_in(download)


def test_batches_touch_the_account(house: House, tmp_path: Path) -> None:
    told: list[set[int]] = []
    house.store.on_touched(lambda touched: told.append(set(touched)))
    entries = [single(f"post {number}", NOON + number) for number in range(imports.BATCH * 2 + 1)]
    house.take_in(zip_of(tmp_path / "a.zip", {POSTS: posts_file(*entries), PROFILE: profile_file()}))
    assert len(told) >= 4


# ── the columns of a post ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "topic", "expected"),
    [
        ("#One and #two, #ONE again", None, ("One", "two")),
        ("#2025 #1of2 C#sharp a#b https://a.example/#top &#39; page/#x", None, ("1of2",)),
        ("(#京都) #été! ＃東京", "Street Photography", ("京都", "été", "東京", "Street Photography")),
        ("#reise", "Reise", ("reise",)),
        ("nothing", "2025", ()),
    ],
)
def test_hashtags(text: str, topic: str | None, expected: tuple[str, ...]) -> None:
    assert hashtags(text, topic) == expected


def test_spoilers_make_a_post_sensitive() -> None:
    at = datetime.fromtimestamp(NOON, UTC)
    media = (SourceMedia("image", "k"),)
    plain = SourcePost("1", at, "text", media=media, language="de")
    hidden = SourcePost("1", at, "text", spoilers=((0, 2),))
    assert not content_of(plain, parent_id=None, quoted_id=None, language="en").sensitive
    assert content_of(plain, parent_id=None, quoted_id=None, language="en").language == "de"
    assert content_of(hidden, parent_id=None, quoted_id=None, language="en").sensitive
    assert content_of(
        SourcePost("1", at, "", spoiler_media=True), parent_id=None, quoted_id=None, language=None
    ).sensitive


def test_contacts_are_listed_in_pages(house: House, download: Path) -> None:
    account_id = house.take_in(download).account_id
    assert account_id is not None
    many = [contacts.Contact("follower", f"person{number:04}", "", None, None) for number in range(1001)]
    assert house.store.transact_now(contacts.add, account_id, [*many, *many]) == 1001
    assert house.store.transact_now(contacts.add, account_id, many) == 0
    names = house.store.read_now(lambda tx: [one.username for one in contacts.listed(tx, account_id, "follower")])
    assert names == ["ben", "cem", *(one.username for one in many)]


def test_an_attachment_keeps_its_own_reason(house: House, download: Path) -> None:
    account_id = house.take_in(download).account_id
    assert account_id is not None

    def write(tx: Tx) -> None:
        at = datetime.fromtimestamp(NOON, UTC)
        columns = content_of(SourcePost("9", at, "x"), parent_id=None, quoted_id=None, language=None)
        posts.add(tx, account_id, columns, [NewAttachment("image", "", "gone", missing="fetch failed")], silent=True)
        tx.execute(insert(schema.facts).values(name="x", value="y"))

    house.store.transact_now(write)
    assert house.take_in(download).media_found == 0
