"""Pausing and resuming an account.

Rule: while paused everything stays readable and nothing new is bridged; what was posted during the pause is kept
silently afterwards, since followers would otherwise get it all at once.
"""

from __future__ import annotations

from threadbridge.domain.accounts import AccountState
from threadbridge.errors import Conflict
from threadbridge.storage import accounts, connections, farewells, held
from threadbridge.storage.store import Tx


def pause(tx: Tx, account_id: int, cause: str) -> bool:
    """Stop bridging; False if it was paused already. Reading stops with the next turn."""
    return accounts.set_state(tx, account_id, AccountState.PAUSED, cause)


def resume(tx: Tx, account_id: int, cause: str) -> bool:
    """Bridge again from now on; False if it was active already. Raises Conflict while it is being deleted."""
    if farewells.of_account(tx, account_id) is not None:
        raise Conflict("This account is about to be deleted", hint="Take the deletion back first.")
    if not accounts.set_state(tx, account_id, AccountState.ACTIVE, cause):
        return False
    connections.speak_from_now(tx, account_id)
    held.go_on(tx, account_id)
    return True
