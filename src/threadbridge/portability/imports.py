"""Importing a data download: an account's whole history, brought here without waking anybody.

    with open_download(paths) as download:
        summary = import_download(store, media, vault, download, handle=None, dry_run=False, …)

Rule: an import is silent (posts are marked as history and never delivered), backdated, and can be repeated: every
post is written once, under the id that its download gives it. Batches are committed one by one, media before the
posts that show them, so that an import that was killed goes on where it stopped. A rehearsal (`dry_run`) takes the
same way and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from threadbridge.domain.accounts import Account, AccountState, check_handle, handle_from_source
from threadbridge.domain.posts import fingerprint
from threadbridge.domain.source import SourceMedia, SourcePost, SourceProfile
from threadbridge.errors import BadDownload, Conflict, MediaRefused
from threadbridge.media.sniff import kind_of
from threadbridge.media.store import MediaStore
from threadbridge.sources import language
from threadbridge.sources.threads_download import Download
from threadbridge.sources.threads_shapes import Skipped
from threadbridge.storage import accounts, contacts, content, posts
from threadbridge.storage import held as not_left
from threadbridge.storage.posts import MediaRow, NewAttachment
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import NewKey, Vault

SOURCE = "threads_download"
BATCH = 200
NOT_INCLUDED = "not in the download"
COUNTRY_GATED = "only visible in some countries"
KEPT_BACK = "held, or not to be shared"
CONSENT = (
    "Imported from the account's own Threads data download, which its holder gave to the operator of this server: "
    "the history becomes public in the Fediverse under this handle."
)
_MAX_NAMED = 50

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is: entries of the download looked at, of how many."""

    done: int
    total: int
    posts_new: int
    media_found: int


@dataclass(slots=True)
class ImportSummary:
    """What an import did, or in a rehearsal would do. Posts and replies are counted apart."""

    handle: str
    dry_run: bool
    account_id: int | None = None
    """None only in a rehearsal for an account that does not exist yet."""
    created: bool = False
    posts_new: int = 0
    posts_known: int = 0
    replies_new: int = 0
    replies_known: int = 0
    media_found: int = 0
    media_missing: int = 0
    media_refused: Counter[str] = field(default_factory=Counter)
    """Media files that are there but cannot be served, by the words of the refusal."""
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_where: list[str] = field(default_factory=list)
    """The first of the skipped entries, for people to look at."""
    unsafe: list[tuple[str, str]] = field(default_factory=list)
    """Members of the archive that were left out because they cannot be trusted, with the reason."""
    contacts_new: Counter[str] = field(default_factory=Counter)
    contacts_known: Counter[str] = field(default_factory=Counter)


def import_download(
    store: Store,
    media: MediaStore,
    vault: Vault,
    download: Download,
    *,
    handle: str | None,
    dry_run: bool,
    new_key: Callable[[], NewKey],
    on_progress: Callable[[ImportProgress], None],
) -> ImportSummary:
    """Import an opened download into the account that it belongs to, which is created if it does not exist.

    `handle` overrides the source's user name. Blocks, for minutes with large downloads: call it in a thread. Raises
    Invalid (handle), BadDownload, Conflict (the account was deleted), DiskFull, Unavailable; batches committed
    before an error stay, and the same call again goes on behind them.
    """
    profile = download.profile()
    wanted = _wanted_handle(profile, handle)
    summary = ImportSummary(handle=wanted, dry_run=dry_run, unsafe=download.unsafe)
    with ThreadPoolExecutor(media.children, thread_name_prefix="import-media") as threads:
        intake = _Intake(media, download, threads, keep=not dry_run)
        account = _account(store, vault, intake, wanted, profile, summary, new_key)
        run = _Run(store, account.id if account else None, intake, summary)
        done = 0
        for batch in _batches(download.posts(), BATCH):
            run.posts(batch)
            done += len(batch)
            on_progress(ImportProgress(done, download.total_hint, _new(summary), summary.media_found))
        for people in _batches(download.contacts(), BATCH * 5):
            run.contacts(people)
    return summary


