"""Shelves: the same files, ranges and refusals whether they lie in a folder or in an S3-compatible store over a real
socket."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rig import Bridge, eventually, free_socket, running_bridge
from tests.world.download_samples import picture

from threadbridge import doctor
from threadbridge.errors import BadConfiguration, Unavailable
from threadbridge.media.shelves import BucketShelf, FolderShelf, Shelf, open_shelf
from threadbridge.storage import accounts, exports, posts

BUCKET = "media-here"


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """moto's server, on loopback, and the variables with which it is found."""
    before = dict(os.environ)
    # boto3 looks for credentials on the network when there are none.
    os.environ.update(
        AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1"
    )  # fmt: skip
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()
    server.stop()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=["folder", "bucket"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    if request.param == "folder":
        return FolderShelf(tmp_path / "kept")
    request.getfixturevalue("s3")
    return BucketShelf(f"s3://{BUCKET}/{tmp_path.name}")


def put(shelf: Shelf, folder: Path, name: str, content: bytes) -> None:
    file = folder / "new"
    file.write_bytes(content)
    shelf.put(name, file, media_type="image/png")


def test_what_is_put_is_given_back_whole_or_in_part_until_it_is_removed(shelf: Shelf, tmp_path: Path) -> None:
    content = os.urandom(700_000)
    assert shelf.about("ab/one.png") is None
    assert shelf.beginning_with("ab/o") == []
    put(shelf, tmp_path, "ab/one.png", content)
    held = shelf.about("ab/one.png")
    assert held is not None
    assert held.size == len(content)
    assert abs(held.put_at - time.time()) < 60
    assert b"".join(shelf.chunks("ab/one.png")) == content

    async def part(start: int, stop: int) -> bytes:
        return b"".join([chunk async for chunk in shelf.stream("ab/one.png", start, stop)])

    for start, stop in ((0, len(content)), (1, 2), (300_000, 600_001), (len(content) - 1, len(content)), (5, 5)):
        assert asyncio.run(part(start, stop)) == content[start:stop]
    put(shelf, tmp_path, "ab/one.png", content)  # again: nothing changes
    assert b"".join(shelf.chunks("ab/one.png")) == content
    shelf.remove("ab/one.png")
    shelf.remove("ab/one.png")
    assert shelf.about("ab/one.png") is None
    with pytest.raises(FileNotFoundError):
        list(shelf.chunks("ab/one.png"))


def test_names_are_found_by_how_they_begin(shelf: Shelf, tmp_path: Path) -> None:
    for name in ("7-aa.zip", "7-bb.zip", "77-cc.zip"):
        put(shelf, tmp_path, name, b"zip")
    assert shelf.beginning_with("7-") == ["7-aa.zip", "7-bb.zip"]


def test_a_store_that_cannot_be_reached_is_said_within_seconds(s3: Any, tmp_path: Path) -> None:
    nobody = free_socket()
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    nobody.close()
    try:
        shelf = BucketShelf(f"s3://{BUCKET}/none")
    finally:
        os.environ["AWS_ENDPOINT_URL"] = endpoint
    started = time.monotonic()
    for doing in (
        lambda: shelf.about("x"),
        lambda: put(shelf, tmp_path, "x", b"x"),
        lambda: list(shelf.chunks("x")),
        lambda: shelf.remove("x"),
    ):
        with pytest.raises(Unavailable):
            doing()
    assert time.monotonic() - started < 20
    refused = BucketShelf("s3://no-such-bucket-anywhere/none")
    with pytest.raises(Unavailable):
        put(refused, tmp_path, "x", b"x")


def test_an_address_that_names_no_store_is_refused(tmp_path: Path) -> None:
    assert isinstance(open_shelf(None, tmp_path, "media"), FolderShelf)
    elsewhere = open_shelf(f"file://{tmp_path}/a%20disk", Path("/unused"), "media")
    assert elsewhere.described() == f"{tmp_path}/a disk/media"
    with pytest.raises(BadConfiguration):
        BucketShelf("nonsense://x")


# ── the product with its files in a bucket ───────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def bridge(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("bucket") / "data"
    with running_bridge(folder, media_url=f"s3://{BUCKET}/here") as running:
        yield running


def test_media_of_a_bucket_are_served_like_those_of_a_folder(bridge: Bridge, s3: Any, tmp_path: Path) -> None:
    from tests.rig import running_bridge

    with running_bridge(tmp_path / "data", worker=False) as other:
        sent = tmp_path / "sent.png"
        sent.write_bytes(picture("PNG"))
        rows = [one.ground.media.ingest(sent, kind_hint="image") for one in (bridge, other)]
        assert rows[0] == rows[1]
        row = rows[0]
        assert list((bridge.ground.config.data_dir / "media").rglob("*.png")) == []
        assert s3.head_object(Bucket=BUCKET, Key=f"here/media/{row.sha256[:2]}/{row.sha256}.png")["ContentLength"]
        for name in (f"{row.sha256}.png", f"{'0' * 64}.png"):
            for headers in (
                {}, {"range": "bytes=0-9"}, {"range": "bytes=5-"}, {"range": "bytes=-7"}, {"range": "bytes=9-3"},
                {"range": "bytes=999999-"}, {"range": "bytes=0-1", "if-range": '"other"'},
                {"range": "bytes=0-1", "if-range": f'"{row.sha256}"'}, {"if-none-match": f'"{row.sha256}"'},
            ):  # fmt: skip
                ours, theirs = (one.get(f"/media/{name}", "*/*", **headers) for one in (bridge, other))
                if headers.get("range") == "bytes=9-3":
                    # Not a range at all (RFC 9110, 14.1.1): ignored here, 400 by Starlette's FileResponse.
                    assert ours.status_code == (200 if "0" * 64 not in name else 404)
                    continue
                assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content), headers
                if ours.is_success or ours.status_code == 304:
                    for header in (
                        "etag", "cache-control", "content-type", "content-range", "content-length", "accept-ranges",
                        "content-security-policy", "x-content-type-options",
                    ):  # fmt: skip
                        assert ours.headers.get(header) == theirs.headers.get(header), (header, headers)
    # What nothing shows any more is removed there, too, but not when it was taken in a moment ago.
    assert bridge.ground.media.remove(row.sha256, row.media_type, unused_for=600) is False
    assert bridge.ground.media.remove(row.sha256, row.media_type, unused_for=-1) is True
    assert bridge.get(f"/media/{row.sha256}.png", "*/*").status_code == 404


