"""What waits to leave: shown before the brake is released, and taken back where it should not leave at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from threadbridge import worker
from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.errors import Invalid
from threadbridge.storage import accounts, queued
from threadbridge.storage.store import Tx
from threadbridge.web.receipts import KINDS as KINDS_IN_WORDS

KINDS = (*KINDS_IN_WORDS, "Move", "Follow", "Flag")
"""Of activities, as the ledger names them."""
OWN_WORK = {
    "ask_software": "ask servers what they run",
    "check_domain": "look at an owner's own domain",
    "check_links": "look for links back to a profile",
    "check_stamp": "look whether a quote is allowed",
    "climb_thread": "fetch what an answer answers to",
    "confirm_move": "look whether a follower has moved",
    "find_name": "look up a name",
    "find_post": "fetch a post",
    "look_around": "fetch what stands around an answer",
    "own_word": "say something as this server (complaints, relays)",
    "read_list": "read a list of blocked servers",
    "rotate_key": "go on with a change of keys",
    "tend_host": "look whether a server is back",
    "verify_gone": "look whether somebody is gone",
}

Handle = Annotated[str | None, typer.Option("--handle", help="Only this account.")]


def show_queue(ctx: typer.Context, handle: Handle = None, as_json: AsJson = False) -> None:
    """Show what would be sent: by account and kind, to how many servers, since when. Sends nothing.

    Example: threadbridge queue
    """
    if ctx.invoked_subcommand is not None:
        return
    outward = sorted(set(worker.JOBS) - worker.INWARD)
    with ground() as opened:

        def look(
            tx: Tx,
        ) -> tuple[list[queued.Queued], list[queued.ToAddress], list[queued.OwnWork]]:
            number = accounts.named(tx, handle).id if handle else None
            work = [] if handle else queued.own_work(tx, outward)
            return queued.deliveries(tx, number), queued.to_address(tx, number), work

        waiting, unaddressed, work = opened.store.read_now(look)
        quiet = opened.config.quiet
    if as_json:
        print_json({"brake": quiet, "deliveries": waiting, "to_address": unaddressed, "own_work": work})
        return
    if quiet:
        out.print("The brake is on (THREADBRIDGE_QUIET): nothing of this leaves until it is released.")
    if not (waiting or unaddressed or work):
        out.print("Nothing waits to be sent.")
        return
    if waiting:
        table = Table("Account", "What", "Deliveries", "Servers", "Said since", "To", box=None, pad_edge=False)
        for one in waiting:
            some = ", ".join(one.hosts) + (", …" if one.servers > len(one.hosts) else "")
            table.add_row(
                shown(one.handle), one.kind, _figure(one.deliveries, one.tried), str(one.servers),
                f"{one.about_since:%Y-%m-%d %H:%M}", shown(some),
            )  # fmt: skip
        out.print(table)
    for left in unaddressed:
        out.print(
            f"{shown(left.handle)}: {left.activities} {left.kind} whose recipients are still to be written down, "
            f"since {left.oldest:%Y-%m-%d %H:%M}"
        )
    for own in work:
        out.print(f"This server itself: {own.jobs} × {OWN_WORK.get(own.kind, own.kind)}, {own.due} of them due")


def _figure(deliveries: int, tried: int) -> str:
    return f"{deliveries} ({tried} tried before)" if tried else str(deliveries)


def drop(
    handle: Handle = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind: Create, Update, Delete, …")] = None,
    said_before: Annotated[
        datetime | None,
        typer.Option(
            "--said-before", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Only what was said before (UTC)."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that waits, whatever it is.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only the number is told.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take back what waits to be sent; it ends in the ledger with that reason. Without --yes it only says how many.

    Example: threadbridge queue drop --kind Create --said-before 2026-01-01 --yes
    """
    if not (handle or kind or said_before or everything):
        raise Invalid(
            "It is not said what is to be taken back", hint="Give --handle, --kind or --said-before, or --all."
        )
    if kind is not None and kind not in KINDS:
        raise Invalid(f"There is no such kind as {kind!r}", hint=f"There are: {', '.join(KINDS)}.")
    before = said_before.replace(tzinfo=UTC) if said_before else None
    with ground() as opened:
        store = opened.store
        number = store.read_now(accounts.named, handle).id if handle else None
        if yes:
            ended = 0
            while some := store.transact_now(queued.take_back, account_id=number, kind=kind, said_before=before):
                ended += some
        else:
            ended = store.read_now(queued.count, account_id=number, kind=kind, said_before=before)
    if as_json:
        print_json({"deliveries": ended, "taken_back": yes})
    elif not ended:
        out.print("Nothing of that waits.")
    elif yes:
        out.print(f"Taken back: {ended} {'delivery' if ended == 1 else 'deliveries'}.")
    else:
        out.print(f"{ended} {'delivery' if ended == 1 else 'deliveries'} would be taken back. Add --yes to do it.")