def _new(summary: ImportSummary) -> int:
    return summary.posts_new + summary.replies_new


def _wanted_handle(profile: SourceProfile | None, handle: str | None) -> str:
    if handle is not None:
        return check_handle(handle.strip().removeprefix("@"))
    if profile is None:
        raise BadDownload(
            "The download does not say whose it is",
            detail="it has no personal_information.json with a user name",
            hint="Name the account with --handle.",
        )
    return handle_from_source(profile.handle)


# ── the account ──────────────────────────────────────────────────────────────────────────────────────────────────


def _account(
    store: Store,
    vault: Vault,
    intake: _Intake,
    handle: str,
    profile: SourceProfile | None,
    summary: ImportSummary,
    new_key: Callable[[], NewKey],
) -> Account | None:
    """The account by this handle, made (or its blanks filled) from the profile; None in a rehearsal without one."""
    held = store.read_now(accounts.by_handle, handle)
    if held is not None and held.state is AccountState.GONE:
        raise Conflict(
            f"The account {handle!r} was deleted for good", hint="Import under another handle with --handle."
        )
    avatar = None
    if profile is not None and profile.avatar is not None and (held is None or held.avatar is None):
        outcome = intake.take([profile.avatar])[0]
        avatar = outcome if isinstance(outcome, MediaRow) and kind_of(outcome.media_type) == "image" else None
    summary.created = held is None
    summary.account_id = held.id if held else None
    if summary.dry_run:
        return held
    key = new_key() if held is None else None
    account = store.transact_now(_open_account, vault, key, handle, profile, avatar)
    summary.account_id = account.id
    return account


def _open_account(
    tx: Tx, vault: Vault, key: NewKey | None, handle: str, profile: SourceProfile | None, avatar: MediaRow | None
) -> Account:
    held = accounts.by_handle(tx, handle)
    if held is None:
        if key is None:
            raise Conflict(f"The account {handle!r} went away during the import")
        held = accounts.create(
            tx,
            vault,
            key,
            handle=handle,
            name=(profile.name if profile else "") or handle,
            bio=profile.bio if profile else "",
            source_url=profile.url if profile else None,
            joined_at=profile.joined if profile else None,
            consent_kind="download",
            consent_wording=CONSENT,
        )
    if avatar is not None:
        posts.add_media(tx, avatar)
    # A connected account's profile is fresher than any download: only blanks are filled.
    accounts.update_profile(
        tx,
        held.id,
        bio=profile.bio or None if profile and not held.bio else None,
        source_url=profile.url if profile and held.source_url is None else None,
        avatar=avatar.sha256 if avatar and held.avatar is None else None,
    )
    return held


# ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────

Outcome = MediaRow | MediaRefused | None
"""A medium: stored, refused with words, or not in the download."""


class _Intake:
    """Brings media from a download into the store, a few at a time."""

    def __init__(self, media: MediaStore, download: Download, threads: ThreadPoolExecutor, *, keep: bool) -> None:
        self._take_in = media.ingest_stream if keep else media.examine_stream
        self._download = download
        self._threads = threads

    def take(self, wanted: Sequence[SourceMedia]) -> list[Outcome]:
        """One outcome per medium, in order. Raises DiskFull and Unavailable, then with nothing left running."""
        waiting: list[Future[Outcome]] = [self._threads.submit(self._one, item) for item in wanted]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            for future in waiting:
                future.cancel()
            raise

    def _one(self, item: SourceMedia) -> Outcome:
        try:
            stream = self._download.open_media(item.member) if item.member else None
            if stream is None:
                return None
            with stream:
                return self._take_in(stream, kind_hint=item.kind)
        except MediaRefused as refusal:
            return refusal
        except BadDownload as error:
            return MediaRefused("The file is damaged inside the archive", detail=str(error))


