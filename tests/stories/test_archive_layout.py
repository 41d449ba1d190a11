"""An owner's archive holds everything that is theirs, in Mastodon's layout, and nothing secret."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stories.archived_account import (
    BASE,
    IDS,
    TOKEN,
    VAULT_KEY,
    Place,
    archive_bytes,
    document,
    fill,
    opened,
    place,
    quiet,
)

from threadbridge.portability.archive import ArchiveSummary, write_archive
from threadbridge.storage import accounts


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("archive")) as found:
        fill(found)
        yield found


@pytest.fixture(scope="module")
def written(here: Place) -> tuple[bytes, ArchiveSummary]:
    return archive_bytes(here)


@pytest.fixture(scope="module")
def archive(written: tuple[bytes, ArchiveSummary]) -> bytes:
    return written[0]


def test_the_members_are_those_of_mastodon_and_ours(archive: bytes) -> None:
    with opened(archive) as zip_:
        names = zip_.namelist()
    assert {name for name in names if not name.startswith("media_attachments/")} == {
        "actor.json", "avatar.jpg", "outbox.json", "likes.json", "bookmarks.json",
        "csv/followers.csv", "received/replies.json", "received/likes.json", "received/boosts.json",
        "received/mentions.json", "received/quotes.json", "received/votes.json", "received/approvals.json",
        "csv/blocked_accounts.csv", "csv/blocked_domains.csv", "blocks.json", "decisions.json", "reports.json",
        "profile.json", "posts.json", "followers.json", "follow_requests.json",
        "source/followers.csv", "source/following.csv", "deliveries.json", "holders.json", "receipts.json",
        "consents.json", "states.json",
        "manifest.json", "manifest-sha256.txt",
    }  # fmt: skip
    media = [name for name in names if name.startswith("media_attachments/files/")]
    assert len(media) == 21
    assert all("/original/" in name for name in media)


def test_the_outbox_is_oldest_first_with_local_files(archive: bytes) -> None:
    outbox = document(archive, "outbox.json")
    assert (outbox["id"], outbox["type"], outbox["totalItems"]) == ("outbox.json", "OrderedCollection", 9)
    assert "https://www.w3.org/ns/activitystreams" in outbox["@context"]
    items = outbox["orderedItems"]
    assert [item["published"] for item in items] == sorted(item["published"] for item in items)
    for item in items:
        assert item["type"] == "Create"
        assert "@context" not in item
        assert "@context" not in item["object"]
        for where in (item, item["object"]):
            assert isinstance(where["to"], list)
            assert isinstance(where["cc"], list)
    with opened(archive) as zip_:
        for item in items:
            for attachment in item["object"]["attachment"]:
                assert attachment["url"].startswith("/media_attachments/files/")
                content = zip_.read(attachment["url"][1:])
                assert hashlib.sha256(content).hexdigest() in attachment["url"]
    first = items[0]["object"]["attachment"]
    assert [(a["type"], a["mediaType"], a["name"]) for a in first] == [
        ("Document", "image/jpeg", "Ein Beet"),
        ("Document", "image/png", None),
    ]
    assert first[0]["blurhash"]
    assert items[1]["object"]["inReplyTo"] == items[0]["object"]["id"]
    assert items[5]["object"]["type"] == "Question"
    # The wire carries sixteen attachments at most; an archive carries all.
    assert len(items[3]["object"]["attachment"]) == 18


def test_the_profile_points_into_the_archive(archive: bytes) -> None:
    actor = document(archive, "actor.json")
    assert actor["id"] == IDS.actor(1)
    assert (actor["outbox"], actor["likes"], actor["bookmarks"]) == ("outbox.json", "likes.json", "bookmarks.json")
    assert actor["icon"] == {"type": "Image", "mediaType": "image/jpeg", "url": "avatar.jpg"}
    for name in ("likes", "bookmarks"):
        collection = document(archive, f"{name}.json")
        assert collection["orderedItems"] == []
        assert collection["id"] == f"{name}.json"
        assert "totalItems" not in collection


def test_followers_are_a_list_that_mastodon_reads(archive: bytes) -> None:
    with opened(archive) as zip_:
        assert zip_.read("csv/followers.csv") == (
            b"Account address\np1@social.example\np2@social.example\np3@social.example\n"
        )
        assert zip_.read("source/followers.csv").splitlines()[2].decode() == (
            'carla,"Carla, ""die""",https://www.threads.com/@carla,2025-03-01T12:00:00Z'
        )


def test_what_came_back_keeps_its_ids(archive: bytes) -> None:
    replies = document(archive, "received/replies.json")
    assert replies["totalItems"] == 2
    reply = replies["orderedItems"][0]
    assert reply["object"]["id"] == "https://social.example/notes/1"
    assert reply["object"]["x:odd"] == 1
    assert reply["actor"] == "https://social.example/users/p1"
    assert reply["published"] == "2025-03-01T13:00:00Z"
    like = document(archive, "received/likes.json")["orderedItems"][0]
    assert (like["type"], like["id"]) == ("Like", "https://social.example/likes/1")
    boost = document(archive, "received/boosts.json")["orderedItems"][0]
    assert (boost["type"], boost["actor"]) == ("Announce", "https://social.example/users/p2")
    sent = document(archive, "deliveries.json")["deliveries"]
    assert [(line["kind"], line["host"], line["state"]) for line in sent] == [("Create", "social.example", "waiting")]
    assert document(archive, "consents.json")["consents"][0]["wording"] == "imported by the operator"
    assert document(archive, "states.json")["states"][0]["state"] == "active"


