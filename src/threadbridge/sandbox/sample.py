"""The bundled sample person: written once, told twice, as a data download and as an account of the mock network.

Rule: both tellings come from `sample_posts.json` and agree on second and text, so that connecting after importing
finds the same posts; and both are the same bytes every time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from threadbridge.sandbox import drawing
from threadbridge.sandbox.network import Draft, Network, Person, Poll

_FIRST_ID = 18_100_000_000_000_000  # above everything that the mock network numbers itself
_IDS = 900_000_000_000_000
_TAKEN = datetime(2026, 9, 15, 10, 0, 0)  # noqa: DTZ001 - the day of the download; ZIP members have no zone
_STEM = "Qx7LmT2v"
_THREADS = "your_instagram_activity/threads"
_EXTENSIONS = {"JPEG": "jpg", "WEBP": "webp"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn picture, encoded."""

    name: str
    body: bytes
    content_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class SamplePost:
    """One post as written in the JSON file, with ids. `media` holds (picture name, alt text, media id)."""

    id: str
    at: datetime
    text: str
    media: tuple[tuple[str, str, str], ...]
    parent: str | None
    quote: str | None
    row: Mapping[str, Any]


# ── what was written ─────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _written() -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(
        Path(__file__).with_name("sample_posts.json").read_text(encoding="utf-8")
    )
    return document


def _number(*parts: str) -> str:
    digest = hashlib.sha256("/".join(parts).encode()).hexdigest()
    return str(_FIRST_ID + int(digest[:15], 16) % _IDS)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _ids_by_slug() -> dict[str, str]:
    document = _written()
    own = {row["slug"]: _number("mira", row["at"]) for row in document["posts"] if "slug" in row}
    return own | {row["slug"]: _number(row["by"], row["at"]) for row in document["neighbour_posts"]}


def posts() -> list[SamplePost]:
    """All posts of the sample person, oldest first."""
    slugs, made = _ids_by_slug(), []
    for row in _written()["posts"]:
        id = _number("mira", row["at"])
        media = row.get("media", [])
        # The API calls a single picture by its post's id; only the items of a carousel have their own.
        ids = [id] if len(media) == 1 else [_number("mira", row["at"], name) for name, _ in media]
        parent = row.get("answers") or row.get("answers_other")
        made.append(
            SamplePost(
                id=id,
                at=_moment(row["at"]),
                text=row["text"],
                media=tuple((name, alt, item) for (name, alt), item in zip(media, ids, strict=True)),
                parent=slugs[parent] if parent else None,
                quote=slugs[row["quote"]] if "quote" in row else None,
                row=row,
            )
        )
    return made


@functools.cache
def picture(name: str) -> Picture:
    """A picture of the sample by its name, with the EXIF that a telephone would leave in it."""
    spec = _written()["pictures"][name]
    form = spec.get("form", "JPEG")
    camera = None
    if "taken" in spec:
        place = tuple(spec["place"]) if "place" in spec else None
        camera = drawing.Camera(datetime.fromisoformat(spec["taken"]), place=place)
    image = drawing.draw(spec["scene"], size=tuple(spec["size"]), seed=spec.get("seed", 1))
    return Picture(name, drawing.encode(image, form, camera), f"image/{form.lower()}", _EXTENSIONS[form])


# ── as an account of the mock network ────────────────────────────────────────────────────────────────────────────


def seed(network: Network) -> Person:
    """Load the sample person, two neighbours and all posts. Returns the person; the token is in it."""
    document = _written()
    for row in document["neighbours"]:
        network.join(row["username"], name=row["name"], bio=row["bio"], joined=_moment(row["joined"]))
    for row in document["neighbour_posts"]:
        author = network.person(row["by"])
        network.post(author, Draft(text=row["text"]), at=_moment(row["at"]), id=_number(row["by"], row["at"]))
    about = document["person"]
    person = network.join(
        about["username"],
        name=about["name"],
        bio=about["bio"],
        avatar=_stored(network, about["avatar"]),
        joined=_moment(about["joined"]),
    )
    for post in posts():
        network.post(person, _draft(network, post), at=post.at, id=post.id)
    return person


