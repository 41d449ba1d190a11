"""Connecting an account to its source with a token: whose it is, the account here, the consent, the whole history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from threadbridge.bridge.compare import Changes
from threadbridge.domain.accounts import Account, AccountState, check_handle, handle_from_source
from threadbridge.domain.source import SourceProfile
from threadbridge.errors import Conflict, Gone, ThreadbridgeError
from threadbridge.services import SOURCE_API, Services
from threadbridge.storage import accounts, connections
from threadbridge.storage.connections import Connection
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import NewKey, Vault, new_rsa_key

CONSENT = (
    "The operator connected this account at the command line with an access token that its owner was given by "
    "signing in at the source."
)
_HOLD_SECONDS = 30.0


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
    wanted = check_handle(handle) if handle else handle_from_source(profile.handle)
    key = await asyncio.to_thread(new_rsa_key)
    account, new_account, connection = await services.store.transact(
        _connect, services.vault, key, profile, wanted, token=token, graph_url=graph_url
    )
    holding = asyncio.create_task(_hold(services, account.id))
    try:
        await services.reader.profile(account.id, profile)
        changes = await services.reader.whole_history(connection, source, on_page)
    finally:
        holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding
        await services.store.transact(connections.release_read, account.id)
    found = await services.store.read(accounts.by_id, account.id)
    assert found is not None
    return Connected(found, new_account, changes)


async def _hold(services: Services, account_id: int) -> None:
    while True:
        await asyncio.sleep(_HOLD_SECONDS / 3)
        with suppress(ThreadbridgeError):
            await services.store.transact(connections.hold_read, account_id, _HOLD_SECONDS)


def _connect(
    tx: Tx, vault: Vault, key: NewKey, profile: SourceProfile, handle: str, *, token: str, graph_url: str
) -> tuple[Account, bool, Connection]:
    known = connections.by_native_id(tx, SOURCE_API, profile.native_id)
    account = accounts.by_id(tx, known.account_id) if known else accounts.by_handle(tx, handle)
    new_account = account is None
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
    )
    connections.hold_read(tx, account.id, _HOLD_SECONDS)
    return account, new_account, connection
