"""What became of a post, in words.

Rule: pure. The figures are the ledger's; a sentence names every delivery of its activity exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from threadbridge.storage.ledger import Receipt

# Each end with its words, in the order in which people want to know.
_WORDS = {
    "waiting": "waiting",
    "refused": "refused",
    "gone": "no longer there",
    "given_up": "given up after many tries",
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

    @property
    def failed(self) -> int:
        return self.total - self.delivered - self.waiting

    @property
    def mood(self) -> str:
        """'good' when all has arrived, 'bad' when nothing did or will, else 'wait': worth a look, no alarm."""
        if self.delivered == self.total:
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
    return Sentence(KINDS.get(kind, kind), "; ".join(parts), delivered, total, figures["waiting"])


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
    if len(reasons) == 1:
        return f": {next(iter(reasons))}"
    most = reasons.most_common(_REASONS)
    words = ", ".join(f"{reason} ({count:,})" for reason, count in most)
    left = len(reasons) - len(most)
    return f": {words}" + (f" and {left} more reasons" if left > 1 else " and 1 more reason" if left else "")
