"""What became of deliveries, told: in the log, in the figures of this process, in those that everybody may see.

Rule: a line per activity and second, however many got it, and one for each delivery that did not arrive, with its
reason. Everything is told after it was written down, under the id of what made us say it (`telemetry.trail`).
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field

import structlog

from threadbridge.storage import figures, ledger
from threadbridge.storage.ledger import Settled
from threadbridge.storage.store import Tx
from threadbridge.storage.turns import Claimed
from threadbridge.telemetry import metrics, trail

log = structlog.get_logger(__name__)

EVERY = 1.0
KEPT = 4096


@dataclass(frozen=True, slots=True)
class Said:
    """An activity as the log names it."""

    uri: str
    post_id: int | None
    trail: str | None


@dataclass(slots=True)
class Telling:
    """Tells for one worker process."""

    monotonic: Callable[[], float] = time.monotonic
    _said: OrderedDict[int, Said] = field(default_factory=OrderedDict)
    _sums: dict[int, Counter[str]] = field(default_factory=dict)
    _told_at: float = float("-inf")

    def learn(self, said: dict[int, Said]) -> None:
        """These activities (by number) are about to be delivered."""
        self._said.update(said)
        while len(self._said) > KEPT:
            self._said.popitem(last=False)

    def context(self, activity_id: int) -> Context:
        """Where a delivery of an activity is carried: whatever is told there is told under its id."""
        context = copy_context()
        said = self._said.get(activity_id)
        context.run(trail.go_on, said.trail if said else None)
        return context

    def settling(self, tx: Tx, pairs: Sequence[tuple[Claimed, Settled]]) -> None:
        """Count, in the transaction that settles them, and tell afterwards."""
        ended = Counter(settled.state for _, settled in pairs if settled.state != "waiting")
        figures.count(tx, trail.process(), figures.DELIVER, sorted(ended.items()))
        now = tx.now
        tx.after_commit(lambda: self._settled(pairs, now.timestamp()))

    def _settled(self, pairs: Sequence[tuple[Claimed, Settled]], now: float) -> None:
        for row, settled in pairs:
            metrics.attempts(row.lane, settled.state)
            self._sums.setdefault(row.activity_id, Counter())[settled.state] += 1
            if settled.state == "delivered":
                metrics.arrived(row.lane, now - row.created_at.timestamp())
                continue
            said = self._said.get(row.activity_id)
            log.info(
                "a delivery did not arrive",
                activity=said.uri if said else row.activity_id,
                delivery=row.id,
                host=row.host,
                outcome=settled.state,
                status=settled.status,
                reason=settled.reason,
                attempt=row.attempts + 1,
                again_at=settled.due_at.isoformat() if settled.state == "waiting" and settled.due_at else None,
                trail=said.trail if said else None,
            )

    def tell(self, *, now: bool = False) -> None:
        """Write the lines of the last second; with `now` those that are left."""
        if not self._sums or (not now and self.monotonic() - self._told_at < EVERY):
            return
        self._told_at = self.monotonic()
        # Taken one by one: the thread that writes to the database may be adding.
        while self._sums:
            number, sums = self._sums.popitem()
            said = self._said.get(number)
            log.info(
                "deliveries settled",
                activity=said.uri if said else number,
                post=said.post_id if said else None,
                trail=said.trail if said else None,
                **dict(sorted(sums.items())),
            )


def names(tx: Tx, numbers: Sequence[int]) -> dict[int, Said]:
    """{activity id: how the log names it}."""
    return {said.id: Said(said.uri, said.post_id, said.trail) for said in ledger.activities(tx, numbers)}
