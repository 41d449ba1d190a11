"""Commands about accounts: import, connect, list, sign in."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from threadbridge import connecting, reports
from threadbridge.cli.terminal import (
    AsJson,
    ground,
    out,
    print_json,
    print_lines,
    progress,
    shown,
)
from threadbridge.errors import Invalid
from threadbridge.portability import imports
from threadbridge.services import Ground, open_services
from threadbridge.sources.threads_download import open_download
from threadbridge.storage import accounts, connections, farewells
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import new_rsa_key, new_token, token_hash


def import_(
    files: Annotated[list[Path], typer.Argument(help="The download: one or several ZIPs, or a folder.")],
    handle: Annotated[str | None, typer.Option(help="Handle here; the source's user name by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import a Threads data download: posts with their dates and media, silently; nothing is sent to anybody.

    Example: threadbridge import instagram-alice-2026-01-01-part1.zip instagram-alice-2026-01-01-part2.zip
    """
    with ground() as opened, open_download(files) as download, progress("Reading", quiet=as_json) as report:
        summary = imports.import_download(
            opened.store,
            opened.media,
            opened.vault,
            download,
            handle=handle,
            dry_run=dry_run,
            new_key=new_rsa_key,
            on_progress=lambda step: report(step.done, total=step.total, description="Importing posts"),
        )
    if as_json:
        print_json(summary)
    else:
        print_lines(reports.import_lines(summary))


def connect(
    token: Annotated[str, typer.Option(help="Access token of the owner; '-' reads it from standard input.")],
    graph_url: Annotated[str | None, typer.Option(help="Where the Threads API lives.")] = None,
    handle: Annotated[str | None, typer.Option(help="Handle here; the profile's by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Connect an account by the Threads API: history is read now, silently; what comes next is bridged.

    Example: threadbridge connect --token - < token.txt
    """
    secret = sys.stdin.readline().strip() if token == "-" else token.strip()  # noqa: S105 (a dash, not a secret)
    if not secret or not secret.isascii() or not secret.isprintable():
        raise Invalid("That is no access token", hint="Give it with --token, or with `--token -` on standard input.")
    with ground(graph_url=graph_url) as opened, progress("Reading history", quiet=as_json) as report:
        connected = asyncio.run(_connect(opened, secret, opened.config.graph_url, handle, report))
    account, changes = connected.account, connected.changes
    if as_json:
        print_json(
            {
                "handle": account.handle,
                "address": f"@{opened.ids.acct(account.handle)}",
                "account_id": account.id,
                "new_account": connected.new_account,
                "posts_new": len(changes.created),
                "posts_recognised": len(changes.recognised),
            }
        )
        return
    out.print(f"Connected: [bold]@{shown(opened.ids.acct(account.handle))}[/bold]")
    out.print(f"  history: {len(changes.created)} posts new, {len(changes.recognised)} known from a download")
    out.print("  New posts go out while `threadbridge serve` runs.")


async def _connect(
    opened: Ground, token: str, graph_url: str, handle: str | None, report: Callable[..., None]
) -> connecting.Connected:
    services = open_services(opened)
    try:
        return await connecting.connect(services, token, graph_url=graph_url, handle=handle, on_page=report)
    finally:
        await services.aclose()


def list_accounts(context: typer.Context, as_json: AsJson = False) -> None:
    """List the accounts: state, figures, and what is wrong with their connection.

    Example: threadbridge accounts --json
    """
    if context.invoked_subcommand is not None:
        return
    with ground(needs_base_url=False) as opened:
        rows = opened.store.read_now(_account_rows, opened.ids.authority)
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("No accounts yet. `threadbridge import` or `threadbridge connect` make one.")
        return
    table = Table("Handle", "State", "Posts", "Followers", "Source", box=None, pad_edge=False)
    for row in rows:
        words = row["trouble_text"] if row["trouble"] else ("connected" if row["connected"] else "download only")
        state = f"deleted from {row['deletion_begins_at']:%Y-%m-%d} on" if row["deletion_begins_at"] else row["state"]
        if row["trouble"] == "sign_in_again":
            words = f"needs to sign in again: {words}"
        table.add_row(f"@{shown(row['handle'])}", state, str(row["posts"]), str(row["followers"]), shown(str(words)))
    out.print(table)


def _account_rows(tx: Tx, authority: str) -> list[dict[str, Any]]:
    rows = []
    for account in accounts.listed(tx):
        connection = connections.of_account(tx, account.id)
        leaving = farewells.of_account(tx, account.id)
        rows.append(
            {
                "id": account.id,
                "handle": account.handle,
                "address": f"@{account.handle}@{account.domain or authority}",
                "state": account.state.value,
                "deletion_begins_at": leaving.due_at if leaving and leaving.phase == "cooling" else None,
                "posts": account.posts_count,
                "followers": account.followers_count,
                "connected": connection is not None,
                "last_read_at": connection.last_read_at if connection else None,
                "trouble": connection.trouble if connection else None,
                "trouble_text": connection.trouble_text if connection else None,
                "needs_sign_in": bool(connection and connection.trouble == "sign_in_again"),
            }
        )
    return rows


def login_link(
    handle: Annotated[str, typer.Argument(help="The account.")],
    as_json: AsJson = False,
) -> None:
    """Make a one-time link with which the owner signs in; it works once, for fifteen minutes.

    Example: threadbridge login-link alice
    """
    with ground() as opened:
        token = new_token()

        def add(tx: Tx) -> Any:
            return accounts.add_sign_in_link(tx, accounts.named(tx, handle).id, token_hash(token))

        expires_at = opened.store.transact_now(add)
        url = f"{opened.ids.base}/owner/sign-in?token={token}"
    if as_json:
        print_json({"url": url, "expires_at": expires_at})
    else:
        out.print(url)
