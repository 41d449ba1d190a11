"""Quotes, in both directions (FEP-044f and the older ways).

    requested      somebody asks whether their post may quote one of ours      -> Accept with a stamp, Reject, or wait
    noticed        a post arrives that quotes one of ours
    undone, ended  the quote, or the quoting post, is gone
    let, refuse, revoke                the owner decides
    of_ours        a post of an account here quotes a post of an account here
    answered, withdrawn                somebody answers our own request, or takes a stamp back

Rule: an authorization is an address that answers while it holds and 410 ever after. What others grant us is believed
only after it was looked up at its origin (`quoting.check`).
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from threadbridge.activitypub import document, incoming, outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.incoming import same_origin
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import outbox
from threadbridge.domain.accounts import AccountState
from threadbridge.domain.people import Quote, QuoteState
from threadbridge.errors import Conflict, NotFound
from threadbridge.federation import admission, letting
from threadbridge.federation.heard import Heard, PreparedNote
from threadbridge.federation.letting import Ask, Let, Refuse
from threadbridge.federation.react import our_post
from threadbridge.storage import accounts, decisions, jobs, peers, posts, quotes, seen
from threadbridge.storage.quotes import Quoting
from threadbridge.storage.store import Tx

log = structlog.get_logger(__name__)

UNDECIDED_PER_SERVER = 200
"""More quotes by one server's people, that wait for an owner or came within a day without asking, are not kept."""
LATELY = timedelta(days=1)
TOO_MANY = "too many quotes from one server"
CHECK_STAMP = "check_stamp"
"""The kind of job that looks up an authorization which others say they gave us."""


# ── others quote us ──────────────────────────────────────────────────────────────────────────────────────────────


def requested(tx: Tx, activity: incoming.Request, heard: Heard) -> str | None:
    """Answer a QuoteRequest, and again when it is asked again: the first answer may have been lost."""
    found = our_post(tx, heard.ids, activity.object)
    if found is None:
        return "about no post of ours"
    account_id, post_id = found
    if seen.heard_of(tx, activity.instrument, activity.actor):
        return "deleted before it came"
    held = quotes.by_uri(tx, activity.instrument)
    if held is not None and (held.post_id, held.peer_uri) != (post_id, activity.actor):
        return "quotes something else already"
    # Any spelling of the post's address is understood; what is said and stamped is its id.
    said = outgoing.request_said(activity.kind, activity.id, activity.actor, activity.object, activity.instrument)
    if held is not None and held.state != "unasked":
        return _answer_again(tx, heard, held, said)
    allowed = letting.quoting(tx, account_id, post_id, activity.actor)
    if account_id in heard.limited and isinstance(allowed, Let):
        # Nothing is granted by itself to somebody who is limited: the owner is asked.
        allowed = Ask()
    state: QuoteState = (
        "accepted" if isinstance(allowed, Let) else "waiting" if isinstance(allowed, Ask) else "refused"
    )
    if isinstance(allowed, Refuse):
        _refused(tx, account_id, activity.instrument, activity.actor, allowed.reason)
        _say_no(tx, heard.ids, account_id, activity.instrument, said, heard.peer.inbox)
        return allowed.reason
    if state == "waiting" and held is None and _too_many(tx, heard.peer.uri):
        return TOO_MANY
    number = _keep(tx, account_id, post_id, activity.instrument, heard, state, request_uri=activity.id, held=held)
    if isinstance(allowed, Let):
        _say_yes(tx, heard.ids, account_id, number, activity.instrument, said, heard.peer.inbox)
    return None


def _answer_again(tx: Tx, heard: Heard, held: Quote, said: outgoing.Document) -> str | None:
    quotes.change(tx, held, request_uri=document.id_of(said))
    if held.stamped:
        _say_yes(tx, heard.ids, held.account_id, held.id, held.uri, said, heard.peer.inbox)
    elif held.state in ("refused", "revoked") or held.ended_at is not None:
        _say_no(tx, heard.ids, held.account_id, held.uri, said, heard.peer.inbox)
        return "refused before"
    return None


def noticed(tx: Tx, note: PreparedNote, heard: Heard) -> str | None:
    """Take notice of a post that quotes one of ours, of its new text, or that it quotes us no more."""
    held = quotes.by_uri(tx, note.uri)
    found = our_post(tx, heard.ids, note.quotes) if note.quotes else None
    if held is not None and held.peer_uri == note.author:
        if found is None or found[1] != held.post_id:
            quotes.end(tx, held)
        elif held.ended_at is None:
            quotes.change(tx, held, html=note.html, url=note.url, public=note.public)
        return None
    if found is None or held is not None:
        return "quotes nothing of ours"
    if seen.heard_of(tx, note.uri, note.author):
        return "deleted before it came"
    account_id, post_id = found
    if account_id in heard.closed:
        return "not wanted by whom it quotes"
    allowed = letting.quoting(tx, account_id, post_id, note.author)
    if isinstance(allowed, Refuse):
        # Whoever does not ask cannot be told; but what nobody allowed is not shown here either.
        _refused(tx, account_id, note.uri, note.author, allowed.reason)
        return allowed.reason
    if _too_many(tx, note.author):
        return TOO_MANY
    state: QuoteState = "waiting" if isinstance(allowed, Ask) else "unasked"
    _keep(tx, account_id, post_id, note.uri, heard, state)
    return None


