"""What a rule does to what is here already: it parks what it cuts, and gives it back when it is lifted.

    add_rules, lift_rule        a holder's rules change
    step                        the job behind it, a chunk of people at a time
    find_name                   the job that looks up whose handle a rule names

Rule: what is done about somebody follows from all present rules and from nothing else, so that doing it twice, late
or out of order ends the same. Whoever is suspended with their whole server is told nothing, and nothing goes there:
the follow stays as it is over there and works again when the rule is lifted. Mastodon sends a Reject instead, which
destroys the follow for good; we do that only where one person is suspended and their server is not, because there a
post still arrives in the shared inbox and would be shown to them, and send the Accept again afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from threadbridge.activitypub import outgoing, text
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import outbox, polls
from threadbridge.domain.blocks import (
    EVERYWHERE,
    Rule,
    Somebody,
    Standing,
    SubjectKind,
    by_words,
    domains_above,
    judge,
)
from threadbridge.errors import AddressRefused, BadAnswer, Invalid, NetworkError
from threadbridge.federation import answering
from threadbridge.federation.admission import Admitted
from threadbridge.federation.heard import Heard
from threadbridge.net.peers import Peers
from threadbridge.storage import blocks, decisions, jobs, parking, peers
from threadbridge.storage.blocks import Entry
from threadbridge.storage.jobs import Job
from threadbridge.storage.parking import Met, Tie
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

ENFORCE = "enforce"
NAME = "find_name"
"""The kind of job that asks a server whose handle it is that a rule names."""
NAME_ATTEMPTS = 5
CHUNK = 200
MANY = 20
"""From so many subjects on, everybody is looked at once rather than each subject by itself."""
RECALLED = "this server is suspended here"


def add_rules(
    tx: Tx,
    held_by: str,
    entries: Sequence[Entry],
    *,
    account_id: int | None = None,
    list_id: int | None = None,
) -> list[Entry]:
    """Hold rules and have them enforced; returns those that changed something. Whose a handle is, is looked up now:
    here, or else at its server by a job."""
    named = [_named(tx, entry) for entry in entries]
    changed = blocks.put(tx, held_by, named, account_id=account_id, list_id=list_id)
    for entry in changed:
        if entry.actor is not None:
            blocks.pin(tx, entry.subject, entry.actor)
        elif _is_handle(entry):
            jobs.add(tx, NAME, jobs.key_of(entry.subject), {"subject": entry.subject})
    ask(tx, changed)
    return changed


def names_us(authority: str, entry: Entry) -> bool:
    """Whether a rule about a domain is about this server itself (`authority`), or about a domain above it."""
    return entry.kind == "domain" and entry.severity != "allow" and entry.subject in domains_above(authority)


def check_not_us(authority: str, entries: Sequence[Entry]) -> None:
    """Raises Invalid when a rule would keep this server from hearing itself: its accounts talk to each other too."""
    for entry in entries:
        if names_us(authority, entry):
            raise Invalid(
                f"{entry.subject} is this server itself" if entry.subject == authority
                else f"{entry.subject} holds this server itself ({authority})",
                hint="Nothing was stored. To keep somebody here from speaking, name their account (@user@host).",
            )  # fmt: skip


def _is_handle(entry: Entry) -> bool:
    return entry.kind == "actor" and entry.subject.startswith("@")


def _named(tx: Tx, entry: Entry) -> Entry:
    if not _is_handle(entry):
        return entry
    known = blocks.pinned(tx, entry.subject)
    uri = min(known) if known else peers.uri_of_handle(tx, entry.subject.removeprefix("@"))
    return replace(entry, actor=uri)


async def find_name(store: Store, remote: Peers, job: Job) -> None:
    """Ask a server whose handle it is that a rule names, so that the rule stays about them whatever they call
    themselves. Raises NetworkError when asking again later is right."""
    subject = str(job.arguments["subject"])
    try:
        uri = await remote.webfinger(subject)
    except NetworkError as error:
        if job.attempts + 1 < NAME_ATTEMPTS and not isinstance(error, BadAnswer | AddressRefused):
            raise
        log.info("a rule stays about a handle alone", subject=subject, reason=str(error))
        await store.transact(jobs.finish, job)
        return
    await store.transact(_found_name, job, subject, uri)


def _found_name(tx: Tx, job: Job, subject: str, uri: str) -> None:
    if jobs.finish(tx, job) and blocks.pin(tx, subject, uri):
        ask(tx, [Entry("actor", uri, "suspend")])


def lift_rule(tx: Tx, held_by: str, kind: SubjectKind, subject: str) -> bool:
    """Lift a rule and give back what it had cut; False if there is none."""
    whose = blocks.pinned(tx, subject)
    if not blocks.remove(tx, held_by, kind, subject):
        return False
    ask(tx, [Entry(kind, subject, "allow", actor=uri) for uri in whose] or [Entry(kind, subject, "allow")])
    return True


def restrict_to_allowed(tx: Tx, wanted: bool) -> None:
    """Have allow-list mode as the setting says."""
    if blocks.restrict_to_allowed(tx, wanted):
        ask(tx, [Entry("domain", EVERYWHERE, "suspend")])


def ask(tx: Tx, changed: Sequence[Entry]) -> None:
    """Have it looked at what follows from changed rules."""
    wide = len(changed) > MANY
    subjects: set[tuple[str, str]] = (
        {("domain", EVERYWHERE)} if wide else {(e.kind, e.subject) for e in changed if e.kind != "keyword"}
    )
    if not wide:
        subjects |= {("actor", entry.actor) for entry in changed if entry.actor is not None}
    if any(entry.kind == "keyword" for entry in changed):
        subjects.add(("keyword", ""))
    for kind, subject in sorted(subjects):
        # A job under way may be past those whom this is about: it is done once more then.
        key = jobs.key_of(f"{kind} {subject}")
        jobs.add(tx, ENFORCE, key, {"kind": kind, "subject": subject, "after": "", "row": 0})


def step(tx: Tx, ids: Ids, job: Job) -> dict[str, Any] | None:
    """Look at the next chunk; returns what is left to do, or None when the job is done."""
    if not jobs.progress(tx, job, job.arguments):
        return None
    kind, subject = str(job.arguments["kind"]), str(job.arguments["subject"])
    if "recalling" in job.arguments:
        left = None
    elif kind == "keyword":
        left = _settle_words(tx, ids, job.arguments)
    else:
        people = parking.met(tx, kind, subject, after=str(job.arguments["after"]), limit=CHUNK)
        settle(tx, ids, people)
        left = {**job.arguments, "after": people[-1].uri} if len(people) == CHUNK else None
    if left is None and _recall(tx):
        # A great deal may wait for a large server; nobody else who writes waits for all of it.
        left = {**job.arguments, "recalling": True}
    if left is None:
        jobs.finish(tx, job)
    else:
        jobs.progress(tx, job, left)
    return left


def _settle_words(tx: Tx, ids: Ids, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Look at the next chunk of texts: replies, then mentions, then quotes."""
    room = str(arguments.get("room", "replies"))
    held, mark = _ROOMS[room]
    ties = held(tx, int(arguments["row"]), CHUNK)
    rulings = _Rulings(tx, _authors(tx, ties))
    _settle_texts(tx, ties, rulings, mark(ids))
    if room == "replies":
        _settle_approvals(tx, list({tie.peer_uri for tie in ties}), rulings)
    if len(ties) == CHUNK:
        return {**arguments, "row": ties[-1].id}
    rooms = list(_ROOMS)
    following = rooms[rooms.index(room) + 1 :]
    return {**arguments, "room": following[0], "row": 0} if following else None


