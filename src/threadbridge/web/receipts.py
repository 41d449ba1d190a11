"""What became of a post, in words.

Rule: pure. The figures are the ledger's; a sentence names every delivery of its activity exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from threadbridge.storage.ledger import Receipt
from threadbridge.storage.receipts import Line, Prospect, Server

# Each end with its words, in the order in which people want to know.
_WORDS = {
    "waiting": "waiting",
    "refused": "refused",
    "gone": "no longer there",
    "given_up": "given up after many tries",
    "superseded": "not needed any more",
}
_REASONS = 3
KINDS = {
    "Create": "The post",
    "Update": "The edit",
    "Delete": "The deletion",
    "Announce": "The repost",
    "Undo": "The repost, taken back",
    "Refresh": "New figures or rules",
    "Revoke": "A quote, taken back",
    "Accept": "Follow accepted",
    "Reject": "Follow refused",
}
STATES = {"delivered": "delivered", **_WORDS}


@dataclass(frozen=True, slots=True)
class Sentence:
    """What became of one kind of activity: `kind` in words, the sentence, and figures for a bar."""

    kind: str
    words: str
    delivered: int
    total: int
    waiting: int
    needless: int = 0
    """Something later took the place of these before they left."""

    @property
    def failed(self) -> int:
        return self.total - self.delivered - self.waiting - self.needless

    @property
    def mood(self) -> str:
        """'good' when all has arrived, 'bad' when nothing did or will, else 'wait': worth a look, no alarm."""
        if self.delivered + self.needless == self.total:
            return "good"
        return "wait" if self.delivered or self.waiting else "bad"


def sentences(receipts: Iterable[Receipt]) -> list[Sentence]:
    """One sentence per kind of activity (post, edit, deletion), in that order."""
    by_kind: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        by_kind.setdefault(receipt.kind, []).append(receipt)
    order = list(KINDS)
    kinds = sorted(by_kind, key=lambda kind: (order.index(kind) if kind in order else len(order), kind))
    return [_sentence(kind, by_kind[kind]) for kind in kinds]


def _sentence(kind: str, receipts: Sequence[Receipt]) -> Sentence:
    figures: Counter[str] = Counter()
    for receipt in receipts:
        figures[receipt.state] += receipt.count
    total, delivered = figures.total(), figures["delivered"]
    parts = [f"delivered to {delivered:,} of {_servers(total)}"]
    parts.extend(
        f"{figures[state]:,} {words}{_reasons(receipts, state)}" for state, words in _WORDS.items() if figures[state]
    )
    return Sentence(
        KINDS.get(kind, kind), "; ".join(parts), delivered, total, figures["waiting"], figures["superseded"]
    )


def without(*, silent: bool, unfinished: bool) -> str:
    """What to say of a post about which nothing was delivered."""
    if unfinished:
        return "being handed out to the followers' servers"
    if silent:
        return "part of the history: shown here, never sent out"
    return "nobody to deliver to: no server followed when it was posted"


def tally(states: dict[str, int]) -> str:
    """The sentence for one activity whose reasons are not at hand: {state: deliveries}."""
    if not states:
        return "nobody to deliver to"
    delivered, total = states.get("delivered", 0), sum(states.values())
    rest = [f"{states[state]:,} {words}" for state, words in _WORDS.items() if states.get(state)]
    return "; ".join([f"delivered to {delivered:,} of {_servers(total)}", *rest])


def _servers(count: int) -> str:
    return "1 server" if count == 1 else f"{count:,} servers"


def _reasons(receipts: Sequence[Receipt], state: str) -> str:
    """': the reason', or the most frequent ones with their figures."""
    reasons: Counter[str] = Counter()
    for receipt in receipts:
        if receipt.state == state and receipt.reason:
            reasons[receipt.reason] += receipt.count
    if not reasons:
        return ""
    total = sum(receipt.count for receipt in receipts if receipt.state == state)
    if len(reasons) == 1 and reasons.total() == total:
        return f": {next(iter(reasons))}"
    most = reasons.most_common(_REASONS)
    words = ", ".join(f"{reason} ({count:,})" for reason, count in most)
    left = len(reasons) - len(most)
    if state == "waiting" and reasons.total() < total:
        words += f", not tried yet ({total - reasons.total():,})"
    return f": {words}" + (f" and {left} more reasons" if left > 1 else " and 1 more reason" if left else "")


# ── server by server ─────────────────────────────────────────────────────────────────────────────────────────────


def line_words(line: Line, server: Server, moment: Callable[[datetime], str]) -> str:
    """What became of some deliveries to one server, without their kind: 'delivered 1 Mar 2026, 12:00 UTC'."""
    words = STATES.get(line.state, line.state)
    if line.state == "waiting" and server.rests_until is not None and not line.attempts:
        words = f"held: {rest_words(server, moment)}"
    elif line.state == "waiting":
        next_at = max((at for at in (line.next_at, server.rests_until) if at), default=None)
        tries = (
            f"{line.attempts} {'try' if line.attempts == 1 else 'tries'} so far, the next" if line.attempts else "due"
        )
        words = f"waiting, {tries} {moment(next_at)}" if next_at else "waiting"
    elif line.at is not None:
        words = f"{words}, {moment(line.at)}"
    if line.count > 1:
        words = f"{words} ({line.count:,} inboxes)"
    return f"{words}: {line.reason}" if line.reason else words


def rest_words(server: Server, moment: Callable[[datetime], str]) -> str:
    """Why nothing goes to a server now; '' where something may."""
    if server.rests_until is None:
        return ""
    why = "this server asked us to wait" if server.asked else "this server fails again and again, and is left alone"
    return f"{why} until {moment(server.rests_until)}"


def again_words(found: Prospect, moment: Callable[[datetime], str]) -> str:
    """What trying again comes to: 'asked again at 2 servers; 1 asked to be left alone until …'."""
    parts = [f"asked again at {_servers(found.servers)}"] if found.servers or not found.left_alone else []
    if not found.servers and not found.left_alone:
        return "nothing to try again just now"
    if found.left_alone and found.until is not None:
        first = "until" if found.left_alone == 1 else "the first of them until"
        verb = "is" if found.left_alone == 1 else "are"
        whose = f"{_servers(found.left_alone)} {verb} left alone, {first} {moment(found.until)}, and tried then"
        parts.append(whose)
    return "; ".join(parts)


def documents(servers: Sequence[Server]) -> list[dict[str, Any]]:
    """The same for programs: times in ISO 8601, None where there is nothing to say."""
    return [
        {
            "host": server.host,
            "people": server.people,
            "rests_until": server.rests_until.isoformat() if server.rests_until else None,
            "deliveries": [
                {
                    "kind": line.kind or None,
                    "state": line.state,
                    "count": line.count,
                    "attempts": line.attempts,
                    "status": line.status,
                    "reason": line.reason or _held(line, server),
                    "ended_at": line.at.isoformat() if line.at else None,
                    "next_try_at": line.next_at.isoformat() if line.next_at else None,
                }
                for line in server.lines
            ],
        }
        for server in servers
    ]


def _held(line: Line, server: Server) -> str | None:
    if line.state != "waiting":
        return None
    return rest_words(server, lambda at: f"{at.isoformat()}") or None