def _keep(
    tx: Tx,
    account_id: int,
    post_id: int,
    uri: str,
    heard: Heard,
    state: QuoteState,
    *,
    request_uri: str | None = None,
    held: Quote | None = None,
) -> int:
    if held is not None:
        quotes.change(tx, held, state=state, request_uri=request_uri)
        return held.id
    note = heard.note
    return quotes.record(
        tx,
        account_id,
        post_id,
        uri=uri,
        state=state,
        peer_uri=heard.peer.uri,
        request_uri=request_uri,
        url=note.url if note else None,
        html=note.html if note else "",
        public=note.public if note else True,
    )


def _too_many(tx: Tx, peer_uri: str) -> bool:
    return quotes.undecided_from(tx, host_of(peer_uri), tx.now - LATELY) >= UNDECIDED_PER_SERVER


def _refused(tx: Tx, account_id: int, uri: str, peer_uri: str, reason: str) -> None:
    log.info("a quote was refused", account=account_id, quote=uri, actor=peer_uri, reason=reason)
    decisions.write(tx, "quote", reason, subject=uri, host=host_of(peer_uri), account_id=account_id)


def _say_yes(
    tx: Tx, ids: Ids, account_id: int, number: int, uri: str, said: outgoing.Document, inbox: str
) -> None:  # fmt: skip
    stamp, about = ids.quote_stamp(account_id, number), outbox.relation(ids, account_id, uri)
    outbox.answer(tx, account_id, outgoing.accept_request(ids, account_id, said, stamp, tx.now), inbox, about=about)


def _say_no(tx: Tx, ids: Ids, account_id: int, uri: str, said: outgoing.Document, inbox: str) -> None:
    about = outbox.relation(ids, account_id, uri)
    outbox.answer(tx, account_id, outgoing.reject_request(ids, account_id, said, tx.now), inbox, about=about)


def undone(tx: Tx, activity: incoming.UndoOf, heard: Heard) -> str | None:
    """A QuoteRequest is taken back."""
    held = quotes.by_request(tx, activity.inner_id, activity.actor) if activity.inner_id else None
    if held is None or not quotes.end(tx, held):
        return "undoes nothing we know"
    return None


def ended(tx: Tx, uri: str, peer_uri: str) -> bool:
    """The quoting post was deleted by its author; False if there is none."""
    held = quotes.by_uri(tx, uri)
    return held is not None and held.peer_uri == peer_uri and quotes.end(tx, held)


# ── the owner decides ────────────────────────────────────────────────────────────────────────────────────────────


def _owned(tx: Tx, account_id: int, number: int) -> Quote:
    held = quotes.by_id(tx, account_id, number)
    if held is None or held.ended_at is not None:
        raise NotFound("There is no such quote of your posts")
    return held


def let(tx: Tx, ids: Ids, account_id: int, number: int) -> None:
    """The owner lets a post quote theirs. Raises NotFound, Conflict."""
    held = _owned(tx, account_id, number)
    if held.state == "accepted":
        return
    if held.peer_uri is not None and (refusal := admission.refusal_of(tx, held.peer_uri, account_id=account_id)):
        raise Conflict(f"This quote cannot be allowed: {refusal}", hint="Lift the rule first.")
    if held.state == "revoked":
        # Its address has said 410, and others remember that.
        raise Conflict(
            "You took this quote back; that cannot be undone",
            hint="Whoever quotes can ask again with a new post; let that one.",
        )
    quotes.change(tx, held, state="accepted")
    peer = peers.by_uri(tx, held.peer_uri) if held.peer_uri else None
    if peer is not None and held.request_uri is not None:
        said = outgoing.quote_request_said(held.request_uri, peer.uri, ids.post(account_id, held.post_id), held.uri)
        _say_yes(tx, ids, account_id, held.id, held.uri, said, peer.inbox)
    _tell_own(tx, ids, held)


def refuse(tx: Tx, ids: Ids, account_id: int, number: int) -> None:
    """The owner does not let a waiting post quote theirs. Raises NotFound, Conflict."""
    held = _owned(tx, account_id, number)
    if held.state == "refused":
        return
    if held.state not in ("waiting", "unasked"):
        raise Conflict("This quote was decided already", hint="A quote that was allowed can be taken back.")
    quotes.change(tx, held, state="refused")
    peer = peers.by_uri(tx, held.peer_uri) if held.peer_uri else None
    if peer is not None and held.request_uri is not None:
        said = outgoing.quote_request_said(held.request_uri, peer.uri, ids.post(account_id, held.post_id), held.uri)
        _say_no(tx, ids, account_id, held.uri, said, peer.inbox)


