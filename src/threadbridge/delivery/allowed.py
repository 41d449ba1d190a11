"""To whom something may be sent.

Rule: it is asked when recipients are written down, about the inbox's server and not the person's: who is suspended
gets nothing through somebody else's address either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from threadbridge.domain.blocks import Somebody, Standing, judge
from threadbridge.storage import blocks
from threadbridge.storage.store import Tx


def reachable(tx: Tx, account_id: int, inboxes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of these (inbox, host) pairs to which something of this account may be sent."""
    shut = suspended_hosts(tx, {host for _, host in inboxes}, account_id)
    return [(inbox, host) for inbox, host in inboxes if host not in shut] if shut else list(inboxes)


def suspended_hosts(tx: Tx, hosts: Iterable[str], account_id: int | None = None) -> set[str]:
    """Those of these hosts which the operator has suspended, or the owner of this account."""
    asked = {host: Somebody(None, host) for host in hosts}
    rules = blocks.about(tx, [subject for somebody in asked.values() for subject in somebody.subjects()])
    return {
        host for host, somebody in asked.items() if judge(rules, somebody, account_id).standing is Standing.SUSPENDED
    }