# ── posts ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Ready:
    """A post with everything that its transaction needs."""

    post: SourcePost
    language: str | None
    attachments: tuple[NewAttachment, ...]
    media: tuple[MediaRow, ...]


class _Run:
    """One import under way."""

    def __init__(self, store: Store, account_id: int | None, intake: _Intake, summary: ImportSummary) -> None:
        self._store = store
        self._account_id = account_id
        self._intake = intake
        self._summary = summary
        self._claimed: set[int] = set()

    def posts(self, batch: Sequence[SourcePost | Skipped]) -> None:
        """Bring in one batch, in one transaction."""
        fresh: list[SourcePost] = []
        for entry in batch:
            if isinstance(entry, Skipped):
                self._skip(entry)
            elif entry.country_gated:
                self._skip(Skipped(COUNTRY_GATED, f"the post of {entry.published:%Y-%m-%d %H:%M:%S}"))
            else:
                fresh.append(entry)
        kept_back = self._kept_back(fresh)
        for post in fresh:
            if post.native_id in kept_back:
                self._skip(Skipped(KEPT_BACK, f"the post of {post.published:%Y-%m-%d %H:%M:%S}"))
        fresh = [post for post in fresh if post.native_id not in kept_back]
        held, twins, gaps = self._known(fresh)
        new = [post for post in fresh if post.native_id not in held and post.native_id not in twins]
        ready, outcomes = self._ready(new)
        filled = self._filled(gaps)
        added = {post.native_id for post in new}
        if self._account_id is not None and not self._summary.dry_run and (ready or twins or filled):
            claimed = [(post, twins[post.native_id]) for post in fresh if post.native_id in twins]
            added = self._store.transact_now(_write, self._account_id, ready, claimed, filled)
        for post in fresh:
            self._count(post, new=post.native_id in added)
        for native_id, found in outcomes.items():
            if native_id in added:
                self._count_media(found)
        self._summary.media_found += len(filled)

    def contacts(self, people: Sequence[contacts.Contact]) -> None:
        account_id = self._account_id
        if account_id is None:
            new = list({(person.relation, person.username): person for person in people}.values())
        else:
            new = self._store.read_now(contacts.unknown, account_id, people)
            if not self._summary.dry_run and new:
                self._store.transact_now(contacts.add, account_id, new)
        self._summary.contacts_new.update(person.relation for person in new)
        self._summary.contacts_known.update(person.relation for person in people)
        self._summary.contacts_known.subtract(person.relation for person in new)

    def _kept_back(self, fresh: Sequence[SourcePost]) -> set[str]:
        """Those that their owner holds, or chose not to share: a download does not bring them out."""
        if self._account_id is None:
            return set()
        with self._store.snapshot() as tx:
            if not not_left.anything(tx, self._account_id):
                return set()
            return {post.native_id for post in fresh if not_left.told_already(tx, self._account_id, post)}

    def _known(self, fresh: Sequence[SourcePost]) -> tuple[set[str], dict[str, int], list[content.Gap]]:
        """Native ids held already; posts held from another source (native id to post id); and attachments of held
        posts that still wait for their file. None of these needs its media read (again)."""
        if self._account_id is None or not fresh:
            return set(), {}, []
        twins: dict[str, int] = {}
        with self._store.snapshot() as tx:
            held = posts.origins(tx, self._account_id, SOURCE, [post.native_id for post in fresh])
            gaps = content.gaps(tx, [origin.post_id for origin in held.values()], NOT_INCLUDED)
            if content.known_elsewhere(tx, self._account_id, SOURCE):
                for post in fresh:
                    if post.native_id in held:
                        continue
                    twin = content.twin(tx, self._account_id, SOURCE, post, self._claimed)
                    if twin is not None:
                        self._claimed.add(twin)
                        twins[post.native_id] = twin
        return set(held), twins, gaps

    def _ready(self, new: Sequence[SourcePost]) -> tuple[list[_Ready], dict[str, list[Outcome]]]:
        """Take in the media of new posts: what is to be written, and what became of each medium by native id."""
        taken = iter(self._intake.take([item for post in new for item in post.media]))
        ready: list[_Ready] = []
        outcomes: dict[str, list[Outcome]] = {}
        for post in new:
            found = outcomes[post.native_id] = list(islice(taken, len(post.media)))
            ready.append(
                _Ready(
                    post,
                    language.of(post),
                    tuple(_attachment(item, outcome) for item, outcome in zip(post.media, found, strict=True)),
                    tuple(outcome for outcome in found if isinstance(outcome, MediaRow)),
                )
            )
        return ready, outcomes

    def _filled(self, gaps: Sequence[content.Gap]) -> list[tuple[content.Gap, MediaRow]]:
        """Files that an earlier import missed and this download has (one of several numbered ZIPs came later)."""
        wanted = [SourceMedia(gap.kind, gap.source_key, member=gap.source_key) for gap in gaps]
        pairs = zip(gaps, self._intake.take(wanted), strict=True)
        return [(gap, outcome) for gap, outcome in pairs if isinstance(outcome, MediaRow)]

    def _skip(self, entry: Skipped) -> None:
        self._summary.skipped[entry.reason] += 1
        if len(self._summary.skipped_where) < _MAX_NAMED:
            self._summary.skipped_where.append(f"{entry.where}: {entry.reason}")

    def _count(self, post: SourcePost, *, new: bool) -> None:
        if post.kind == "reply":
            self._summary.replies_new += new
            self._summary.replies_known += not new
        else:
            self._summary.posts_new += new
            self._summary.posts_known += not new

    def _count_media(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, MediaRow):
                self._summary.media_found += 1
            elif outcome is None:
                self._summary.media_missing += 1
            else:
                self._summary.media_refused[outcome.public] += 1