def revoke(tx: Tx, ids: Ids, account_id: int, number: int) -> None:
    """The owner takes a quote back: its stamp is gone, and everybody who has the post is told. Raises NotFound."""
    held = _owned(tx, account_id, number)
    if held.state == "revoked":
        return
    if held.state != "accepted":
        refuse(tx, ids, account_id, number)
        return
    quotes.change(tx, held, state="revoked")
    # At once, not with the next look of the watcher: its address must say so before anybody is told to look.
    accounts.touch(tx, account_id)
    outbox.take_back_quote(tx, ids, account_id, held.post_id, held.id)
    _tell_own(tx, ids, held)


def _tell_own(tx: Tx, ids: Ids, held: Quote) -> None:
    """If the quoting post is of an account here, its document changes with what was decided."""
    numbers = ids.post_ids(held.uri) if held.by_post_id is not None else None
    account = accounts.by_id(tx, numbers[0]) if numbers else None
    if numbers is None or account is None or not posts.is_live(tx, *numbers):
        return
    accounts.touch(tx, account.id)
    if account.state is AccountState.ACTIVE:
        outbox.refresh(tx, ids, account, numbers[1])


# ── we quote others ──────────────────────────────────────────────────────────────────────────────────────────────


def of_ours(tx: Tx, ids: Ids, account_id: int, post_id: int, quoted_id: int) -> None:
    """A post of an account here quotes one of another account here: the same rules, decided at once."""
    owner = posts.owner(tx, quoted_id)
    uri = ids.post(account_id, post_id)
    if owner is None or owner == account_id or quotes.by_uri(tx, uri) is not None:
        return
    allowed = letting.quoting(tx, owner, quoted_id, None)
    state: QuoteState = (
        "accepted" if isinstance(allowed, Let) else "waiting" if isinstance(allowed, Ask) else "refused"
    )
    if isinstance(allowed, Refuse):
        _refused(tx, owner, uri, ids.actor(account_id), allowed.reason)
    account = accounts.by_id(tx, account_id)
    url = ids.page(account.handle, post_id) if account else None
    quotes.record(tx, owner, quoted_id, uri=uri, by_post_id=post_id, state=state, url=url)


def original_gone(tx: Tx, ids: Ids, post_id: int) -> None:
    """A post of ours was deleted: what quotes it here is said without it. (Its stamps answer 410 from now on.)"""
    for held in quotes.of_post(tx, post_id):
        if held.by_post_id is not None:
            _tell_own(tx, ids, held)
    for held in quotes.made_by(tx, post_id):
        quotes.end(tx, held)


def answered(tx: Tx, activity: incoming.Answer, heard: Heard) -> str | None:
    """The author of what a post of ours quotes lets us, or does not."""
    asked = quotes.quoting(tx, request_uri=activity.object)
    if asked is None:
        return "answers nothing that we asked"
    if asked.author != activity.actor:
        return "answered by somebody else than was asked"
    if not activity.accepted:
        return None if _settle(tx, heard.ids, asked, "refused") else "refused before"
    if activity.result is None or not same_origin(activity.result, asked.author):
        log.info("a quote was allowed without a stamp", post=asked.post_id, actor=activity.actor)
        return "allows without an authorization of its own"
    jobs.add(tx, CHECK_STAMP, str(asked.post_id), {"post": asked.post_id, "stamp": activity.result})
    return None


def withdrawn(tx: Tx, uri: str, peer_uri: str, ids: Ids) -> bool:
    """An author takes the authorization of a quote of ours back; False if it is none."""
    asked = quotes.quoting(tx, stamp=uri)
    return asked is not None and asked.author == peer_uri and _settle(tx, ids, asked, "revoked")


def _settle(tx: Tx, ids: Ids, asked: Quoting, state: quotes.QuotingState, stamp: str | None = None) -> bool:
    if not quotes.settle(tx, asked.post_id, state, stamp):
        return False
    shows = asked.state == "accepted" or state == "accepted"
    owner = posts.owner(tx, asked.post_id) if shows else None
    account = accounts.by_id(tx, owner) if owner is not None else None
    if account is not None and posts.is_live(tx, account.id, asked.post_id):
        accounts.touch(tx, account.id)
        if account.state is AccountState.ACTIVE:
            outbox.refresh(tx, ids, account, asked.post_id)
    return True


def stamped(tx: Tx, ids: Ids, post_id: int, stamp: str) -> bool:
    """The stamp was looked up and holds: it is shown from now on."""
    asked = quotes.quotings(tx, [post_id]).get(post_id)
    return asked is not None and asked.state != "revoked" and _settle(tx, ids, asked, "accepted", stamp)


def not_stamped(tx: Tx, ids: Ids, post_id: int) -> bool:
    """The stamp was looked up and does not hold: nothing is shown, also where another one was shown before."""
    asked = quotes.quotings(tx, [post_id]).get(post_id)
    return asked is not None and asked.state != "revoked" and _settle(tx, ids, asked, "refused")
