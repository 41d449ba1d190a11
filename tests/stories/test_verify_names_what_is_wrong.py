"""`threadbridge verify` finds every kind of damage to an archive, names the place, and never stumbles itself."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.stories.archived_account import (
    Place,
    add_post,
    archive_bytes,
    document,
    fill,
    opened,
    picture,
    place,
    put_file,
    relisted,
    repacked,
)

from threadbridge.errors import Invalid
from threadbridge.portability.verify import VerifyReport, verify
from threadbridge.portability.zip_reader import ZipReader

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    with place(tmp_path_factory.mktemp("verify")) as here:
        fill(here)
        yield archive_bytes(here)[0]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    with place(tmp_path_factory.mktemp("tiny")) as here:
        _one_picture(here)
        yield archive_bytes(here)[0]


def _one_picture(here: Place) -> None:
    add_post(here, "Hallo", picture(put_file(here, b"\xff\xd8\xff a picture")))


@pytest.fixture
def check(tmp_path: Path) -> Callable[[bytes], VerifyReport]:
    def checked(content: bytes) -> VerifyReport:
        path = tmp_path / "archive.zip"
        path.write_bytes(content)
        return verify(path)

    return checked


Check = Callable[[bytes], VerifyReport]


def _media(archive: bytes) -> str:
    with opened(archive) as zip_:
        return next(name for name in zip_.namelist() if name.startswith("media_attachments/"))


def test_a_whole_archive_is_whole(archive: bytes, check: Check) -> None:
    report = check(archive)
    assert report.problems == ()
    assert report.ok
    assert report.sealed
    assert report.handle == "anna@bridge.example"
    assert report.as_of == document(archive, "manifest.json")["as_of"]
    said = document(archive, "manifest.json")["counts"]
    assert report.counts == {name: said[name] for name in report.counts}
    assert report.counts["posts"] == 9
    assert report.counts["media"] == 21
    with opened(archive) as zip_:
        assert report.members == len(zip_.namelist())


def test_packed_again_by_another_program_it_is_still_whole(archive: bytes, check: Check) -> None:
    report = check(repacked(archive, lambda members: None))
    assert report.ok, report.problems
    assert not report.sealed


def test_any_flipped_byte_is_found(tiny: bytes, check: Check) -> None:
    """Every byte of the headers and of the end, and a sample of the rest. Whose byte it was is said, unless it is
    part of the container itself."""
    with opened(tiny) as zip_:
        infos = zip_.infolist()
        contents_at = zip_.start_dir
    owners: dict[int, str] = {}
    data: list[int] = []
    for info in infos:
        start = info.header_offset + 30 + len(info.filename)
        owners |= dict.fromkeys(range(info.header_offset, start + info.compress_size), info.filename)
        data += range(start, start + info.compress_size)
        assert start + info.compress_size in (contents_at, *(other.header_offset for other in infos))
    chance = random.Random(20260501)
    others = sorted(set(range(len(tiny))) - set(data))
    last = [info.header_offset + 30 + len(info.filename) + info.compress_size - 1 for info in infos]
    for position in {*others[::3], *others[-120:], *last, *chance.sample(data, 250)}:
        for mask in (0xFF,) if position not in last else (0x01, 0x40, 0x80, 0xFF):
            damaged = bytearray(tiny)
            damaged[position] ^= mask
            report = check(bytes(damaged))
            assert not report.ok, f"byte {position} ^ {mask:#x} ({owners.get(position)}) went unnoticed"
            if position in owners and mask == 0xFF:
                assert owners[position] in {problem.where for problem in report.problems}, (
                    f"byte {position} of {owners[position]}: {report.problems}"
                )


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_found(archive: bytes, check: Check, share: float) -> None:
    report = check(archive[: int(len(archive) * share)])
    assert not report.ok
    if share > 0.01:
        assert "cut off" in report.problems[0].what


def test_something_added_at_the_end_or_the_beginning_is_found(archive: bytes, check: Check) -> None:
    assert not check(archive + b"x").ok
    assert not check(b"x" + archive).ok


def test_what_is_no_zip_is_said(check: Check, tmp_path: Path) -> None:
    assert "no ZIP" in check(b"hello" * 100).problems[0].what
    assert "no ZIP" in check(b"").problems[0].what
    assert not verify(tmp_path / "nothing.zip").ok
    assert not verify(tmp_path).ok


def test_another_zip_is_not_an_archive(check: Check) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zip_:
        zip_.writestr("outbox.json", '{"orderedItems": []}')
    report = check(out.getvalue())
    assert any("no manifest" in problem.what for problem in report.problems)


def test_damage_inside_a_member_names_it(archive: bytes, check: Check) -> None:
    with opened(archive) as zip_:
        info = zip_.getinfo(_media(archive))
    damaged = bytearray(archive)
    damaged[info.header_offset + 30 + len(info.filename) + 2] ^= 1
    report = check(bytes(damaged))
    assert [problem.where for problem in report.problems] == [info.filename]
    assert "damaged" in report.problems[0].what


def _without(name: str) -> Callable[[Members], object]:
    return lambda members: members.pop(name)


def _replaced(name: str, old: bytes, new: bytes) -> Callable[[Members], object]:
    def change(members: Members) -> None:
        assert old in members[name]
        members[name] = members[name].replace(old, new)

    return change


def _added(name: str, content: bytes) -> Callable[[Members], object]:
    return lambda members: members.update({name: content})


def _forged(change: Callable[[Members], object]) -> Callable[[Members], object]:
    """The change, with manifests that agree with it."""

    def both(members: Members) -> None:
        change(members)
        relisted(members)

    return both


def _first_reply_lost(members: Members) -> None:
    replies = json.loads(members["received/replies.json"])
    del replies["orderedItems"][0]
    members["received/replies.json"] = json.dumps(replies).encode()


def _two_pictures_swapped(members: Members) -> None:
    one, two = [name for name in members if name.endswith(".jpg")][:2]
    members[one], members[two] = members[two], members[one]


def _a_file_lost(members: Members) -> None:
    members.pop(next(name for name in members if name.startswith("media_attachments/")))


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        (_without("actor.json"), "actor.json", "not in the archive"),
        (_without("received/likes.json"), "received/likes.json", "not in the archive"),
        (_without("manifest.json"), "manifest.json", "no manifest"),
        (_without("manifest-sha256.txt"), "manifest-sha256.txt", "missing"),
        (_a_file_lost, "outbox.json", "not in the archive"),
        (_added("extra.txt", b"x"), "extra.txt", "not in the manifest"),
        (_added("../evil.sh", b"x"), "../evil.sh", "not safe"),
        (_added("/etc/evil", b"x"), "/etc/evil", "not safe"),
        (_added("a\\..\\evil", b"x"), "a\\..\\evil", "not safe"),
        (_replaced("csv/followers.csv", b"p1@", b"q1@"), "csv/followers.csv", "bytes were changed"),
        (_replaced("outbox.json", b"Guten Morgen", b"Guten Abend!"), "outbox.json", "bytes were changed"),
        (_two_pictures_swapped, "media_attachments/", "bytes were changed"),
        (_replaced("manifest.json", b'"posts":9', b'"posts":8'), "manifest.json", "posts: 8, and there are 9"),
        (_replaced("manifest.json", b'"version":1', b'"version":2'), "manifest.json", "version 2"),
        (
            _replaced("manifest.json", b'"format":"threadbridge-', b'"format":"someone-'),
            "manifest.json",
            "not the manifest",
        ),
        (_replaced("manifest.json", b'{"format"', b'{{"format"'), "manifest.json", "not valid JSON"),
        (
            _replaced("manifest-sha256.txt", b"  outbox.json", b" outbox.json"),
            "manifest-sha256.txt",
            "not a checksum",
        ),
        (
            _forged(_replaced("outbox.json", b'"orderedItems":[', b'"orderedItems":[,')),
            "outbox.json",
            "not valid JSON",
        ),
        (_forged(_replaced("deliveries.json", b"]}", b"]")), "deliveries.json", "not valid JSON"),
        (_forged(_replaced("states.json", b'"at"', b'"\xff"')), "states.json", "not valid JSON"),
        (_forged(_first_reply_lost), "received/replies.json", "says that it has 2 items and has 1"),
        (_forged(_first_reply_lost), "manifest.json", "received_replies: 2, and there are 1"),
        (_forged(_replaced("outbox.json", b"/original/", b"/nowhere/")), "outbox.json", "names the file"),
        (_forged(_replaced("outbox.json", b'"url":"/media_', b'"url":"media_')), "outbox.json", "names the file"),
        (_forged(_without("avatar.jpg")), "actor.json", "avatar.jpg"),
        (
            _forged(_replaced("actor.json", b'/ap/users/1","type"', b'/ap/users/2","type"')),
            "actor.json",
            "the manifest about",
        ),
        (_forged(_added("csv/followers.csv", b"\xef\xbb\xbfAccount address\n")), "csv/followers.csv", "first line"),
        (_forged(_added("csv/followers.csv", b"Account address\nx@y.example\n")), "manifest.json", "followers: 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_archive_is_told_apart(
    archive: bytes, check: Check, change: Callable[[Members], object], where: str, words: str
) -> None:
    report = check(repacked(archive, change))
    assert not report.ok
    assert any(where in p.where and words in p.what for p in report.problems), report.problems


def test_expected_and_actual_hashes_are_said(archive: bytes, check: Check) -> None:
    report = check(repacked(archive, _replaced("csv/followers.csv", b"p1@", b"q1@")))
    (problem,) = report.problems
    listed = {line["path"]: line["sha256"] for line in document(archive, "manifest.json")["members"]}
    assert listed["csv/followers.csv"] in problem.what


def test_double_names_are_found(archive: bytes, check: Check) -> None:
    out = io.BytesIO(archive)
    with zipfile.ZipFile(out, "a") as zip_, pytest.warns(UserWarning, match="Duplicate"):
        zip_.writestr("outbox.json", "{}")
    report = check(out.getvalue())
    assert any(p.where == "outbox.json" and "several members" in p.what for p in report.problems)


def test_a_link_is_found(archive: bytes, check: Check) -> None:
    out = io.BytesIO(archive)
    with zipfile.ZipFile(out, "a") as zip_:
        link = zipfile.ZipInfo("shortcut")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        zip_.writestr(link, "/etc/passwd")
    assert any(p.where == "shortcut" and "link" in p.what for p in check(out.getvalue()).problems)


def _zip_of(name: bytes, packed: bytes, size: int, crc: int) -> bytes:
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 33, crc, len(packed), size, len(name), 0) + name
    central = struct.pack(
        "<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, crc, len(packed), size, len(name), 0, 0, 0, 0, 0, 0
    )
    start = len(local) + len(packed)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(central) + len(name), start, 0)
    return local + packed + central + name + end


def test_a_bomb_is_not_unpacked(check: Check) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    said = check(_zip_of(b"manifest.json", packed, 1 << 31, 0))
    assert any("fold when unpacked" in problem.what for problem in said.problems)
    # A declared size that is too small does not let more through either.
    small = check(_zip_of(b"manifest.json", packed, 10, 0))
    assert any("should have 10 bytes" in problem.what for problem in small.problems)
    reader = ZipReader(io.BytesIO(_zip_of(b"manifest.json", packed, 10, 0)))
    (member,) = reader.members()
    unpacked = reader.read(member, reader.data_start(member, sealed=False))
    with pytest.raises(Invalid):
        assert next(unpacked) == b""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"orderedItems":["' + b"x" * (33 << 20) + b'"]}', "single value"),
        (b'{"orderedItems":' + b"[" * 90 + b"]" * 90 + b"}", "nested deeper"),
        (b'{"orderedItems":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"orderedItems":{}}', "no list"),
    ],
    ids=["long", "deep", "number", "no list"],
)
def test_json_that_would_cost_memory_is_not_read_to_its_end(
    archive: bytes, check: Check, content: bytes, words: str
) -> None:
    report = check(repacked(archive, _forged(_added("outbox.json", content))))
    assert [words in p.what for p in report.problems if p.where == "outbox.json"] == [True], report.problems


@pytest.mark.parametrize(
    "document_",
    [
        b"[" * 100_000,
        b'{"a":' * 1000,
        b"\xff\xfe",
        b"",
        b"1e999999999999",
        b"9" * 10_000,
        b'{"format": 1, "counts": {"posts": 1e400}}',
        b'{"members": [[[]]]}',
        b'{"members": [{"path": []}]}',
        b"nul",
        b"[]",
    ],
    ids=range(11),
)
def test_absurd_json_is_a_problem_and_nothing_more(archive: bytes, check: Check, document_: bytes) -> None:
    for name in ("manifest.json", "outbox.json", "actor.json"):
        changed = repacked(archive, _added(name, document_))
        assert not check(changed).ok


def test_random_garbage_is_only_ever_a_report(tiny: bytes, check: Check) -> None:
    chance = random.Random(7)
    with opened(tiny) as zip_:
        contents_at = zip_.start_dir
    for _ in range(150):
        damaged = bytearray(tiny)
        for _ in range(chance.randrange(1, 30)):
            where = chance.randrange(contents_at, len(tiny)) if chance.random() < 0.7 else chance.randrange(len(tiny))
            damaged[where] = chance.randrange(256)
        report = check(bytes(damaged))
        assert not report.ok
        assert not any("cannot be understood" in problem.what for problem in report.problems), report.problems
