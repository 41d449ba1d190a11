"""Connecting an account to its source with a token: whose it is, the account here, the consent, the whole history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from threadbridge.bridge import reading
from threadbridge.bridge.compare import Changes
from threadbridge.domain.accounts import Account, AccountState, check_handle, handle_from_source
from threadbridge.domain.source import SourceProfile
from threadbridge.errors import Conflict, Gone, NetworkError, SourceError, ThreadbridgeError
from threadbridge.services import SOURCE_API, Services
from threadbridge.storage import accounts, connections
from threadbridge.storage.connections import Connection
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import NewKey, Vault, new_rsa_key

CONSENT = (
    "The operator connected this account at the command line with an access token that its owner was given by "
    "signing in at the source."
)
_HOLD_SECONDS = 8.0
"""As long as a worker's lease: what a killed `connect` leaves behind is taken up soon."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The account that is connected now, and what reading its history brought."""

    account: Account
    new_account: bool
    changes: Changes


async def connect(
    services: Services,
    token: str,
    *,
    graph_url: str,
    handle: str | None,
    on_page: Callable[[int], None] = lambda _: None,
) -> Connected:
    """Connect, read profile and history. Raises SourceError, NetworkError, Invalid and Conflict; what was written
    before an interruption stays, and the worker reads on from there."""
    source = services.source_for(token, graph_url)
    profile = await source.profile()
    chosen = check_handle(handle) if handle else None
    head = await services.reader.head(source)
    key = await asyncio.to_thread(new_rsa_key)
    account, new_account, renewed, connection = await services.store.transact(
        _connect, services.vault, key, profile, chosen, token=token, graph_url=graph_url, since=head.read_at
    )
    holding = asyncio.create_task(_hold(services, account.id))
    due_at: datetime | None = None
    try:
        await services.reader.profile(account.id, profile)
        changes = await services.reader.whole_history(
            connection, source, on_page, before=frozenset() if renewed else head.native_ids
        )
    except (SourceError, NetworkError) as error:
        # Whoever asks for a pause gets it from the worker too.
        due_at = await services.store.transact(
            reading.read_failed, account.id, error, poll_seconds=services.config.poll_seconds, spread=0.0
        )
        raise
    finally:
        holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding
        await services.store.transact(connections.release_read, account.id, due_at=due_at)
    found = await services.store.read(accounts.by_id, account.id)
    assert found is not None
    return Connected(found, new_account, changes)


async def _hold(services: Services, account_id: int) -> None:
    while True:
        await asyncio.sleep(_HOLD_SECONDS / 4)
        with suppress(ThreadbridgeError):
            await services.store.transact(connections.hold_read, account_id, _HOLD_SECONDS)


def _connect(
    tx: Tx,
    vault: Vault,
    key: NewKey,
    profile: SourceProfile,
    chosen: str | None,
    *,
    token: str,
    graph_url: str,
    since: datetime,
) -> tuple[Account, bool, bool, Connection]:
    """(account, whether it is new, whether its connection is an old one renewed, the connection)."""
    known = connections.by_native_id(tx, SOURCE_API, profile.native_id)
    handle = chosen or handle_from_source(profile.handle)
    account = accounts.by_id(tx, known.account_id) if known else accounts.by_handle(tx, handle)
    new_account = account is None
    if known is not None and account is not None and chosen not in (None, account.handle):
        raise Conflict(
            f"This person at the source is connected here already, as {account.handle!r}",
            hint="Leave --handle out to renew that connection; `threadbridge accounts rename` changes a handle.",
        )
    if account is None:
        account = accounts.create(
            tx,
            vault,
            key,
            handle=handle,
            name=profile.name,
            bio=profile.bio,
            source_url=profile.url,
            joined_at=profile.joined,
            consent_kind="token",
            consent_wording=CONSENT,
        )
    elif account.state is AccountState.GONE:
        raise Gone(f"The account {account.handle!r} has been deleted for good")
    else:
        before = connections.of_account(tx, account.id)
        if before is not None and before.native_id != profile.native_id:
            raise Conflict(
                f"The account {account.handle!r} belongs to another person at the source",
                hint="Choose another handle with --handle.",
            )
        accounts.record_consent(tx, account.id, "token", CONSENT)
    connection = connections.connect(
        tx,
        vault,
        account.id,
        source=SOURCE_API,
        native_id=profile.native_id,
        graph_url=graph_url,
        access_token=token,
        since=since,
    )
    connections.hold_read(tx, account.id, _HOLD_SECONDS)
    return account, new_account, known is not None, connection