def test_an_archive_is_built_from_the_bucket_and_lies_there(bridge: Bridge, s3: Any, tmp_path: Path) -> None:
    account = bridge.account("archived")
    sent = tmp_path / "sent.png"
    sent.write_bytes(picture("PNG"))
    row = bridge.ground.media.ingest(sent, kind_hint="image")

    def dress(tx: Any) -> int:
        posts.add_media(tx, row)
        accounts.update_profile(tx, account.id, avatar=row.sha256)
        from threadbridge.portability import exports as archives

        return archives.request(tx, account.id)

    number = bridge.ground.store.transact_now(dress)
    export = eventually(
        lambda: (e := bridge.ground.store.read_now(exports.get, number)) and e.state in ("ready", "failed") and e, 20
    )
    assert (export.state, export.reason) == ("ready", None)
    kept = s3.get_object(Bucket=BUCKET, Key=f"here/exports/{export.file}")["Body"].read()
    assert hashlib.sha256(kept).hexdigest() == export.sha256
    assert hashlib.sha256(zipfile.ZipFile(io.BytesIO(kept)).read("avatar.png")).hexdigest() == row.sha256
    assert list((bridge.ground.config.data_dir / "exports").iterdir()) == []
    from threadbridge.web.downloads import Downloads

    links = Downloads(bridge.ground.store, bridge.ground.vault, bridge.ground.ids, bridge.ground.archives)
    url, _ = links.link(account, export, bridge.ground.store.clock())
    answer = bridge.get(url, "*/*")
    assert (answer.status_code, answer.content) == (200, kept)
    assert answer.headers["content-disposition"].startswith("attachment")
    part = bridge.get(url, "*/*", range=f"bytes={len(kept) - 100}-")
    assert (part.status_code, part.content) == (206, kept[-100:])


def test_the_doctor_says_whether_the_store_takes_files(bridge: Bridge, s3: Any, tmp_path: Path) -> None:
    assert doctor._shelf(bridge.ground.media.shelf).level == "ok"
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="here/media/doctor").get("KeyCount") == 0
    found = doctor._shelf(BucketShelf("s3://no-such-bucket-anywhere/none"))
    assert found.level == "error"
    assert "no-such-bucket-anywhere" in found.words
