"""Commands about the servers that we deliver to: what is wrong with one, and what to do about it."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

import typer

from threadbridge.activitypub.text import host_of
from threadbridge.cli.terminal import AsJson, err, ground, out, print_json, shown
from threadbridge.delivery import tending
from threadbridge.delivery.tending import Found
from threadbridge.domain import hosts as rules
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
    rows = [
        {
            "Server": one.host,
            "State": _state(one, now),
            "Since": _age(one.failing_since, now),
            "Queued": f"{one.queued} ({_age(one.oldest_at, now)})" if one.queued else "",
            "Last error": _brief(one.trouble or one.refusal or "", one.host),
        }
        for one in found
    ]
    names = [name for name in rows[0] if name == "Last error" or any(row[name] for row in rows)]
    # One server, one line: an error that is too long for the terminal is whole in `hosts show`.
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    last = names[-1]
    widths[last] = max(out.width - sum(widths[name] + 2 for name in names[:-1]), 20)
    for row in [dict(zip(names, names, strict=True)), *rows]:
        line = "  ".join(row[name].ljust(widths[name]) for name in names[:-1])
        error = row[last] if len(row[last]) <= widths[last] else row[last][: widths[last] - 1] + "…"
        out.print(shown(f"{line}  {error}".rstrip()))


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
    verb = "" if _refuses(line) else "is "
    out.print(f"[bold]{shown(name)}[/bold] {verb}{_state(line)}")
    rows = [
        ("failing since", _moment(line.failing_since)),
        ("failures in a row", str(line.failures) if line.failures else ""),
        ("last refused with", line.refusal or ""),
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
        out.print(f"  {_moment(trouble.at):<26} {shown(trouble.words)} ({_times(trouble.times)})")


def probe(host: Host, as_json: AsJson = False) -> None:
    """Ask a server now whether it is there. If it answers, what waits for it may go, one at a time at first.

    Ends with status 1 when it does not answer. Example: threadbridge hosts probe mastodon.example
    """
    with ground() as opened:
        name, _ = _known(opened, host)
        quiet = opened.config.quiet
        found = asyncio.run(_probed(opened, name))
    if as_json:
        said = {"host": name, "there": found.there, "words": found.words, "software": found.software}
        print_json({**said, "brake": quiet})
    else:
        out.print(f"{shown(name)} {'' if found.there else 'does not answer: '}{shown(found.words)}")
        if found.there and quiet:
            out.print("The brake is on (THREADBRIDGE_QUIET): nothing goes until it is released.")
        elif found.there:
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
        if not most:
            _nothing(as_json, {"host": name, "again": 0, "out_of_date": 0}, f"Nothing was given up for {name}.")
            return
        _ask(yes, as_json, f"Send up to {_deliveries(most)} to {name} again?")
        since = opened.store.clock() - timedelta(days=days)
        again, late, place = 0, 0, 0
        while True:
            step = partial(board.replay, since=since, refused_too=refused, after_id=place)
            gone, kept, left = opened.store.transact_now(step, name)
            again, late = again + gone, late + kept
            if left is None:
                break
            place = left
        opened.store.transact_now(board.decided, name, f"{_deliveries(again)} sent again by the operator")
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
    words = board.BY_HAND + (f": {' '.join(reason.split())[:200]}" if reason.strip() else "")
    with ground(needs_base_url=False) as opened:
        name, found = _known(opened, host)
        if not found.line.queued:
            _nothing(as_json, {"host": name, "ended": 0}, f"Nothing waits for {name}.")
            return
        _ask(yes, as_json, f"End {_deliveries(found.line.queued)} to {name}?")
        ended = 0
        while some := opened.store.transact_now(board.drop, name, words):
            ended += some
        opened.store.transact_now(board.decided, name, f"{_deliveries(ended)} {words}")
    if as_json:
        print_json({"host": name, "ended": ended})
        return
    out.print(f"{_deliveries(ended)} to {shown(name)} {'has' if ended == 1 else 'have'} ended.")


def forgive(host: Host, as_json: AsJson = False) -> None:
    """Forget a server's trouble: its followers are parked no more, and what waits for it goes now.

    Example: threadbridge hosts forgive mastodon.example
    """
    with ground(needs_base_url=False) as opened:
        name, found = _known(opened, host)
        opened.store.transact_now(board.forgive, name)
        was = _state(found.line)
    if as_json:
        print_json({"host": name, "was": found.line.state, "queued": found.line.queued})
        return
    due = found.line.queued
    out.print(f"Forgiven: {shown(name)} was {was}; {_deliveries(due)} {'is' if due == 1 else 'are'} due.")


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
    err.print(shown(f"{question} [y/N]"), end=" ")
    answer = sys.stdin.readline()
    if not answer:
        raise Invalid("Nobody answered", hint="Where nobody can be asked, add --yes.")
    if answer.strip().lower() not in ("y", "yes"):
        raise typer.Abort


def _nothing(as_json: bool, as_data: dict[str, object], words: str) -> None:
    if as_json:
        print_json(as_data)
    else:
        out.print(shown(words))


def _deliveries(count: int) -> str:
    return f"{count:,} {'delivery' if count == 1 else 'deliveries'}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _refuses(line: Line) -> bool:
    return line.state == "closed" and not line.failures and line.refusal is not None


def _state(line: Line, now: datetime | None = None) -> str:
    """In words; with `now`, so briefly that it fits into a table."""
    if now is None or line.until is None:
        until = _moment(line.until)
    else:
        until = f"{line.until:%H:%M}" if line.until - now < timedelta(hours=20) else f"{line.until:%-d %b}"
    return rules.in_words(line.state, line.failures, until, refuses=line.refusal is not None)


def _brief(words: str, host: str) -> str:
    """An error without what the table says already: the address, the beginning of what the server sent."""
    words = re.sub(rf"https?://{re.escape(host)}\S*\s*", "", words)
    return re.sub(r"^(\d+: [^(]*?)\s*\(.*", r"\1", words)[:80]


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