def _stored(network: Network, name: str) -> str:
    drawn = picture(name)
    return network.store(drawn.body, drawn.content_type, stem=_facebook_name(name))


def _draft(network: Network, post: SamplePost) -> Draft:
    row = post.row
    items = [network.item(_stored(network, name), alt=alt, id=item) for name, alt, item in post.media]
    spoilers = [(post.text.index(words), len(words)) for words in row.get("spoilers", [])]
    poll = None
    if "poll" in row:
        poll = Poll(tuple(row["poll"]["options"]), tuple(row["poll"]["votes"]), post.at + timedelta(hours=24))
    draft = Draft(text=post.text, media=tuple(items), poll=poll, spoilers=tuple(spoilers), reply_to=post.parent)
    return replace(
        draft,
        topic=row.get("topic"),
        spoiler_media=row.get("spoiler_media", False),
        link=row.get("link"),
        location=row.get("location"),
        quote=post.quote,
    )


# ── as a data download ───────────────────────────────────────────────────────────────────────────────────────────


def write_download(folder: Path) -> list[Path]:
    """Write the person's download as two numbered ZIPs into `folder` (made if missing); returns their paths.

    The texts, half of the pictures and Instagram's own files are in the first, the other pictures in the second,
    as Meta splits large downloads without regard for what belongs together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    media = _media_files()
    half = len(media) // 2
    first = list(_documents()) + media[:half]
    paths = []
    for number, members in enumerate((first, media[half:]), start=1):
        path = folder / f"instagram-{_written()['person']['username']}-{_TAKEN:%Y-%m-%d}-{_STEM}-{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, body in members:
                info = zipfile.ZipInfo(name, _TAKEN.timetuple()[:6])
                info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
                info.external_attr = 0o644 << 16
                archive.writestr(info, body)
        paths.append(path)
    return paths


def broken_as_meta_does(value: Any) -> Any:
    """Every byte of a string's UTF-8 as a character of its own, in texts and in keys: 'é' becomes 'Ã©'. Written with
    ASCII escapes this gives the `\\u00c3\\u00a9` of Meta's files."""
    if isinstance(value, str):
        return value.encode("utf-8").decode("latin-1")
    if isinstance(value, dict):
        return {broken_as_meta_does(key): broken_as_meta_does(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [broken_as_meta_does(inner) for inner in value]
    return value


def _json(document: Any) -> bytes:
    return json.dumps(broken_as_meta_does(document), ensure_ascii=True, indent=2).encode("ascii")


def _documents() -> Iterator[tuple[str, bytes]]:
    newest_first = [_exported(post) for post in reversed(posts())]
    yield f"{_THREADS}/threads_and_replies.json", _json({"text_post_app_text_posts": newest_first})
    yield f"{_THREADS}/followers.json", _json({"text_post_app_text_post_app_followers": _people("follower", 23)})
    yield f"{_THREADS}/following.json", _json({"text_post_app_text_post_app_following": _people("friend", 11)})
    yield f"{_THREADS}/liked_threads.json", _json({"text_post_app_media_likes": _likes()})
    yield f"{_THREADS}/personal_information.json", _json({"text_post_app_text_post_app_profile": [_profile()]})
    yield "your_instagram_activity/media/posts_1.json", _json(_instagram_posts())


def _exported(post: SamplePost) -> dict[str, Any]:
    """One post in the shape that downloads of its time had: text inside the only media item, text at the post for
    several, and camera details beside newer pictures. Parents, polls,
    quotes, topics and alt texts are not exported."""
    seconds = int(post.at.timestamp())
    settings: dict[str, Any] = {"reply_control": "everyone", "geo_gated_country_list": ""}
    if post.at.year >= 2025 or post.parent:
        settings["is_reply"] = post.parent is not None
    single = len(post.media) < 2
    items = []
    for name, uri in _uris(post) or [("", "")]:
        details: dict[str, Any] = {"camera_metadata": {"has_camera_metadata": False}}
        if name and post.at.year >= 2025:
            details["photo_metadata"] = {"exif_data": [{"device_id": "android-3f0c9", "source_type": "4"}]}
        items.append(
            {
                "uri": uri,
                "creation_timestamp": seconds,
                "media_metadata": details,
                "title": post.text if single else "",
                "cross_post_source": {"source_app": "FB"},
                "text_app_post": settings,
            }
        )
    return {"media": items} if single else {"media": items, "title": post.text, "creation_timestamp": seconds}


def _uris(post: SamplePost) -> list[tuple[str, str]]:
    if len(post.media) > 1:
        return [(name, f"media/{item}.{picture(name).extension}") for name, _, item in post.media]
    return [
        (name, f"media/posts/{post.at:%Y%m}/{_facebook_name(name)}_n_{item}.{picture(name).extension}")
        for name, _, item in post.media
    ]


def _facebook_name(name: str) -> str:
    digits = int(hashlib.sha256(name.encode()).hexdigest()[:26], 16)
    return f"{digits % 900_000_000 + 100_000_000}_{digits // 10**9 % 10**16:016d}_{digits % 10**19:019d}"


def _media_files() -> list[tuple[str, bytes]]:
    files = [(uri, picture(name).body) for post in posts() for name, uri in _uris(post)]
    return [*files, (_avatar_uri(), picture("portrait").body), (_instagram_uri(), _instagram_picture())]


def _avatar_uri() -> str:
    return f"media/profile/202503/{_facebook_name('portrait')}_n_{_number('mira', 'portrait')}.jpg"


def _instagram_uri() -> str:
    return f"media/posts/202408/{_facebook_name('instagram')}_n_{_number('mira', 'instagram')}.jpg"


@functools.cache
def _instagram_picture() -> bytes:
    return drawing.encode(drawing.draw("coffee", size=(640, 640), seed=5))


def _people(stem: str, count: int) -> list[dict[str, Any]]:
    start = int(_TAKEN.replace(tzinfo=UTC).timestamp())
    names = [
        *(row["username"] for row in _written()["neighbours"]),
        *(f"{stem}.{n:02d}" for n in range(1, count - 1)),
    ]
    return [
        {
            "title": "",
            "string_list_data": [
                {"href": f"https://www.threads.com/{name}", "value": name, "timestamp": start - n * 777_777}
            ],
        }
        for n, name in enumerate(names)
    ]


def _likes() -> list[dict[str, Any]]:
    return [
        {
            "title": author,
            "media_list_data": [],
            "string_list_data": [
                {"href": f"https://www.threads.com/@{author}/post/{code}", "value": "👍", "timestamp": at}
            ],
        }
        for author, code, at in (
            ("luisa.reads", "DFnq1s8oKtA", 1_738_607_001),
            ("kenji_eki", "DPr0xbUkTe2", 1_760_230_900),
        )
    ]


def _profile() -> dict[str, Any]:
    """Labels are in the language of the account's owner, Swedish here."""
    about = _written()["person"]
    joined = int(_moment(about["joined"]).timestamp())
    entries = {
        "Användarnamn": about["username"],
        "Namn": about["name"],
        "Presentation": about["bio"],
        "Privat konto": "False",
    }
    return {
        "title": "",
        "media_map_data": {"Profilbild": {"uri": _avatar_uri(), "creation_timestamp": joined, "title": ""}},
        "string_map_data": {label: {"href": "", "value": value, "timestamp": 0} for label, value in entries.items()},
    }


def _instagram_posts() -> list[dict[str, Any]]:
    """What the same person posted on Instagram: in the same ZIP, and none of our business."""
    return [
        {
            "media": [
                {
                    "uri": _instagram_uri(),
                    "creation_timestamp": 1_723_190_400,
                    "media_metadata": {"camera_metadata": {"has_camera_metadata": False}},
                    "title": "Only on Instagram: the other coffee ☕",
                    "cross_post_source": {"source_app": "FB"},
                }
            ]
        }
    ]
