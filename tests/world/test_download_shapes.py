"""Every shape in which Threads downloads have been seen becomes the same posts, people and profile."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.world.download_samples import (
    NOON,
    POSTS,
    PROFILE,
    THREADS,
    carousel,
    damaged,
    folder_of,
    people_file,
    picture,
    posts_file,
    profile_file,
    single,
    zip_of,
)

from threadbridge.domain.source import SourcePost, SourceProfile
from threadbridge.sources import language
from threadbridge.sources.threads_download import open_download
from threadbridge.sources.threads_shapes import (
    EMPTY,
    NO_TIME,
    NOT_A_POST,
    TOO_DEEP,
    TWICE,
    Skipped,
    moment_of,
    post_of,
    profile_of,
    repaired,
    repaired_text,
)

AT = datetime.fromtimestamp(NOON, UTC)
TEXT = "Grüße aus Kyoto 京都 👩‍🚀 #reise"


def read(*paths: Path) -> list[SourcePost | Skipped]:
    with open_download(paths) as download:
        return list(download.posts())


def one(tmp_path: Path, content: str) -> SourcePost:
    found = read(zip_of(tmp_path / "a.zip", {POSTS: content}))
    assert len(found) == 1
    post = found[0]
    assert isinstance(post, SourcePost)
    return post


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_every_text_comes_back_from_the_damage(text: str) -> None:
    assert repaired_text(damaged(text)) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_repair_leaves_right_texts_alone_and_settles(text: str) -> None:
    if any(ord(char) > 0xFF for char in text) or text.isascii():
        assert repaired_text(text) == text
    once = repaired_text(damaged(text + "→"))
    assert repaired_text(once) == once


def test_keys_are_repaired_and_what_no_database_takes_is_removed() -> None:
    entry = {damaged("Größe"): [damaged("ç"), {damaged("名"): "a\x00b"}]}
    assert repaired(entry) == {"Größe": ["ç", {"名": "ab"}]}
    assert repaired_text("lone \ud83d surrogate") == "lone  surrogate"
    assert repaired_text("é") == "é"


# ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_v1_a_text(tmp_path: Path) -> None:
    post = one(tmp_path, posts_file(single(TEXT)))
    assert (post.text, post.published, post.kind, post.media) == (TEXT, AT, "post", ())


def test_v1_a_single_picture_and_a_reply(tmp_path: Path) -> None:
    uri = "media/posts/202508/511_n_18069745118572866.webp"
    post = one(tmp_path, posts_file(single(TEXT, uri=uri, reply=True)))
    assert post.kind == "reply"
    assert [(item.kind, item.key, item.member) for item in post.media] == [("image", uri, uri)]
    assert post.native_id == f"18069745118572866.{NOON}"


def test_v2_a_carousel(tmp_path: Path) -> None:
    uris = [f"media/1806974511857286{number}.jpg" for number in range(6)]
    post = one(tmp_path, posts_file(carousel(TEXT, uris)))
    assert post.text == TEXT
    assert post.published == AT
    assert [item.key for item in post.media] == uris


def test_v3_camera_metadata(tmp_path: Path) -> None:
    metadata = {"photo_metadata": {"exif_data": [{"device_id": "x", "source_type": "4", "latitude": 52.5}]}}
    post = one(tmp_path, posts_file(single(TEXT, uri="media/1.mp4", media_metadata=metadata)))
    assert (post.text, post.media[0].kind) == (TEXT, "video")


@pytest.mark.parametrize(
    "entry",
    [
        {"media": single(TEXT)["media"][0]},
        {"text": damaged(TEXT), "timestamp": NOON},
        {"post": damaged(TEXT), "timestamp": str(NOON)},
        {"title": damaged(TEXT), "creation_timestamp": NOON * 1000},
        {"text": TEXT, "timestamp": "2025-08-06T07:54:19+00:00", "media": None},
        {"uri": "", "title": damaged(TEXT), "creation_timestamp": float(NOON)},
    ],
)
def test_v4_other_names_and_bare_lists(tmp_path: Path, entry: dict[str, Any]) -> None:
    for content in (posts_file(entry), json.dumps([entry]), json.dumps({"text_post_app_text_posts": entry})):
        post = one(tmp_path, content)
        assert (post.text, post.published, post.kind) == (TEXT, AT, "post")


def test_v5_label_values(tmp_path: Path) -> None:
    entry = {
        "timestamp": NOON,
        "fbid": "17",
        "media": [{"uri": "media/7.jpg", "creation_timestamp": NOON}],
        "label_values": [
            {"label": "URL", "value": "https://www.threads.com/@ana/post/x", "href": "https://www.threads.com/@ana"},
            {"title": "Autor", "dict": [{"dict": [{"label": "Benutzername", "value": "ana"}]}]},
            {"label": damaged("Überschrift"), "value": damaged(TEXT)},
        ],
    }
    post = one(tmp_path, json.dumps([entry]))
    assert (post.text, post.published, len(post.media)) == (TEXT, AT, 1)


def test_a_byte_order_mark_and_white_space_do_no_harm(tmp_path: Path) -> None:
    assert one(tmp_path, "\ufeff \n" + posts_file(single(TEXT))).text == TEXT


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (single(""), EMPTY),
        (single("  \n "), EMPTY),
        ({"media": []}, EMPTY),
        ({}, EMPTY),
        ({"title": "text", "creation_timestamp": 0}, NO_TIME),
        ({"title": "text", "creation_timestamp": 10**30}, NO_TIME),
        ({"title": "text"}, NO_TIME),
        ("just a string", NOT_A_POST),
        (None, NOT_A_POST),
    ],
)
def test_what_is_no_post_is_skipped_with_its_reason(tmp_path: Path, entry: Any, reason: str) -> None:
    found = read(zip_of(tmp_path / "a.zip", {POSTS: posts_file(single(TEXT), entry)}))
    assert found[1] == Skipped(reason, f"{POSTS}, entry 2")


def test_nesting_without_end_is_skipped(tmp_path: Path) -> None:
    deep = '{"title": "x", "creation_timestamp": 1754466859, "media": ' + "[" * 5000 + "]" * 5000 + "}"
    found = read(zip_of(tmp_path / "a.zip", {POSTS: '{"text_post_app_text_posts": [' + deep + "]}"}))
    assert [entry.reason for entry in found if isinstance(entry, Skipped)] == [TOO_DEEP]


def test_subtitles_are_no_media_and_countries_are_noticed() -> None:
    entry = single(TEXT, uri="media/1.srt")
    entry["media"][0]["text_app_post"] |= {"geo_gated_country_list": "DE,FR", "reply_control": "mentioned_only"}
    post = post_of(repaired(entry), "x")
    assert isinstance(post, SourcePost)
    assert (post.media, post.country_gated, post.audience) == ((), True, "mentioned_only")


# ── identity ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ids_are_stable_and_equal_entries_of_one_file_stay_two(tmp_path: Path) -> None:
    entries = [single("same"), single("same"), single("other"), single("same", at=NOON + 1)]
    first = read(zip_of(tmp_path / "a.zip", {POSTS: posts_file(*entries)}))
    again = read(zip_of(tmp_path / "b.zip", {POSTS: posts_file(*reversed(entries))}))
    ids = [post.native_id for post in first if isinstance(post, SourcePost)]
    assert len(set(ids)) == 4
    assert ids[1] == ids[0] + "#2"
    assert set(ids) == {post.native_id for post in again if isinstance(post, SourcePost)}


def test_one_upload_used_in_two_posts_is_two_posts(tmp_path: Path) -> None:
    uri = "media/18069745118572866.webp"
    found = read(zip_of(tmp_path / "a.zip", {POSTS: posts_file(single("a", uri=uri), single("b", NOON + 9, uri))}))
    assert len({post.native_id for post in found if isinstance(post, SourcePost)}) == 2


def test_overlapping_files_list_a_post_once(tmp_path: Path) -> None:
    members = {
        f"{THREADS}/threads_and_replies_1.json": posts_file(single("a"), single("b")),
        f"{THREADS}/threads_and_replies_2.json": posts_file(single("b"), single("c")),
    }
    found = read(zip_of(tmp_path / "a.zip", members))
    assert [entry.text if isinstance(entry, SourcePost) else entry.reason for entry in found] == [
        "a",
        "b",
        TWICE,
        "c",
    ]


@pytest.mark.parametrize("value", [True, -5, "x", "9" * 40, 1e300, None, [], {}, 7_258_118_400, float("inf")])
def test_nonsense_is_no_time(value: Any) -> None:
    assert moment_of(value) is None


# ── where things lie ─────────────────────────────────────────────────────────────────────────────────────────────

MEMBERS: dict[str, str | bytes] = {
    POSTS: posts_file(single("hello", uri="media/posts/202508/1_n_18069745118572866.jpg")),
    PROFILE: profile_file(),
    f"{THREADS}/followers.json": people_file("text_post_app_text_post_app_followers", "ben", "cem"),
    f"{THREADS}/following.json": people_file("text_post_app_text_post_app_following", "dee"),
    "media/posts/202508/1_n_18069745118572866.jpg": picture(),
    # Instagram's own, to be left alone:
    "your_instagram_activity/media/posts_1.json": json.dumps(
        [{"media": [], "title": "insta", "creation_timestamp": 1}]
    ),
    "connections/followers_and_following/followers_1.json": json.dumps(
        [{"title": "", "string_list_data": [{"href": "https://www.instagram.com/no", "value": "no", "timestamp": 1}]}]
    ),
    "personal_information/personal_information/personal_information.json": json.dumps({"profile_user": []}),
}


def checked(*paths: Path, media: bool = True, people: int = 3) -> None:
    with open_download(paths) as download:
        posts = list(download.posts())
        assert [post.text for post in posts if isinstance(post, SourcePost)] == ["hello"]
        assert download.total_hint == 1
        profile = download.profile()
        assert profile is not None
        assert (profile.handle, profile.name, profile.bio) == ("ana.example", "Ana Example", "Ships and coffee ☕")
        assert len(list(download.contacts())) == people
        post = posts[0]
        assert isinstance(post, SourcePost)
        stream = download.open_media(post.media[0].member or "")
        assert (stream is not None) == media
        if stream is not None:
            with stream:
                assert stream.read() == picture()


def test_a_zip_and_a_folder(tmp_path: Path) -> None:
    checked(zip_of(tmp_path / "a.zip", MEMBERS))
    checked(folder_of(tmp_path / "folder", MEMBERS))


def test_only_the_inner_folders(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "folder", MEMBERS)
    checked(root / "your_instagram_activity")
    checked(root / "your_instagram_activity" / "threads")
    alone = (root / "your_instagram_activity" / "threads").rename(tmp_path / "threads")
    checked(alone, media=False)


def test_a_folder_inside_the_zip(tmp_path: Path) -> None:
    checked(zip_of(tmp_path / "a.zip", {f"instagram-ana/{name}": data for name, data in MEMBERS.items()}))


def test_numbered_zips_together(tmp_path: Path) -> None:
    parts = list(MEMBERS.items())
    first = zip_of(tmp_path / "a-1.zip", dict(parts[:4]))
    second = zip_of(tmp_path / "a-2.zip", dict(parts[4:]))
    checked(first, second)
    checked(second, first)
    checked(first, media=False)


def test_media_is_found_by_file_name_where_most_of_the_path_agrees(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {POSTS: posts_file(), "x/other/7.jpg": b"wrong", "x/posts/7.jpg": b"right"})
    with open_download([path]) as download:
        stream = download.open_media("media/posts/7.jpg")
        assert stream is not None
        assert stream.read() == b"right"
        assert download.open_media("media/posts/8.jpg") is None
        assert download.open_media("https://cdn.example/posts/7.jpg") is None
        assert download.open_media("../../../../etc/passwd") is None


def test_only_people_and_profile_are_a_download_too(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {name: data for name, data in MEMBERS.items() if name != POSTS})
    with open_download([path]) as download:
        assert list(download.posts()) == []
        assert len(list(download.contacts())) == 3


# ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_people_in_all_shapes(tmp_path: Path) -> None:
    listed = [
        {
            "title": damaged("Jürgen"),
            "string_list_data": [{"href": "https://www.threads.net/@juergen", "timestamp": NOON}],
        },
        {
            "title": "",
            "string_list_data": [{"href": "https://www.threads.com/eva", "value": "eva", "timestamp": NOON}],
        },
        {"title": "only.title", "string_list_data": [{"timestamp": NOON}]},
        {
            "timestamp": NOON,
            "label_values": [
                {"label": "URL", "value": "https://www.threads.com/@li", "href": "https://www.threads.com/@li"},
                {"label": "Naam", "value": "Li Na"},
                {"label": "Gebruikersnaam", "value": "li"},
            ],
        },
        {"string_list_data": "nonsense"},
        "nonsense",
    ]
    path = zip_of(tmp_path / "a.zip", {POSTS: posts_file(), f"{THREADS}/followers_1.json": json.dumps(listed)})
    with open_download([path]) as download:
        people = [(person.relation, person.username, person.name, person.at) for person in download.contacts()]
    assert people == [
        ("follower", "juergen", "Jürgen", AT),
        ("follower", "eva", "", AT),
        ("follower", "only.title", "", AT),
        ("follower", "li", "Li Na", AT),
    ]


# ── the profile ──────────────────────────────────────────────────────────────────────────────────────────────────


def profile(fields: dict[str, str], hint: str | None = None, **more: Any) -> SourceProfile | None:
    labelled = {
        damaged(label): {"href": "", "value": damaged(value), "timestamp": 0} for label, value in fields.items()
    }
    return profile_of(repaired({"string_map_data": labelled, **more}), hint)


@pytest.mark.parametrize(
    "fields",
    [
        {"Username": "ana_m", "Name": "Ana M.", "Bio": "Ships ⛵", "Private Account": "False"},
        {"Benutzername": "ana_m", "Name": "Ana M.", "Steckbrief": "Ships ⛵", "Privates Konto": "Nein"},
        {"Bio": "Ships ⛵", "Name": "Ana M.", "Gebruikersnaam": "ana_m", "Privéaccount": "Nee"},
        {"ユーザーネーム": "ana_m", "名前": "Ana M.", "自己紹介": "Ships ⛵", "非公開アカウント": "いいえ"},
        {"ឈ្មោះអ្នកប្រើ": "ana_m", "ឈ្មោះ": "Ana M.", "ជីវប្រវត្តិ": "Ships ⛵", "គណនីឯកជន": "False"},
        {
            "Email": "ana@example.org",
            "Username": "ana_m",
            "Name": "Ana M.",
            "Phone Number": "+49 30 123456",
            "Bio": "Ships ⛵",
        },
    ],
)
def test_a_profile_in_any_language(fields: dict[str, str]) -> None:
    found = profile(fields)
    assert found is not None
    assert (found.handle, found.name, found.bio, found.private) == ("ana_m", "Ana M.", "Ships ⛵", False)


def test_an_empty_bio_is_not_filled_with_yes_or_no() -> None:
    found = profile({"Benutzername": "ana", "Name": "Ana", "Steckbrief": "", "Privates Konto": "Ja"})
    assert found is not None
    assert (found.name, found.bio, found.private) == ("Ana", "", True)


def test_an_unknown_language_with_a_lower_case_name_is_told_by_the_zip(tmp_path: Path) -> None:
    found = profile({"Jina": "ana", "Jina la mtumiaji": "ana.m"}, hint="ana.m")
    assert found is not None
    assert (found.handle, found.name) == ("ana.m", "ana")


def test_the_profile_picture_is_found(tmp_path: Path) -> None:
    photo = {damaged("Profilbild"): {"uri": "media/profile/1.jpg", "creation_timestamp": NOON, "title": ""}}
    found = profile({"Username": "ana"}, media_map_data=photo)
    assert found is not None
    assert found.avatar is not None
    assert found.avatar.member == "media/profile/1.jpg"


def test_without_a_profile_the_zip_says_whose_it_is(tmp_path: Path) -> None:
    with open_download(
        [zip_of(tmp_path / "instagram-ana.m_x-2026-01-31-Ab3.zip", {POSTS: posts_file()})]
    ) as download:
        found = download.profile()
        assert found is not None
        assert found.handle == "ana.m_x"
    with open_download([zip_of(tmp_path / "download.zip", {POSTS: posts_file()})]) as download:
        assert download.profile() is None


# ── language ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good morning from the harbour, the coffee is on and the ships are coming in.", "en"),
        ("Guten Morgen aus dem Hafen, der Kaffee läuft schon und die Schiffe kommen herein.", "de"),
        ("今日は天気がいいので、友達と一緒に公園を散歩してからコーヒーを飲みました。", "ja"),
        ("lol ok", None),
        ("https://example.com/a/very/long/address/in/english/words @someone #tagged", None),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", None),
        ("", None),
    ],
)
def test_a_language_is_named_only_when_it_is_certain(text: str, expected: str | None) -> None:
    assert language.detect(text) == expected


def test_streams_read_in_small_pieces(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {POSTS: posts_file(), "media/7.bin": bytes(range(256)) * 1000})
    with open_download([path]) as download:
        stream = download.open_media("media/7.bin")
        assert stream is not None
        pieces = io.BytesIO()
        while piece := stream.read(777):
            pieces.write(piece)
        assert pieces.getvalue() == bytes(range(256)) * 1000
