"""Programs that read Mastodon's archives read ours: their rules, written down from their sources."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.stories.archived_account import Place, archive_bytes, fill, place

PUBLIC = "https://www.w3.org/ns/activitystreams#Public"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("readers")) as found:
        fill(found)
        yield found


@pytest.fixture(scope="module")
def archive(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "archive.zip"
    path.write_bytes(archive_bytes(here)[0])
    return path


@pytest.fixture
def folder(archive: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(archive) as zip_:
        zip_.extractall(tmp_path)
    return tmp_path


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_marl_shows_every_post_and_picture(archive: Path) -> None:
    # dev/public/js/MARL/loadData.js, utils.js: actor and outbox in the root, pictures by what follows the prefix
    with zipfile.ZipFile(archive) as zip_:
        files = {name: zip_.read(name) for name in zip_.namelist()}
    actor = json.loads(files["actor.json"])
    assert actor["icon"]["type"] == "Image"
    assert files[actor["icon"]["url"]].startswith(b"\xff\xd8")
    shown = 0
    for item in json.loads(files["outbox.json"])["orderedItems"]:
        datetime.fromisoformat(item["published"])
        assert item["id"].split("/")[-2].isdigit()  # MARL makes its own number of it
        for attachment in item["object"]["attachment"]:
            at = attachment["url"].index("media_attachments/")
            assert at > 0
            assert attachment["mediaType"].split("/")[0] in ("image", "video", "audio")
            assert files[attachment["url"][at:]]
            shown += 1
        if item["object"]["type"] == "Question":
            assert all(option["replies"]["totalItems"] >= 0 for option in item["object"]["oneOf"])
        for tag in item["object"]["tag"]:
            assert tag["name"]
            assert tag["href"]
    assert isinstance(json.loads(files["likes.json"])["orderedItems"], list)
    assert shown == 22


def test_wordpress_imports_every_post_and_picture(folder: Path) -> None:
    # includes/wp-admin/import/class-mastodon.php: folder + url, so the url must begin with a slash
    imported = 0
    for post in _load(folder / "outbox.json")["orderedItems"]:
        if post["type"] == "Announce":
            continue
        assert PUBLIC in post["to"] + post["cc"]
        datetime.fromisoformat(post["published"])
        assert isinstance(post["object"]["content"], str)
        assert all(tag["type"] and tag["name"] for tag in post["object"]["tag"])
        for attachment in post["object"]["attachment"]:
            assert attachment["mediaType"]
            assert Path(str(folder) + attachment["url"]).is_file()
        imported += 1
    assert imported == 9


def test_slurp_imports_own_posts_and_threads(folder: Path) -> None:
    # internal/archive: typed structs, so the kinds of values matter
    actor = _load(folder / "actor.json")
    assert all(isinstance(actor[key], str) for key in ("id", "followers", "outbox", "preferredUsername", "url"))
    notes = {}
    for activity in _load(folder / "outbox.json")["orderedItems"]:
        assert all(isinstance(name, str) for name in activity["to"] + activity["cc"])
        said = activity["object"]
        if activity["type"] != "Create" or said["type"] != "Note":
            continue
        assert all(isinstance(said[key], str) for key in ("id", "url", "conversation", "content"))
        assert all(said[key] is None or isinstance(said[key], str) for key in ("summary", "inReplyTo"))
        assert isinstance(said["sensitive"], bool)
        assert datetime.fromisoformat(said["published"]).tzinfo
        assert PUBLIC in said["to"]
        assert [code for code, text in said["contentMap"].items() if text == said["content"]] in (["de"], ["en"])
        notes[said["id"]] = said
    kept = [
        said
        for said in notes.values()
        if (said["inReplyTo"] is None or said["inReplyTo"] in notes) and not re.search(r"@\w+", said["content"])
    ]
    files = [folder.joinpath(a["url"].lstrip("/")) for said in kept for a in said["attachment"]]
    assert len(kept) >= 6
    assert len(files) == 22
    assert all(path.is_file() for path in files)


def test_mitra_imports_top_level_posts_with_pictures(folder: Path) -> None:
    # mitra_cli, import-posts: run inside the archive's folder
    posts = 0
    for activity in _load(folder / "outbox.json")["orderedItems"]:
        said = activity["object"]
        if activity["type"] != "Create" or said["inReplyTo"] is not None or PUBLIC not in said["to"] + said["cc"]:
            continue
        assert isinstance(said["content"], str)
        assert datetime.fromisoformat(said["published"]).tzinfo
        for attachment in said["attachment"]:
            assert attachment["url"].startswith("/media_attachments")
            assert attachment["type"] in ("Document", "Image", "Video", "Audio")
            assert (folder / attachment["url"].lstrip("/")).is_file()
        posts += 1
    assert posts == 8


def test_mastodon_recognises_the_header_of_the_list(folder: Path) -> None:
    # app/models/form/import.rb: the first header decides; a byte order mark hides it
    raw = (folder / "csv" / "followers.csv").read_bytes()
    assert raw.split(b"\n")[0] == b"Account address"
    assert b"\r" not in raw
    assert all(re.fullmatch(rb"[\w.-]+@[\w.:-]+", line) for line in raw.splitlines()[1:])
