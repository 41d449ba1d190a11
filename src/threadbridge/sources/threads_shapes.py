"""The shapes of a Threads data download, turned into our nouns. No official schema exists; these are the forms seen.

V1 a text or a single medium, everything inside `media[0]` · V2 a carousel: `title` and time at the post · V3 V2 with
camera metadata · V4 variants: `media` as one object, `text`/`post`/`timestamp` as names · V5 lists of
`{"timestamp", "label_values": [{"label", "value", "href"}]}` whose labels are in the owner's language.

Rule: pure functions over parsed JSON. Every string and key passes `repaired` exactly once; labels are translated by
Meta, so what is not a known word is told by the shape of its value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import unquote, urlsplit

from threadbridge.domain.source import MediaKind, SourceMedia, SourcePost, SourceProfile
from threadbridge.storage.contacts import Contact, Relation

_MAX_DEPTH = 40
_LONGEST_USERNAME = 128
_USERNAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.]{0,28}[a-z0-9_])?")
_NATIVE = re.compile(r"([0-9]{15,20})(?=[^0-9]*$)")
_THREADS_HOSTS = frozenset({"threads.com", "www.threads.com", "threads.net", "www.threads.net"})


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry of a download that becomes no post: the reason in words, and where it stands."""

    reason: str
    where: str


EMPTY = "empty (no text and no media)"
NO_TIME = "without a usable time"
NOT_A_POST = "not a post"
TOO_DEEP = "nested too deeply"
TWICE = "listed twice (in overlapping files)"