def keep_back(tx: Tx, kind: str, heard: Heard, admitted: Admitted) -> None:
    """Hide at once what somebody limited has just done, and let the owners know that there is something to see."""
    settle(tx, heard.ids, parking.met(tx, "actor", heard.peer.uri))
    for account_id, reason in admitted.limited:
        if account_id is not None:
            decisions.write_once(
                tx, kind, f"hidden: {reason}", subject=heard.peer.uri, host=host_of(heard.peer.uri),
                account_id=account_id,
            )  # fmt: skip


def show_reply(tx: Tx, ids: Ids, account_id: int, uri: str) -> bool:
    """The owner shows a reply although its author is limited; False if there is none that they may show."""
    ties = parking.reply(tx, uri)
    if not parking.show(tx, account_id, uri):
        return False
    for tie in ties:
        _stamp(tx, ids, tie)
    return True


def _stamp(tx: Tx, ids: Ids, tie: Tie) -> None:
    """A reply is shown that was hidden: where not everybody may answer, it is said that this one may."""
    peer = peers.by_uri(tx, tie.peer_uri)
    if peer is not None:
        answering.shown(tx, ids, tie.account_id, tie.post_id, tie.uri, peer)


def settle(tx: Tx, ids: Ids, people: Sequence[Met]) -> None:
    """Do what follows from all rules for these people."""
    if not people:
        return
    uris = [person.uri for person in people]
    rulings = _Rulings(tx, people)
    _settle_follows(tx, ids, parking.follows(tx, uris), rulings)
    for tie in parking.reactions(tx, uris):
        if (mark := _MARKS[rulings.standing(tie)]) != tie.mark:
            parking.mark_reaction(tx, tie, mark)
    for tie in parking.votes(tx, uris):
        if (mark := _MARKS[rulings.standing(tie)]) != tie.mark:
            parking.mark_vote(tx, tie, mark)
            polls.moved(tx, tie.account_id, tie.post_id)
    for tie in parking.requests(tx, uris):
        # A limit hides from the public; who asks is shown to nobody but the owner.
        wanted = parking.SUSPENDED if rulings.standing(tie) is Standing.SUSPENDED else None
        if wanted != tie.mark:
            parking.mark_request(tx, tie, wanted)
    _settle_texts(tx, parking.replies(tx, uris), rulings, _mark_reply(ids))
    _settle_approvals(tx, uris, rulings)
    _settle_texts(tx, parking.mentions(tx, uris), rulings, _mark_mention)
    _settle_texts(tx, parking.quotes_of(tx, uris), rulings, parking.mark_quote)


