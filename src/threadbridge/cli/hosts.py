"""Commands about the servers that we deliver to: what is wrong with one, and what to do about it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from threadbridge.activitypub.text import host_of
from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.delivery import tending
from threadbridge.delivery.tending import Found
from threadbridge.errors import Invalid, NotFound
from threadbridge.services import Ground, open_services
from threadbridge.storage import board
from threadbridge.storage.board import Line, Sheet

Host = Annotated[str, typer.Argument(help="The server, as the list names it (with its port, if it has one).")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
LISTED = 500
DAYS_MAX = 30


def list_hosts(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are well.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the servers that have trouble or for which something waits: the worst first, then the longest queues.

    Example: threadbridge hosts list
    """
    with ground(needs_base_url=False) as opened:
        found = opened.store.read_now(board.listed, everything=everything, limit=LISTED)
        now = opened.store.clock()
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("Every server takes what is sent, and nothing waits." if not everything else "No servers yet.")
        return
    table = Table("Server", "State", "Since", "Queued", "Oldest", "Software", "Last error", box=None, pad_edge=False)
    for one in found:
        oldest = _age(one.oldest_at, now) if one.queued else ""
        table.add_row(
            shown(one.host), _state(one), _age(one.failing_since, now), str(one.queued), oldest,
            shown(one.software or ""), shown((one.trouble or "")[:60]),
        )  # fmt: skip
    out.print(table)


def show(host: Host, as_json: AsJson = False) -> None:
    """Show all that is known of a server: its state and last errors, what it runs, which signatures it takes, what
    waits for it, who follows from there.

    Example: threadbridge hosts show mastodon.example
    """
    with ground(needs_base_url=False) as opened:
        name, found = _known(opened, host)
    if as_json:
        print_json(found)
        return
    line = found.line
    out.print(f"[bold]{shown(name)}[/bold] is {_state(line)}")
    rows = [
        ("failing since", _moment(line.failing_since)),
        ("failures in a row", str(line.failures) if line.failures else ""),
        ("parked", _moment(found.parked_at)),
        ("last looked at", _moment(found.probed_at)),
        ("last took something", _moment(line.last_delivered_at) or "never"),
        ("last spoke to us", _moment(line.last_heard_at) or "never"),
        ("runs", line.software or ""),
        ("says it takes", _quota(found)),
        ("waiting", ", ".join(f"{count} {lane}" for lane, count in found.queued_by_lane.items()) or "nothing"),
        ("did not arrive", ", ".join(f"{count} {state}" for state, count in found.ended_badly.items())),
        ("followers", str(found.followers)),
        ("  of which live on", _hosts(found.lives_there) if set(found.lives_there) - {name} else ""),
        ("its people's copies go to", _hosts(found.served_by)),
    ]
    for label, words in rows:
        if words:
            out.print(f"  {label:<26} {shown(words)}")
    for what, signature in found.signatures.items():
        evidence = signature.evidence or "no evidence kept"
        out.print(f"  {'signs ' + what:<26} {shown(f'{signature.scheme} ({evidence})')}")
    for trouble in found.troubles:
        out.print(f"  {_moment(trouble.at):<26} {shown(trouble.words)} ({trouble.times} times)")


def probe(host: Host, as_json: AsJson = False) -> None:
    """Ask a server now whether it is there. If it answers, what waits for it may go, one at a time at first.

    Ends with status 1 when it does not answer. Example: threadbridge hosts probe mastodon.example
    """
    with ground() as opened:
        name, _ = _known(opened, host)
        found = asyncio.run(_probed(opened, name))
    if as_json:
        print_json({"host": name, "there": found.there, "words": found.words, "software": found.software})
    else:
        out.print(f"{shown(name)} {'' if found.there else 'does not answer: '}{shown(found.words)}")
        if found.there:
            out.print("What waits for it goes with `threadbridge serve` or `work`, one at a time until one arrives.")
    if not found.there:
        raise typer.Exit(1)


async def _probed(opened: Ground, name: str) -> Found:
    services = open_services(opened)
    try:
        return await tending.probe(services.store, services.peers, name)
    finally:
        await services.aclose()