def repaired(value: Any, depth: int = 0) -> Any:
    """Undo Meta's export bug in every string and key: UTF-8 bytes written as Latin-1 characters.

    Strings that are right already stay as they are. NUL and lone surrogates, which no database takes, are removed.
    Raises ValueError for nesting beyond any real download.
    """
    if isinstance(value, str):
        return repaired_text(value)
    if depth > _MAX_DEPTH:
        raise ValueError(TOO_DEEP)
    if isinstance(value, list):
        return [repaired(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {repaired_text(key): repaired(item, depth + 1) for key, item in value.items()}
    return value


def repaired_text(text: str) -> str:
    """One string, repaired."""
    if not text.isascii():
        try:
            text = text.encode("latin-1").decode("utf-8")
        except UnicodeError:
            text = text.encode("utf-8", "ignore").decode("utf-8")
    return text.replace("\x00", "")


# ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def post_of(entry: Any, where: str) -> SourcePost | Skipped:
    """One entry of the list of posts (already repaired).

    The native id is the first medium's number with the time, since downloads hold no post id (and one upload may be
    used twice); without such a number it is a digest of time, text and first file name.
    """
    if not isinstance(entry, dict):
        return Skipped(NOT_A_POST, where)
    media = _media_entries(entry)
    text = _text(entry, media)
    shown = tuple(
        SourceMedia(kind=_guessed_kind(uri), key=uri, member=uri)
        for item in media
        if (uri := _string(item.get("uri"))) and not uri.lower().endswith((".srt", ".vtt"))
    )
    if not text.strip() and not shown:
        return Skipped(EMPTY, where)
    published = _first_time(entry, *media)
    if published is None:
        return Skipped(NO_TIME, where)
    details = [part for holder in (entry, *media) if isinstance(part := holder.get("text_app_post"), dict)]
    return SourcePost(
        native_id=_native_id(int(published.timestamp()), text, shown),
        published=published,
        text=text,
        kind="reply" if any(part.get("is_reply") is True for part in details) else "post",
        media=shown,
        audience=next((control for part in details if (control := _string(part.get("reply_control")))), "everyone"),
        country_gated=any(bool(part.get("geo_gated_country_list")) for part in details),
    )


def _native_id(seconds: int, text: str, media: tuple[SourceMedia, ...]) -> str:
    first = media[0].key if media else ""
    number = _NATIVE.search(first.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    if number:
        return f"{number[1]}.{seconds}"
    return hashlib.sha256(f"{seconds}\x00{text}\x00{first}".encode()).hexdigest()


def _media_entries(entry: dict[str, Any]) -> list[dict[str, Any]]:
    media = entry.get("media")
    if isinstance(media, dict):
        media = [media]
    if isinstance(media, list):
        return [item for item in media if isinstance(item, dict)]
    if isinstance(entry.get("uri"), str):
        return [entry]
    return [item for item in _walk(entry.get("label_values")) if isinstance(item.get("uri"), str)]


def _text(entry: dict[str, Any], media: list[dict[str, Any]]) -> str:
    for holder in (entry, *media):
        for name in ("title", "text", "post"):
            if text := _string(holder.get(name)):
                return text
    if isinstance(entry.get("label_values"), list):
        # V5: the text is the longest value that is no address and no name.
        texts = [
            value
            for item in _walk(entry["label_values"])
            if (value := _string(item.get("value"))) and not item.get("href") and not _is_address(value)
        ]
        return max((value for value in texts if not _USERNAME.fullmatch(value)), key=len, default="")
    return ""


def _first_time(*holders: dict[str, Any]) -> datetime | None:
    for holder in holders:
        for name in ("creation_timestamp", "timestamp"):
            if (moment := moment_of(holder.get(name))) is not None:
                return moment
    return None


def moment_of(value: Any) -> datetime | None:
    """Unix seconds (some forms: milliseconds, or digits in a string, or ISO 8601) as UTC; None for nonsense."""
    if isinstance(value, str):
        if not value.isdecimal() or not value.isascii() or len(value) > 16:
            try:
                parsed = datetime.fromisoformat(value)
            except ValueError:
                return None
            return parsed.astimezone(UTC) if parsed.tzinfo and 2000 <= parsed.year < 2200 else None
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not 0 < value < 1e16:
        return None
    seconds = int(value // 1000) if value > 1e11 else int(value)
    return datetime.fromtimestamp(seconds, UTC) if 946_684_800 <= seconds < 7_258_118_400 else None


def _guessed_kind(uri: str) -> MediaKind:
    """By name, for media that are not in the download; what is there is told by its bytes when it is stored."""
    ending = uri.rsplit(".", 1)[-1].lower()
    return "video" if ending in ("mp4", "mov", "m4v") else "audio" if ending in ("mp3", "m4a", "aac") else "image"


# ── contacts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def contacts_of(entry: Any, relation: Relation) -> Iterator[Contact]:
    """The people that one entry of followers or following (already repaired) names."""
    if not isinstance(entry, dict):
        return
    title = _string(entry.get("title"))
    listed = entry.get("string_list_data")
    if isinstance(listed, list):
        for item in listed:
            if not isinstance(item, dict):
                continue
            href = _string(item.get("href"))
            username = _string(item.get("value")) or _last_part(href) or title
            if username and len(username) <= _LONGEST_USERNAME:
                name = title if title != username else ""
                yield Contact(relation, _bare(username), name, href or None, moment_of(item.get("timestamp")))
        return
    parts = [*_walk(entry.get("label_values")), *_walk(entry.get("string_map_data"))]
    href = next((link for part in parts if (link := _string(part.get("href"))) and _is_threads(link)), "")
    values = [value for part in parts if (value := _string(part.get("value"))) and not _is_address(value)]
    username = _last_part(href) or next((value for value in values if _USERNAME.fullmatch(value)), "")
    if username and len(username) <= _LONGEST_USERNAME:
        name = next((value for value in values if _bare(value) != _bare(username)), "")
        yield Contact(relation, _bare(username), name, href or None, moment_of(entry.get("timestamp")))


def _bare(username: str) -> str:
    return username.strip().lstrip("@")


def _last_part(href: str) -> str:
    try:
        return unquote(urlsplit(href).path.rstrip("/").rsplit("/", 1)[-1]).lstrip("@")
    except ValueError:
        return ""


# ── the profile ──────────────────────────────────────────────────────────────────────────────────────────────────

# Labels as Meta translates them (lower case), for telling fields apart before shapes have to.
_USERNAME_LABELS = frozenset(
    {"username", "user name", "benutzername", "nutzername", "gebruikersnaam", "nom d’utilisateur"}
    | {"nom d'utilisateur", "nombre de usuario", "nome de usuário", "nome de utilizador", "nome utente"}
    | {"användarnamn", "brugernavn", "brukernavn", "käyttäjänimi", "nazwa użytkownika", "uživatelské jméno"}
    | {"kullanıcı adı", "имя пользователя", "ім’я користувача", "ユーザーネーム", "ユーザー名", "사용자 이름"}
    | {"用户名", "使用者名稱", "用戶名稱", "اسم المستخدم", "nama pengguna", "tên người dùng", "ชื่อผู้ใช้"}
)
_NAME_LABELS = frozenset(
    {"name", "full name", "display name", "vollständiger name", "naam", "nom", "nom complet", "nombre", "nome"}
    | {"namn", "navn", "nimi", "imię i nazwisko", "nazwa", "jméno", "ad", "isim", "имя", "ім’я", "名前", "이름"}
    | {"姓名", "名字", "名称", "名稱", "الاسم", "nama", "tên", "ชื่อ"}
)
_BIO_LABELS = frozenset(
    {"bio", "biography", "biografie", "steckbrief", "beschreibung", "biographie", "biografía", "biografia"}
    | {"presentación", "beskrivning", "biografi", "biyografi", "życiorys", "o mnie", "биография", "о себе"}
    | {
        "біографія",
        "自己紹介",
        "소개",
        "个人简介",
        "简介",
        "個人簡介",
        "السيرة الذاتية",
        "tiểu sử",
        "ชีวประวัติ",
        "profiel",
    }
)
_YES = frozenset(
    {"true", "yes", "ja", "oui", "sí", "si", "sim", "sì", "да", "так", "tak", "ano", "evet", "kyllä", "はい", "예"}
    | {"是", "نعم", "ya", "có", "ใช่"}
)
_NO = frozenset(
    {"false", "no", "nein", "nee", "non", "não", "nej", "nei", "нет", "ні", "nie", "ne", "hayır", "ei", "いいえ"}
    | {"아니요", "否", "不是", "لا", "tidak", "không", "ไม่"}
)
_MAIL_OR_PHONE = re.compile(r"\S+@\S+\.\S+|\+?[0-9][0-9 ()/.-]{5,}")
_NEVER_SHOWN = re.compile(r"mail|phone|telefon|teléfono|téléphone|birth|geburt|naissance|gender|geschlecht", re.I)


def profile_of(entry: Any, username_hint: str | None) -> SourceProfile | None:
    """The owner, from an entry of personal_information (already repaired); None if no user name can be told."""
    if not isinstance(entry, dict):
        return None
    fields = [(label.strip().casefold(), value) for label, value in _labelled(entry)]
    rest = [(label, value) for label, value in fields if not _NEVER_SHOWN.search(label)]
    username = _username(rest, username_hint)
    if username is None:
        return None
    answers = [value.casefold() for _, value in rest if value.casefold() in _YES | _NO]
    texts = [
        (label, value)
        for label, value in rest
        if value.casefold() not in _YES | _NO
        and not _is_address(value)
        and not _MAIL_OR_PHONE.fullmatch(value)
        and label not in _USERNAME_LABELS
        and _bare(value) != username
    ]
    name = next((value for label, value in texts if label in _NAME_LABELS), None)
    bio = next((value for label, value in texts if label in _BIO_LABELS), None)
    unnamed = [value for label, value in texts if label not in _NAME_LABELS | _BIO_LABELS]
    if name is None:
        name = next((value for value in unnamed if "\n" not in value and len(value) <= 80), "")
        unnamed = [value for value in unnamed if value != name]
    if bio is None:
        bio = max(unnamed, key=len, default="")
    picture = next((uri for item in _walk(entry) if (uri := _string(item.get("uri")))), None)
    return SourceProfile(
        native_id=username,
        handle=username,
        name=name,
        bio=bio,
        url=f"https://www.threads.com/@{username}",
        avatar=SourceMedia("image", picture, member=picture) if picture else None,
        private=len(answers) == 1 and answers[0] in _YES,
    )


def _labelled(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    mapped = entry.get("string_map_data")
    if isinstance(mapped, dict):
        for label, item in mapped.items():
            if isinstance(item, dict) and (value := _string(item.get("value"))):
                yield label, value
    for item in _walk(entry.get("label_values")):
        if value := _string(item.get("value")):
            yield _string(item.get("label")), value


def _username(fields: list[tuple[str, str]], hint: str | None) -> str | None:
    bare = [(label, _bare(value)) for label, value in fields]
    for label, value in bare:
        if label in _USERNAME_LABELS and value:
            return value
    candidates = [value for label, value in bare if _USERNAME.fullmatch(value) and value not in _YES | _NO]
    if hint is not None and hint in candidates:
        return hint
    unlabelled = [
        value
        for label, value in bare
        if value in candidates and label not in _NAME_LABELS | _BIO_LABELS and not value.isdecimal()
    ]
    return unlabelled[0] if unlabelled else hint


# ── small shapes ─────────────────────────────────────────────────────────────────────────────────────────────────


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside, outermost first. Depth is bounded by `repaired`."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)


def _string(value: Any) -> str:
    return value.strip("\ufeff") if isinstance(value, str) else ""


def _is_address(value: str) -> bool:
    return value.startswith(("http://", "https://"))


def _is_threads(href: str) -> bool:
    try:
        return urlsplit(href).hostname in _THREADS_HOSTS
    except ValueError:
        return False
