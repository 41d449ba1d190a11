"""Who may speak here, read here and be spoken to: the one place that asks the rules.

Rule: it is asked before anything is stored, about everybody who takes part: who acts, whose object it is, and every
server that any of them names (Mastodon CVE-2026-23961: a suspended one's words came in through a boost and through
an Update). The operator's suspension is answered 403; an owner's is not announced to the one whom it is about, except
that a Follow is rejected, since somebody waits in front of a button (unless their whole server is suspended: nothing
goes there). What several accounts are named by is heard by those whose owners want it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog

from threadbridge.activitypub import incoming, outgoing, text
from threadbridge.activitypub.incoming import Activity
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import AccountState
from threadbridge.domain.blocks import FINE, Rule, Ruling, Somebody, Standing, by_words, handle_of, judge
from threadbridge.federation.heard import Heard, TurnedAway
from threadbridge.federation.react import our_post
from threadbridge.storage import accounts, blocks, decisions, peers, replies, seen
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

# An ending is heard from everybody whom the operator lets in: it can only take something away.
_ENDINGS = (incoming.UndoOf, incoming.Delete, incoming.Block)
_WRITTEN = (incoming.Create, incoming.Update, incoming.Request)
NAMED_MAX = 20
"""How many accounts here one post is a mention of, at most."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may have its effect, but for the accounts that are `closed` to it; what it leaves behind is hidden for those
    that are in `limited`. Both are (account, by which rule); None stands for an activity that is about no account."""

    limited: tuple[tuple[int | None, str], ...] = ()
    closed: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """It has no effect. `account_id` is the owner who does not want it; None: the operator does not."""

    reason: str
    account_id: int | None = None
    silently: bool = False
    """The sender is told nothing: a filter that answers is a filter that can be tried out."""


Admission = Admitted | Refused


def admit(tx: Tx, activity: Activity, heard: Heard) -> Admission:
    """Whether an activity may have its effect. The signature and who acts are checked already."""
    speaker = _speaker(tx, activity, heard)
    servers = _servers_named(activity, heard)
    named = [subject for server in servers for subject in Somebody(None, server).subjects()]
    rules = blocks.about(tx, [*speaker.subjects(), *named])
    _pin(tx, rules, speaker)
    ruling = judge(rules, speaker)
    if ruling.standing is Standing.SUSPENDED:
        return Refused(ruling.reason)
    for server in servers:
        found = judge(rules, Somebody(None, server))
        if found.standing is Standing.SUSPENDED:
            return Refused(found.reason)
    written = heard.note is not None and isinstance(activity, _WRITTEN) and blocks.any_keywords(tx)
    if isinstance(activity, _ENDINGS) or not (written or rules):
        return Admitted()
    return _by_owners(tx, activity, heard, speaker, rules)


def _by_owners(tx: Tx, activity: Activity, heard: Heard, speaker: Somebody, rules: list[Rule]) -> Admission:
    """What everybody says whom it is about: it is refused only if all of them refuse it."""
    words = text.plain(heard.note.html) if heard.note is not None and isinstance(activity, _WRITTEN) else ""
    asked = concerned(tx, activity, heard)
    # A changed text takes the place of the old one, and is hidden like that; what it brings anew is for others alone.
    edit = isinstance(activity, incoming.Update)
    limited: list[tuple[int | None, str]] = []
    closed: list[tuple[int, str]] = []
    judged: list[int | None] = [*asked] or [None]
    for account_id in judged:
        ruling = judge(rules, speaker, account_id)
        worded = by_words(blocks.keywords(tx, account_id), words) if words else FINE
        ruling = max(ruling, worded, key=lambda one: one.standing)
        if ruling.standing is Standing.SUSPENDED and account_id is not None:
            closed.append((account_id, ruling.reason))
        if ruling.standing is Standing.LIMITED or (ruling.standing is Standing.SUSPENDED and edit):
            limited.append((account_id, ruling.reason))
    if closed and len(closed) == len(asked) and not edit:
        return Refused(closed[0][1], closed[0][0], silently=True)
    return Admitted(tuple(limited), tuple(closed))


def narrowed(tx: Tx, kind: str, heard: Heard, admitted: Admitted) -> Heard:
    """What was heard, as the verbs get it: with the accounts that do not want it, whose owners can read so, and those
    for which it is hidden."""
    if not admitted.closed and not admitted.limited:
        return heard
    hidden = {account_id for account_id, _ in admitted.limited}
    for account_id, reason in admitted.closed:
        if account_id in hidden:
            continue
        log.info("turned away", door=kind, reason=reason, actor=heard.peer.uri, account=account_id, silently=True)
        decisions.write_once(
            tx, kind, reason, subject=heard.peer.uri, host=host_of(heard.peer.uri), account_id=account_id
        )
    return replace(
        heard,
        closed=frozenset(account_id for account_id, _ in admitted.closed),
        limited=frozenset(account_id for account_id, _ in admitted.limited if account_id is not None),
    )


def _speaker(tx: Tx, activity: Activity, heard: Heard) -> Somebody:
    """Who speaks; whoever changes their name is still who they were when they said so."""
    peer = heard.peer
    renames = isinstance(activity, incoming.Update) and activity.object_id == activity.actor
    former = peers.handle_of(tx, peer.uri) if renames else ""
    return Somebody(peer.uri, host_of(peer.uri), peer.handle, former if former != peer.handle else "")


def _pin(tx: Tx, rules: list[Rule], speaker: Somebody) -> None:
    """Write down who it is that a rule about a handle names, now that they have spoken."""
    handles = {handle_of(handle) for handle in (speaker.handle, speaker.former) if handle}
    for subject in {rule.subject for rule in rules if rule.subject in handles and rule.actor is None}:
        blocks.pin(tx, subject, speaker.uri or "")


def turned_away(tx: Tx, kind: str, activity: Activity, heard: Heard, refused: Refused) -> TurnedAway:
    """Write down that something was refused, and answer a Follow, since somebody waits in front of a button."""
    seen.count_dropped(tx, kind, refused.reason)
    if refused.account_id is not None:
        decisions.write_once(
            tx, kind, refused.reason, subject=heard.peer.uri, host=host_of(heard.peer.uri),
            account_id=refused.account_id,
        )  # fmt: skip
        if isinstance(activity, incoming.Follow):
            said = outgoing.follow_said(activity.id, activity.actor, activity.object)
            rejecting = heard.ids.reject(refused.account_id, activity.id, tx.now)
            outbox.answer(
                tx, refused.account_id, outgoing.reject(heard.ids, refused.account_id, rejecting, said),
                heard.peer.inbox, about=outbox.relation(heard.ids, refused.account_id, activity.actor),
            )  # fmt: skip
    return TurnedAway(refused.reason, refused.silently)


def _servers_named(activity: Activity, heard: Heard) -> list[str]:
    """Every server that an activity comes from, answers to or is made of, but for the speaker's own; ours is none."""
    peer, note = heard.peer, heard.note
    uris = [activity.id, activity.actor, peer.key_id, peer.inbox, peer.shared_inbox]
    if not isinstance(activity, incoming.UndoOf):
        uris += [getattr(activity, "object", None), getattr(activity, "object_id", None)]
    uris += [getattr(activity, "target", None)]
    if note is not None:
        uris += [note.uri, note.author]
    own = {host_of(peer.uri), host_of(heard.ids.base)}
    hosts = dict.fromkeys(host_of(uri) for uri in uris if isinstance(uri, str))
    return [host for host in hosts if host and host not in own]


