"""The mock network's state: people, posts, media and the faults that can be switched on. All in memory.

Rule: this file knows what happened, never how Meta writes it; JSON shapes live in `graph`. One event loop uses it,
and no method waits, so nothing is locked. The clock and the secret are given or made once, in the constructor.
"""

from __future__ import annotations

import hashlib
import hmac
import mimetypes
import re
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from threadbridge.errors import Conflict, Forbidden, Invalid, NotFound

MediaKind = Literal["IMAGE", "VIDEO", "AUDIO"]

TEXT_LIMIT = 500
ALT_LIMIT = 1000
_USERNAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.]{0,28}[a-z0-9_])?")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_FIRST_USER = 17_841_400_000_318_207
_FIRST_POST = 17_900_000_000_104_729
_FIRST_ITEM = 18_000_000_000_208_333
_STEP = 7_919  # ids are not neighbours, as Meta's are not
_MINUTE = timedelta(minutes=1)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Person:
    """Somebody with an account on the mock network. `token` is what an app would hold."""

    id: str
    username: str
    name: str
    bio: str
    token: str
    joined: datetime
    verified: bool = False
    avatar: str | None = None
    """Name of a stored file."""
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """A picture, video or sound of a post; `file` is the name of stored bytes."""

    id: str
    kind: MediaKind
    file: str
    alt: str = ""


@dataclass(frozen=True, slots=True)
class Poll:
    """Two to four options, the votes on each, and the end."""

    options: tuple[str, ...]
    votes: tuple[int, ...]
    closes_at: datetime


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody writes. `spoilers` are (offset, length) in characters; references are post ids."""

    text: str = ""
    media: tuple[Item, ...] = ()
    topic: str | None = None
    poll: Poll | None = None
    spoilers: tuple[tuple[int, int], ...] = ()
    spoiler_media: bool = False
    link: str | None = None
    gif: str | None = None
    long_text: str | None = None
    location: str | None = None
    reply_to: str | None = None
    quote: str | None = None
    repost: str | None = None
    reply_audience: str = "EVERYONE"
    countries: tuple[str, ...] = ()
    ghost: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A published post."""

    id: str
    owner: str
    created: datetime
    draft: Draft
    edited: datetime | None = None

    @property
    def shortcode(self) -> str:
        return shortcode(self.id)


@dataclass(slots=True)
class Faults:
    """What is broken on purpose."""

    limited_until: datetime | None = None
    outage_until: datetime | None = None
    expand_children: bool = True
    """False: `children{…}` is answered with bare ids."""


@dataclass(frozen=True, slots=True)
class File:
    """Stored bytes with their type."""

    content_type: str
    body: bytes


@dataclass(slots=True)
class _Calls:
    times: deque[datetime] = field(default_factory=deque)


