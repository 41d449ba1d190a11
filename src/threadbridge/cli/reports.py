"""Commands about complaints, and about what this server decided by itself."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.errors import NotFound
from threadbridge.federation import report
from threadbridge.storage import accounts, decisions, reports, seen

Number = Annotated[int, typer.Argument(help="The report's number.")]


def list_reports(
    everything: Annotated[bool, typer.Option("--all", help="With those that are resolved.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the complaints from other servers, and ours to them, that are open.

    Example: threadbridge reports list
    """
    with ground(needs_base_url=False) as opened:
        found = opened.store.read_now(reports.page, with_resolved=everything, limit=500)
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("No reports.")
        return
    table = Table("No.", "Way", "Server", "About", "Times", "Since", "Words", box=None, pad_edge=False)
    for one in found:
        since = f"{one.created_at:%Y-%m-%d %H:%M}"
        words = shown(one.content.replace("\n", " ")[:60])
        way = "resolved" if one.resolved_at else one.direction
        table.add_row(str(one.id), way, shown(one.host), shown(one.subject), str(one.times), since, words)
    out.print(table)


def show(number: Number, as_json: AsJson = False) -> None:
    """Show a complaint whole: who is meant, the posts, the words.

    Example: threadbridge reports show 7
    """
    with ground(needs_base_url=False) as opened:
        one = opened.store.read_now(reports.by_id, number)
    if one is None:
        raise NotFound(f"There is no report {number}", hint="`threadbridge reports list --all` names them.")
    if as_json:
        print_json(one)
        return
    out.print(f"[bold]Report {one.id}[/bold] {'from' if one.direction == 'in' else 'to'} {shown(one.host)}")
    out.print(f"  about    {shown(one.subject)}")
    for uri in one.objects:
        out.print(f"  post     {shown(uri)}")
    out.print(f"  said by  {shown(one.by)}, {one.times} time{'s' if one.times != 1 else ''}")
    out.print(f"  since    {one.created_at:%Y-%m-%d %H:%M} UTC")
    if one.resolved_at:
        out.print(f"  resolved {one.resolved_at:%Y-%m-%d %H:%M} UTC: {shown(one.resolution or '')}")
    out.print(f"\n{shown(one.content) or '(no words)'}")


def resolve(
    number: Number,
    note: Annotated[str, typer.Option(help="What was done; kept with the report.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put a complaint aside.

    Example: threadbridge reports resolve 7 --note "asked the owner to add a content warning"
    """
    with ground(needs_base_url=False) as opened:
        if not opened.store.transact_now(reports.resolve, number, note):
            raise NotFound(f"There is no open report {number}", hint="`threadbridge reports list` names them.")
    if as_json:
        print_json({"report": number, "resolved": True})
    else:
        out.print(f"Resolved: report {number}")


def send(
    about: Annotated[str, typer.Argument(help="The address of a reply held here, or of a person met here.")],
    words: Annotated[str, typer.Option("--words", help="What is wrong; their moderators read it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Complain to a server about one of its people; it is sent by this server's own actor.

    Example: threadbridge reports send https://m.example/users/spam --words "the same advert under every post"
    """
    with ground() as opened:
        number = opened.store.transact_now(report.complain, opened.ids, about, words)
    if as_json:
        print_json({"report": number})
        return
    out.print(f"Report {number} goes out while `threadbridge serve` or `work` runs.")


def list_decisions(
    handle: Annotated[str | None, typer.Option(help="Only what concerns this account.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    figures: Annotated[bool, typer.Option("--figures", help="What had no effect, counted by reason.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what this server refused or decided by itself within the last thirty days.

    Example: threadbridge decisions --handle alice
    """
    with ground(needs_base_url=False) as opened:
        if figures:
            counted = opened.store.read_now(seen.dropped)
        else:
            account_id = opened.store.read_now(accounts.named, handle).id if handle else None
            found = [one for _, one in opened.store.read_now(decisions.page, account_id=account_id, limit=limit)]
    if figures:
        if as_json:
            print_json([{"kind": kind, "reason": reason, "times": times} for kind, reason, times in counted])
            return
        table = Table("What", "Reason", "Times", box=None, pad_edge=False)
        for kind, reason, times in counted:
            table.add_row(shown(kind), shown(reason), str(times))
        out.print(table)
        return
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("Nothing was decided by itself within the last thirty days.")
        return
    table = Table("When", "What", "Decision", "About", box=None, pad_edge=False)
    for one in found:
        table.add_row(f"{one.at:%Y-%m-%d %H:%M}", shown(one.kind), shown(one.reason), shown(one.subject))
    out.print(table)