def replay(
    host: Host,
    days: Annotated[int, typer.Option(help="What ended within so many days.")] = 7,
    refused: Annotated[bool, typer.Option("--refused", help="Also what the server, or you, refused.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send again what was given up: but not what was said anew or deleted since.

    Example: threadbridge hosts replay mastodon.example --days 14 --yes
    """
    if not 1 <= days <= DAYS_MAX:
        raise Invalid(f"--days is {days}", hint=f"The ledger keeps {DAYS_MAX} days: give 1 to {DAYS_MAX}.")
    with ground(needs_base_url=False) as opened:
        name, found = _known(opened, host)
        states = ("given_up", "refused") if refused else ("given_up",)
        most = sum(found.ended_badly.get(state, 0) for state in states)
        _ask(yes, as_json, f"Send up to {most} deliveries to {name} again?")
        since = opened.store.clock() - timedelta(days=days)
        again, late, place = 0, 0, 0
        while True:
            step = partial(board.replay, since=since, refused_too=refused, after_id=place)
            gone, kept, left = opened.store.transact_now(step, name)
            again, late = again + gone, late + kept
            if left is None:
                break
            place = left
        opened.store.transact_now(board.decided, name, f"{again} deliveries were sent again by the operator")
    if as_json:
        print_json({"host": name, "again": again, "out_of_date": late})
        return
    out.print(f"{again} go to {shown(name)} again; {late} are out of date and stay as they ended.")


def drop(
    host: Host,
    reason: Annotated[str, typer.Option(help="In words; the owners read them.")] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End what waits for a server. Deletions of whole accounts go on; `hosts replay --refused` takes it back.

    Example: threadbridge hosts drop gone.example --reason "closed for good" --yes
    """
    words = "ended by the operator of this server" + (f": {' '.join(reason.split())[:200]}" if reason.strip() else "")
    with ground(needs_base_url=False) as opened:
        name, found = _known(opened, host)
        _ask(yes, as_json, f"End {found.line.queued} deliveries to {name}?")
        ended = 0
        while some := opened.store.transact_now(board.drop, name, words):
            ended += some
        opened.store.transact_now(board.decided, name, f"{ended} deliveries were {words}")
    if as_json:
        print_json({"host": name, "ended": ended})
        return
    out.print(f"{ended} deliveries to {shown(name)} have ended.")


def forgive(host: Host, as_json: AsJson = False) -> None:
    """Forget a server's trouble: its followers are parked no more, and what waits for it goes now.

    Example: threadbridge hosts forgive mastodon.example
    """
    with ground(needs_base_url=False) as opened:
        name, found = _known(opened, host)
        opened.store.transact_now(board.forgive, name)
    if as_json:
        print_json({"host": name, "was": found.line.state, "queued": found.line.queued})
        return
    out.print(f"Forgiven: {shown(name)} was {found.line.state}; {found.line.queued} deliveries are due.")


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _known(opened: Ground, written: str) -> tuple[str, Sheet]:
    name = host_of(written) if "://" in written else written.strip().strip("/").lower()
    found = opened.store.read_now(board.sheet, name)
    if found is None:
        raise NotFound(f"Nothing is known of a server {name!r}", hint="`threadbridge hosts list --all` names them.")
    return name, found


def _ask(yes: bool, as_json: bool, question: str) -> None:
    if yes:
        return
    if as_json:
        raise Invalid("Nobody can be asked with --json", hint="Add --yes.")
    typer.confirm(question, abort=True)


def _state(line: Line) -> str:
    until = f" until {line.until:%Y-%m-%d %H:%M} UTC" if line.until is not None else ""
    return f"{line.state}{until}"


def _quota(found: Sheet) -> str:
    if found.quota is None or found.quota_until is None:
        return ""
    return f"{found.quota} requests until {_moment(found.quota_until)}"


def _hosts(counted: object) -> str:
    assert isinstance(counted, dict)
    return ", ".join(f"{name} ({count})" for name, count in counted.items())


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment is not None else ""


def _age(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return ""
    seconds = max((now - moment).total_seconds(), 0)
    for span, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= span:
            return f"{seconds / span:.0f} {unit}"
    return f"{seconds:.0f} s"