class Network:
    """The whole mock network. `budget` calls per `window` and person; signed media addresses live `media_life`."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = utc_now,
        budget: int = 4_800,
        window: timedelta = timedelta(hours=1),
        media_life: timedelta = timedelta(hours=1),
        secret: bytes | None = None,
    ) -> None:
        self.now = now
        self.budget = budget
        self.window = window
        self.media_life = media_life
        self.faults = Faults()
        self.people: dict[str, Person] = {}
        self.files: dict[str, File] = {}
        self._entries: dict[str, Entry] = {}
        self._secret = secret or secrets.token_bytes(32)
        self._next_post = _FIRST_POST
        self._next_item = _FIRST_ITEM
        self._calls: dict[str, _Calls] = {}

    # ── people ───────────────────────────────────────────────────────────────────────────────────────────────────

    def join(
        self,
        username: str,
        *,
        name: str = "",
        bio: str = "",
        avatar: str | None = None,
        token: str | None = None,
        joined: datetime | None = None,
    ) -> Person:
        """A new person. Raises Invalid for a name Threads would refuse, Conflict for a taken one."""
        if not _USERNAME.fullmatch(username):
            raise Invalid(
                f"The user name {username!r} cannot be used",
                hint="Lower-case letters, digits, _ and . inside, 30 characters at most.",
            )
        if any(person.username == username for person in self.people.values()):
            raise Conflict(f"The user name {username!r} is taken")
        person = Person(
            id=str(_FIRST_USER + len(self.people) * _STEP),
            username=username,
            name=name or username,
            bio=bio,
            token=token or "THQVJ" + secrets.token_urlsafe(48),
            joined=joined or self.now(),
            avatar=avatar,
        )
        self.people[person.id] = person
        return person

    def person(self, name_or_id: str) -> Person:
        """By id or user name, with or without @. Raises NotFound."""
        name = name_or_id.lstrip("@")
        for person in self.people.values():
            if name in {person.id, person.username}:
                return person
        raise NotFound(f"There is no user {name_or_id!r}")

    def bearer(self, token: str) -> Person | None:
        """Whose token this is, if it is anybody's and has not expired."""
        for person in self.people.values():
            if hmac.compare_digest(person.token.encode(), token.encode("utf-8", "replace")):
                return None if person.expired else person
        return None

    def renew_token(self, person: Person) -> str:
        """A new token; the old one is dead at once."""
        person.token, person.expired = "THQVJ" + secrets.token_urlsafe(48), False
        return person.token

    # ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def store(self, body: bytes, content_type: str, *, stem: str | None = None) -> str:
        """Keep bytes; the name is derived from them, so the same file is kept once."""
        if not body:
            raise Invalid("The file is empty")
        suffix = {"image/jpeg": ".jpg"}.get(content_type) or mimetypes.guess_extension(content_type) or ".bin"
        digest = int(hashlib.sha256(body).hexdigest()[:13], 16)
        name = f"{stem or digest}_n{suffix}"
        self.files[name] = File(content_type, body)
        return name

    def item(self, file: str, *, alt: str = "", kind: MediaKind | None = None, id: str | None = None) -> Item:
        """A stored file as part of a post that is being written. Raises NotFound, Invalid."""
        if file not in self.files:
            raise NotFound(f"There is no file {file!r}")
        guessed: dict[str, MediaKind] = {"video": "VIDEO", "audio": "AUDIO", "image": "IMAGE"}
        found = kind or guessed.get(self.files[file].content_type.partition("/")[0])
        if found is None:
            raise Invalid(f"{self.files[file].content_type} is neither picture, video nor sound")
        if id is None:
            self._next_item += _STEP
            id = str(self._next_item)
        return Item(id, found, file, alt)

    def post(self, person: Person, draft: Draft, *, at: datetime | None = None, id: str | None = None) -> Entry:
        """Publish. `at` (whole seconds) and `id` are for history that is loaded. Raises Invalid; NotFound for a
        quoted or reposted post that is not there; Conflict for a used id."""
        self._check(draft)
        for other in (draft.quote, draft.repost):
            if other is not None:
                self.entry(other)
        if id is None:
            self._next_post += _STEP
            id = str(self._next_post)
        if id in self._entries:
            raise Conflict(f"A post {id} exists already")
        created = (at or self.now()).astimezone(UTC).replace(microsecond=0)
        entry = Entry(id=id, owner=person.id, created=created, draft=draft)
        self._entries[id] = entry
        return entry

    def edit(
        self,
        person: Person | None,
        id: str,
        *,
        text: str | None = None,
        topic: str | None = None,
        alt: str | None = None,
    ) -> Entry:
        """Change text, topic ("" removes it) or the first picture's alt text, in place and with the first time, as
        Threads' own app does. `person` None: whoever owns it."""
        entry = self._own(person, id)
        draft = entry.draft
        if text is not None:
            spoilers = tuple((offset, length) for offset, length in draft.spoilers if offset + length <= len(text))
            draft = replace(draft, text=text, spoilers=spoilers)
        if topic is not None:
            draft = replace(draft, topic=topic or None)
        if alt is not None and draft.media:
            draft = replace(draft, media=(replace(draft.media[0], alt=alt), *draft.media[1:]))
        self._check(draft)
        changed = replace(entry, draft=draft, edited=self.now())
        self._entries[id] = changed
        return changed

    def delete(self, person: Person | None, id: str) -> None:
        """Remove for good. Raises NotFound; Forbidden when it is somebody else's."""
        del self._entries[self._own(person, id).id]

    def entry(self, id: str) -> Entry:
        """One post. Raises NotFound."""
        found = self._entries.get(id)
        if found is None:
            raise NotFound(f"There is no post {id!r}")
        return found

    def by_shortcode(self, code: str) -> Entry:
        """One post by the code in its address. Raises NotFound."""
        return self.entry(id_of_shortcode(code))

    def written_by(self, person: Person, *, replies: bool) -> list[Entry]:
        """Own posts without replies, or own replies only; newest first. Ghost posts are listed elsewhere."""
        own = (entry for entry in self._entries.values() if entry.owner == person.id and not entry.draft.ghost)
        chosen = (entry for entry in own if (entry.draft.reply_to is not None) == replies)
        return sorted(chosen, key=newest_key, reverse=True)

    def ghosts_of(self, person: Person) -> list[Entry]:
        own = (entry for entry in self._entries.values() if entry.owner == person.id and entry.draft.ghost)
        return sorted(own, key=newest_key, reverse=True)

    def answers_to(self, id: str) -> list[Entry]:
        """Direct replies, newest first."""
        return sorted(
            (entry for entry in self._entries.values() if entry.draft.reply_to == id), key=newest_key, reverse=True
        )

    def root_of(self, entry: Entry) -> str:
        """Id of the post that the conversation began with (as far up as posts still exist)."""
        id = entry.id
        while (here := self._entries.get(id)) is not None and here.draft.reply_to is not None:
            id = here.draft.reply_to
        return id

    def everything(self) -> list[Entry]:
        """All posts of all people, newest first."""
        return sorted(self._entries.values(), key=newest_key, reverse=True)

    def _own(self, person: Person | None, id: str) -> Entry:
        entry = self.entry(id)
        if person is not None and entry.owner != person.id:
            raise Forbidden("That post belongs to somebody else")
        return entry

    def _check(self, draft: Draft) -> None:
        if len(draft.text) > TEXT_LIMIT:
            raise Invalid(f"The text has {len(draft.text)} characters, {TEXT_LIMIT} are allowed")
        empty = not draft.text.strip() and not draft.media and not draft.gif and not draft.long_text
        if empty and not draft.repost and not draft.quote:
            raise Invalid("A post needs a text or a picture")
        if len(draft.media) > 20:
            raise Invalid(f"{len(draft.media)} pictures are too many, 20 are allowed")
        if draft.poll and (draft.media or not 2 <= len(draft.poll.options) <= 4):
            raise Invalid("A poll has two to four options and no pictures")
        if draft.poll and not all(1 <= len(option) <= 25 for option in draft.poll.options):
            raise Invalid("A poll's option has 1 to 25 characters")
        if draft.topic and (len(draft.topic) > 50 or "." in draft.topic or "&" in draft.topic):
            raise Invalid("A topic has 1 to 50 characters and neither . nor &")
        for offset, length in draft.spoilers:
            if offset < 0 or length < 1 or offset + length > len(draft.text):
                raise Invalid(f"The spoiler {offset}+{length} lies outside the text")
        if any(len(item.alt) > ALT_LIMIT for item in draft.media):
            raise Invalid(f"An alt text has {ALT_LIMIT} characters at most")
        if draft.reply_to is not None and not draft.reply_to.isdigit():
            raise Invalid(f"{draft.reply_to!r} is no post id")

    # ── media addresses and allowance ────────────────────────────────────────────────────────────────────────────

    def signed_query(self, file: str) -> str:
        """`oe=<hex expiry>&oh=<hex mac>` for a stored file, as on Meta's CDN."""
        expiry = format(int((self.now() + self.media_life).timestamp()), "X")
        return f"oh={self._mac(file, expiry)}&oe={expiry}"

    def signature_holds(self, file: str, expiry: str, mac: str) -> bool:
        """Signed by us, and not yet expired."""
        if not hmac.compare_digest(self._mac(file, expiry).encode(), mac.encode("utf-8", "replace")):
            return False
        return int(expiry, 16) > self.now().timestamp()

    def _mac(self, file: str, expiry: str) -> str:
        return hmac.new(self._secret, f"{file}?{expiry}".encode("utf-8", "replace"), "sha256").hexdigest()[:40]

    def count_call(self, person: Person) -> None:
        """One call more in the rolling window."""
        self._recent(person).append(self.now())

    def spent(self, person: Person) -> float:
        """Calls of the rolling window, in percent of the budget."""
        return 100 * len(self._recent(person)) / max(1, self.budget)

    def forget_calls(self) -> None:
        self._calls.clear()

    def _recent(self, person: Person) -> deque[datetime]:
        times = self._calls.setdefault(person.id, _Calls()).times
        while times and times[0] <= self.now() - self.window:
            times.popleft()
        return times


def newest_key(entry: Entry) -> tuple[datetime, int]:
    """Order of every list: by time, then by id."""
    return entry.created, int(entry.id)


def shortcode(id: str) -> str:
    """A post id in base 64, as in the addresses of posts."""
    number, code = int(id), ""
    while number:
        number, digit = divmod(number, 64)
        code = _ALPHABET[digit] + code
    return code


def id_of_shortcode(code: str) -> str:
    """The reverse of `shortcode`. Raises NotFound for characters outside the alphabet."""
    number = 0
    for character in code[:20]:
        digit = _ALPHABET.find(character)
        if digit < 0:
            raise NotFound(f"There is no post {code!r}")
        number = number * 64 + digit
    return str(number)


def poll_for_a_day(options: Sequence[str], now: datetime) -> Poll:
    """A new poll as Threads makes them: open for 24 hours, no votes yet."""
    return Poll(tuple(options), (0,) * len(options), now + 1440 * _MINUTE)