def _settle_approvals(tx: Tx, uris: Sequence[str], rulings: _Rulings) -> None:
    """What lets an answer through goes with its author, or with the answer where it is its words. (What was granted
    before a limit stays granted.)"""
    for tie in parking.approvals(tx, uris):
        away = tie.kind == parking.SUSPENDED or rulings.standing(tie) is Standing.SUSPENDED
        if (wanted := parking.SUSPENDED if away else None) != tie.mark:
            parking.mark_approval(tx, tie, wanted)


def _mark_mention(tx: Tx, tie: Tie, mark: str | None) -> None:
    # Nobody but the owner reads mentions: a limit, which hides from the public, leaves them where they are.
    wanted = mark if mark == parking.SUSPENDED else None
    if wanted != tie.mark:
        parking.mark_mention(tx, tie, wanted)


def _mark_reply(ids: Ids) -> _Mark:
    def mark_reply(tx: Tx, tie: Tie, mark: str | None) -> None:
        parking.mark_reply(tx, tie, mark)
        if mark is None:
            _stamp(tx, ids, tie)

    return mark_reply


_Mark = Callable[[Tx, Tie, str | None], None]
_ROOMS: dict[str, tuple[Callable[[Tx, int, int], list[Tie]], Callable[[Ids], _Mark]]] = {
    "replies": (parking.replies_after, _mark_reply),
    "mentions": (parking.mentions_after, lambda _: _mark_mention),
    "quotes": (parking.quotes_after, lambda _: parking.mark_quote),
}
_MARKS = {Standing.FINE: None, Standing.LIMITED: parking.LIMITED, Standing.SUSPENDED: parking.SUSPENDED}