def concerned(tx: Tx, activity: Activity, heard: Heard) -> list[int]:
    """The accounts of ours that an activity is about: whose post it acts on, answers or quotes, and everybody whom it
    names."""
    note = heard.note
    about = [getattr(activity, "object", None), getattr(activity, "object_id", None)]
    alone = not isinstance(activity, incoming.Create | incoming.Update) or note is None
    if not alone:
        about += [note.in_reply_to, note.quotes] if note is not None else []
    found = [account_id for uri in about if isinstance(uri, str) for account_id in _owner(tx, heard, uri)]
    if not alone:
        found += named_here(tx, heard)
    return list(dict.fromkeys(found))


def _owner(tx: Tx, heard: Heard, uri: str) -> list[int]:
    account_id = heard.ids.account_id(uri)
    if account_id is not None:
        account = accounts.by_id(tx, account_id)
        return [account_id] if account is not None and account.state is not AccountState.GONE else []
    place = our_post(tx, heard.ids, uri) if heard.ids.is_ours(uri) else replies.target(tx, uri)
    return [place[0]] if place is not None else []


def named_here(tx: Tx, heard: Heard) -> list[int]:
    """The accounts here that a post is addressed to or mentions, the first `NAMED_MAX`."""
    found: list[int] = []
    for uri in heard.note.named if heard.note is not None else ():
        number = heard.ids.account_id(uri)
        if number is None or number in found:
            continue
        account = accounts.by_id(tx, number)
        if account is not None and account.state is not AccountState.GONE:
            found.append(number)
        if len(found) == NAMED_MAX:
            break
    return found


# ── asked by others ──────────────────────────────────────────────────────────────────────────────────────────────


def may_read(tx: Tx, actor_uri: str, account_id: int | None = None, handle: str = "") -> bool:
    """Whether somebody who signed a GET may read here; with `account_id`, whether they may read what is this
    owner's. `handle` is theirs where it is at hand; we may have met them too."""
    return ruling_about(tx, actor_uri, account_id, handle).standing is not Standing.SUSPENDED


def refusal_of(tx: Tx, *uris: str, account_id: int | None = None) -> str | None:
    """Why somebody with one of these ids (actors, keys, objects) is not heard here at all, or not wanted by this
    owner, before anything is fetched; None if they may be."""
    for uri in uris:
        ruling = ruling_about(tx, uri.partition("#")[0], account_id)
        if ruling.standing is Standing.SUSPENDED:
            return ruling.reason
    return None


def ruling_about(tx: Tx, actor_uri: str, account_id: int | None = None, handle: str = "") -> Ruling:
    """What the operator's rules, and those of one owner, say about somebody: by their id, their server, the handle
    that is at hand and the one by which we know them."""
    somebody = Somebody(actor_uri, host_of(actor_uri), handle, peers.handle_of(tx, actor_uri))
    return judge(blocks.about(tx, somebody.subjects()), somebody, account_id)


def ruling_on_words(tx: Tx, html: str, account_id: int) -> Ruling:
    """What the rules about words say of a text that is (about) an account's."""
    worded = blocks.keywords(tx, account_id)
    return by_words(worded, text.plain(html)) if worded else FINE
