"""Who may speak here, read here and be spoken to: the one place that asks the rules.

Rule: it is asked before anything is stored, about everybody who takes part: who acts, whose object it is, and every
server that any of them names (Mastodon CVE-2026-23961: a suspended one's words came in through a boost and through
an Update). The operator's suspension is answered 403; an owner's is not announced to the one whom it is about, except
that a Follow is rejected, since somebody waits in front of a button.
"""

from __future__ import annotations

from dataclasses import dataclass

from threadbridge.activitypub import incoming, outgoing, text
from threadbridge.activitypub.incoming import Activity
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import outbox
from threadbridge.domain.blocks import Ruling, Somebody, Standing, by_words, judge
from threadbridge.federation.heard import Heard, TurnedAway
from threadbridge.federation.react import our_post
from threadbridge.storage import blocks, decisions, replies, seen
from threadbridge.storage.store import Tx

# An ending is heard from everybody whom the operator lets in: it can only take something away.
_ENDINGS = (incoming.UndoOf, incoming.Delete, incoming.Block, incoming.Update)


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may have its effect; what that leaves behind is hidden when `limited` says by which rule."""

    limited: str | None = None
    account_id: int | None = None


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
    speaker = _of_peer(heard)
    servers = _servers_named(activity, heard)
    named = [subject for server in servers for subject in Somebody(None, server).subjects()]
    rules = blocks.about(tx, [*speaker.subjects(), *named])
    ruling = judge(rules, speaker)
    if ruling.standing is Standing.SUSPENDED:
        return Refused(ruling.reason)
    for server in servers:
        found = judge(rules, Somebody(None, server))
        if found.standing is Standing.SUSPENDED:
            return Refused(found.reason)
    written = heard.note is not None and isinstance(activity, incoming.Create | incoming.Update)
    if not written and not any(rule.account_id is not None for rule in rules):
        return _admitted(ruling, None)
    account_id = concerned(tx, activity, heard)
    ruling = judge(rules, speaker, account_id)
    if ruling.standing is Standing.SUSPENDED and not isinstance(activity, _ENDINGS):
        return Refused(ruling.reason, account_id, silently=True)
    if written and account_id is not None and heard.note is not None:
        worded = by_words(blocks.keywords(tx, account_id), text.plain(heard.note.html))
        if worded.standing is Standing.SUSPENDED and not isinstance(activity, _ENDINGS):
            return Refused(worded.reason, account_id, silently=True)
        ruling = max(ruling, worded, key=lambda one: one.standing)
    return _admitted(ruling, account_id)


def _admitted(ruling: Ruling, account_id: int | None) -> Admitted:
    return Admitted(ruling.reason if ruling.standing is not Standing.FINE else None, account_id)


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
                heard.peer.inbox,
            )  # fmt: skip
    return TurnedAway(refused.reason, refused.silently)


def _of_peer(heard: Heard) -> Somebody:
    return Somebody(heard.peer.uri, host_of(heard.peer.uri), heard.peer.handle)


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


def concerned(tx: Tx, activity: Activity, heard: Heard) -> int | None:
    """The account of ours that an activity is about; None if it is about none."""
    about = [getattr(activity, "object", None), getattr(activity, "object_id", None)]
    about += [heard.note.in_reply_to] if heard.note is not None else []
    for uri in about:
        if not isinstance(uri, str):
            continue
        account_id = heard.ids.account_id(uri)
        if account_id is not None:
            return account_id
        place = our_post(tx, heard.ids, uri) if heard.ids.is_ours(uri) else replies.target(tx, uri)
        if place is not None:
            return place[0]
    for uri in heard.note.named if heard.note is not None else ():
        account_id = heard.ids.account_id(uri)
        if account_id is not None:
            return account_id
    return None


# ── asked by others ──────────────────────────────────────────────────────────────────────────────────────────────


def may_read(tx: Tx, actor_uri: str, account_id: int | None = None) -> bool:
    """Whether somebody who signed a GET may read here; with `account_id`, whether they may read what is this
    owner's."""
    return ruling_about(tx, Somebody(actor_uri, host_of(actor_uri)), account_id).standing is not Standing.SUSPENDED


def refusal_of(tx: Tx, *uris: str) -> str | None:
    """Why somebody with one of these ids (actors, keys, objects) is not heard here at all, before anything is
    fetched; None if they may be."""
    for uri in uris:
        ruling = ruling_about(tx, Somebody(uri.partition("#")[0], host_of(uri)))
        if ruling.standing is Standing.SUSPENDED:
            return ruling.reason
    return None


def ruling_about(tx: Tx, somebody: Somebody, account_id: int | None = None) -> Ruling:
    """What the operator's rules, and those of one owner, say about somebody."""
    return judge(blocks.about(tx, somebody.subjects()), somebody, account_id)