def test_the_manifest_names_everything(archive: bytes, here: Place, tmp_path: Path) -> None:
    manifest = document(archive, "manifest.json")
    account = here.store.read_now(accounts.named, "anna")
    assert (manifest["format"], manifest["version"]) == ("threadbridge-archive", 1)
    assert manifest["account"]["handle"] == "anna@bridge.example"
    assert manifest["base_url"] == BASE
    assert manifest["as_of"] == account.changed_at.isoformat().replace("+00:00", "Z")
    assert manifest["counts"]["posts"] == 9
    assert manifest["counts"]["media"] == 21
    assert manifest["counts"]["received_replies"] == 2
    assert [(o["position"], o["reason"]) for o in manifest["omissions"]] == [
        (0, "the download does not hold the file")
    ]
    with opened(archive) as zip_:
        listed = {line["path"] for line in manifest["members"]}
        assert listed == set(zip_.namelist()) - {"manifest.json", "manifest-sha256.txt"}
        for line in manifest["members"]:
            content = zip_.read(line["path"])
            assert (line["size"], line["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
            assert "/" in line["media_type"]
        zip_.extractall(tmp_path)
    lines = (tmp_path / "manifest-sha256.txt").read_text().splitlines()
    assert lines == sorted(lines, key=lambda line: line[66:])
    assert len(lines) == len(listed) + 1
    if shutil.which("sha256sum"):
        done = subprocess.run(
            ["sha256sum", "--strict", "-c", "manifest-sha256.txt"], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_same_state_gives_the_same_bytes(
    here: Place, written: tuple[bytes, ArchiveSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, summary = written
    assert hashlib.sha256(archive).hexdigest() == summary.sha256
    assert len(archive) == summary.size
    monkeypatch.setattr("time.time", lambda: 1.0)

    class Pipe:
        """Nothing but write, as a socket has."""

        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def write(self, data: bytes, /) -> int:
            self.parts.append(bytes(data))
            return len(data)

    pipe = Pipe()
    with here.store.snapshot() as tx:
        write_archive(tx, IDS, here.media, accounts.named(tx, "anna"), pipe, quiet)
    assert b"".join(pipe.parts) == archive


def test_nothing_secret_and_nothing_deleted_is_inside(archive: bytes, here: Place) -> None:
    with opened(archive) as zip_:
        everything = b"\n".join(zip_.read(name) for name in zip_.namelist()) + archive
    private = here.key.private_pem
    sealed = here.store.read_now(
        lambda tx: tx.connection.exec_driver_sql("SELECT sealed_private FROM account_keys").scalar()
    )
    token = here.store.read_now(
        lambda tx: tx.connection.exec_driver_sql("SELECT sealed_token FROM connections").scalar()
    )
    link = here.store.read_now(
        lambda tx: tx.connection.exec_driver_sql("SELECT token_hash FROM sign_in_links").scalar()
    )
    assert isinstance(sealed, bytes)
    assert isinstance(token, bytes)
    for secret in (
        b"PRIVATE KEY", private.splitlines()[3], TOKEN.encode(), VAULT_KEY, sealed, token, str(link).encode(),
        "gelöscht und geheim".encode(), b"\xff\xd8\xff deleted",
    ):  # fmt: skip
        assert secret not in everything
    assert b"BEGIN PUBLIC KEY" in everything  # the search does find keys


def test_strange_tools_can_read_the_zip(archive: bytes, tmp_path: Path) -> None:
    with opened(archive) as zip_:
        assert zip_.testzip() is None
        for info in zip_.infolist():
            stored = info.filename.startswith(("media_attachments/", "avatar"))
            assert info.compress_type == (zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
            assert info.flag_bits == 0x0800  # UTF-8 names, no data descriptors
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
    if shutil.which("unzip"):
        (tmp_path / "a.zip").write_bytes(archive)
        done = subprocess.run(["unzip", "-tqq", tmp_path / "a.zip"], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_files_that_are_lost_or_damaged_are_left_out_and_named(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        fill(here)
        whole = document(archive_bytes(here)[0], "outbox.json")["orderedItems"][0]["object"]["attachment"]
        lost, damaged = (IDS.base + item["url"] for item in whole)
        for url, content in ((lost, None), (damaged, b"rotten")):
            name = url.rsplit("/", 1)[1]
            path = here.media.folder / name[:2] / name
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
        archive, summary = archive_bytes(here)
        assert document(archive, "outbox.json")["orderedItems"][0]["object"]["attachment"] == []
        reasons = [line["reason"] for line in document(archive, "manifest.json")["omissions"]]
        assert sum("missing in the media folder" in reason for reason in reasons) == 2  # it is in two posts
        assert sum("is damaged" in reason for reason in reasons) == 1
        assert summary.omissions == len(reasons) == 4


def test_an_empty_account_has_an_archive_too(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        archive, summary = archive_bytes(here)
        assert document(archive, "outbox.json")["orderedItems"] == []
        assert "icon" not in document(archive, "actor.json")
        with opened(io.BytesIO(archive).getvalue()) as zip_:
            assert not any(name.startswith("source/") for name in zip_.namelist())
        assert summary.counts["posts"] == 0