class _Rulings:
    """The rules about some people, looked up once."""

    def __init__(self, tx: Tx, people: Sequence[Met]) -> None:
        self._people = {one.uri: Somebody(one.uri, one.host, one.handle) for one in people}
        subjects = [subject for one in self._people.values() for subject in one.subjects()]
        self.rules = blocks.about(tx, subjects)

    def standing(self, tie: Tie) -> Standing:
        somebody = self._people.get(tie.peer_uri)
        return judge(self.rules, somebody, tie.account_id).standing if somebody else Standing.FINE

    def reason(self, tie: Tie) -> str:
        return judge(self.rules, self._people[tie.peer_uri], tie.account_id).reason

    def whole_server(self, tie: Tie) -> bool:
        somebody = self._people[tie.peer_uri]
        server = judge(self.rules, Somebody(None, somebody.host), tie.account_id)
        return server.standing is Standing.SUSPENDED


def _settle_follows(tx: Tx, ids: Ids, ties: Sequence[Tie], rulings: _Rulings) -> None:
    counted: Counter[tuple[int, str, str]] = Counter()
    for tie in ties:
        suspended = rulings.standing(tie) is Standing.SUSPENDED
        if suspended == (tie.mark is not None):
            continue
        if suspended:
            parking.park_follow(tx, tie)
            counted[tie.account_id, host_of(tie.peer_uri), f"parked: {rulings.reason(tie)}"] += 1
        else:
            parking.take_back_follow(tx, tie)
            counted[tie.account_id, host_of(tie.peer_uri), "back: the rule was lifted"] += 1
        if not rulings.whole_server(tie):
            _tell(tx, ids, tie, suspended=suspended)
    for (account_id, host, words), number in sorted(counted.items()):
        people = "1 follower" if number == 1 else f"{number} followers"
        decisions.write(tx, "followers", f"{people} {words}", subject=host, host=host, account_id=account_id)


def _tell(tx: Tx, ids: Ids, tie: Tie, *, suspended: bool) -> None:
    peer = peers.by_uri(tx, tie.peer_uri)
    if peer is None:
        return
    follow_uri = parking.follow_said(tx, tie)
    said = outgoing.follow_said(follow_uri, peer.uri, ids.actor(tie.account_id))
    if suspended:
        answer = outgoing.reject(ids, tie.account_id, ids.reject(tie.account_id, follow_uri, tx.now), said)
    else:
        answer = outgoing.accept(ids, tie.account_id, ids.accept(tie.account_id, follow_uri, tx.now), said)
    outbox.answer(tx, tie.account_id, answer, peer.inbox, about=outbox.relation(ids, tie.account_id, peer.uri))


def _settle_texts(tx: Tx, ties: Sequence[Tie], rulings: _Rulings, put: _Mark) -> None:
    worded: dict[int, list[Rule]] = {}
    for tie in ties:
        if tie.account_id not in worded:
            worded[tie.account_id] = blocks.keywords(tx, tie.account_id)
        keywords = worded[tie.account_id]
        words = by_words(keywords, text.plain(tie.html)).standing if keywords else Standing.FINE
        standing = max(rulings.standing(tie), words)
        if standing is Standing.LIMITED and tie.shown:
            standing = Standing.FINE
        if (mark := _MARKS[standing]) != tie.mark:
            put(tx, tie, mark)


def _authors(tx: Tx, ties: Sequence[Tie]) -> list[Met]:
    return [one for uri in dict.fromkeys(tie.peer_uri for tie in ties) for one in parking.met(tx, "actor", uri)]


def _recall(tx: Tx) -> bool:
    """End some of what waits for servers that get nothing (any more); False when nothing was left."""
    if parking.recall(tx, blocks.suspended_hosts(tx, parking.waiting_hosts(tx)), RECALLED):
        return True
    for account_id in blocks.accounts_with_domains(tx):
        shut = blocks.suspended_hosts(tx, parking.waiting_hosts(tx, account_id), account_id)
        if parking.recall(tx, shut, "suspended by the owner", account_id):
            return True
    return False