def _attachment(item: SourceMedia, outcome: Outcome) -> NewAttachment:
    if isinstance(outcome, MediaRow):
        return NewAttachment(kind_of(outcome.media_type), item.alt, item.key, sha256=outcome.sha256)
    missing = NOT_INCLUDED if outcome is None else outcome.public
    return NewAttachment(item.kind, item.alt, item.key, missing=missing)


def _write(
    tx: Tx,
    account_id: int,
    ready: Sequence[_Ready],
    twins: Sequence[tuple[SourcePost, int]],
    filled: Sequence[tuple[content.Gap, MediaRow]],
) -> set[str]:
    """Write one batch; returns the native ids that became posts. Looks again, since another import or a poll may
    have been here since the batch was read."""
    wanted = [*(item.post.native_id for item in ready), *(post.native_id for post, _ in twins)]
    held = posts.origins(tx, account_id, SOURCE, wanted)
    elsewhere = content.known_elsewhere(tx, account_id, SOURCE)
    added: set[str] = set()
    for post, post_id in twins:
        if post.native_id not in held:
            posts.add_origin(tx, account_id, SOURCE, post.native_id, post_id, fingerprint(post))
    for item in ready:
        post = item.post
        if post.native_id in held:
            continue
        twin = content.twin(tx, account_id, SOURCE, post) if elsewhere else None
        if twin is None:
            for row in item.media:
                posts.add_media(tx, row)
            columns = content.content_of(post, parent_id=None, quoted_id=None, language=item.language)
            twin = posts.add(tx, account_id, columns, item.attachments, silent=True)
            added.add(post.native_id)
        posts.add_origin(tx, account_id, SOURCE, post.native_id, twin, fingerprint(post))
    for gap, row in filled:
        posts.add_media(tx, row)
        content.fill_gap(tx, gap, row.sha256, kind_of(row.media_type))
    if added or filled:
        accounts.touch(tx, account_id)
    return added


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch
