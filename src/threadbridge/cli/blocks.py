"""Commands about who may speak here: rules, files, followed lists."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from threadbridge.activitypub import blocklists as files
from threadbridge.activitypub.blocklists import Read
from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.domain.blocks import Severity, SubjectKind, subject_of
from threadbridge.errors import Invalid, NotFound
from threadbridge.federation import blocklists, enforcement
from threadbridge.federation.blocklists import Preview
from threadbridge.services import Ground, open_services
from threadbridge.storage import blocks
from threadbridge.storage.blocks import OPERATOR, Entry

Subject = Annotated[str, typer.Argument(help="A domain, an actor (https://… or @user@host), or a keyword.")]
SeverityOption = Annotated[Severity, typer.Option("--severity", help="How much it forbids.")]
Keyword = Annotated[bool, typer.Option("--keyword", help="The subject is a word or phrase in a reply.")]


def list_blocks(
    owners: Annotated[bool, typer.Option("--owners", help="With the owners' own rules.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the rules about who may speak here, with their holders.

    Example: threadbridge blocks list
    """
    with ground(needs_base_url=False) as opened:
        held = opened.store.read_now(blocks.everything, with_owners=owners)
    if as_json:
        print_json([
            {"held_by": one.held_by, "kind": one.entry.kind, "subject": one.entry.subject,
             "severity": one.entry.severity, "comment": one.entry.comment, "at": one.at}
            for one in held
        ])  # fmt: skip
        return
    if not held:
        out.print("No rules: everybody may speak here. `threadbridge blocks add` makes one.")
        return
    table = Table("Subject", "Kind", "Severity", "Held by", "Comment", box=None, pad_edge=False)
    for one in held:
        entry = one.entry
        table.add_row(shown(entry.subject), entry.kind, entry.severity, one.held_by, shown(entry.comment[:60]))
    out.print(table)


def add(
    subject: Subject,
    severity: SeverityOption = "suspend",
    keyword: Keyword = False,
    comment: Annotated[str, typer.Option(help="Why; it is in exports.")] = "",
    reject_reports: Annotated[bool, typer.Option("--reject-reports", help="Take no reports from there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be cut, change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a rule. What it cuts is parked and comes back with `blocks remove`.

    Example: threadbridge blocks add spam.example --severity suspend --comment "sells followers"
    """
    kind = _kind(subject, keyword)
    entry = Entry(kind, subject_of(kind, subject), severity, comment[:2000], reject_reports=reject_reports)
    with ground(needs_base_url=False) as opened:
        enforcement.check_not_us(opened.ids.authority, [entry])
        if dry_run:
            _say_preview(opened.store.read_now(blocklists.preview, [entry]), as_json=as_json)
            return
        changed = opened.store.transact_now(enforcement.add_rules, OPERATOR, [entry])
    if as_json:
        print_json({"subject": entry.subject, "severity": severity, "changed": bool(changed)})
        return
    out.print(f"{'Done' if changed else 'That was so already'}: {shown(entry.subject)} {entry.severity}")


def remove(subject: Subject, keyword: Keyword = False, as_json: AsJson = False) -> None:
    """Lift a rule of your own; what it had cut comes back.

    Example: threadbridge blocks remove spam.example
    """
    kind = _kind(subject, keyword)
    named = subject_of(kind, subject)
    with ground(needs_base_url=False) as opened:
        if not opened.store.transact_now(enforcement.lift_rule, OPERATOR, kind, named):
            others = [one.held_by for one in opened.store.read_now(blocks.everything, subject=named)]
            hint = (
                f"It stands in {', '.join(others)}; an own rule with --severity allow goes before it."
                if others
                else "`threadbridge blocks list` names them."
            )
            raise NotFound(f"There is no rule of yours about {named}", hint=hint)
    if as_json:
        print_json({"subject": named, "lifted": True})
    else:
        out.print(f"Lifted: {shown(named)}")


def import_list(
    file: Annotated[
        Path, typer.Argument(help="A CSV of Mastodon or FediBlock, or one server per line; - for stdin.")
    ],
    severity: SeverityOption = "suspend",
    replace: Annotated[bool, typer.Option("--replace", help="Lift your rules that the file does not name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the file would cut.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hold the rules of a file. Nothing is stored unless every row is understood.

    Example: threadbridge blocks import domain_blocks.csv --dry-run
    """
    read = files.read(_bytes_of(file), default=severity)
    blocklists.check(read)
    with ground(needs_base_url=False) as opened:
        entries = [blocklists.entry_of(row) for row in read.rows]
        enforcement.check_not_us(opened.ids.authority, entries)
        if dry_run:
            _say_preview(opened.store.read_now(blocklists.preview, entries), read, as_json=as_json)
            return
        changed, same, lifted = opened.store.transact_now(blocklists.import_file, read, replace=replace)
    figures = {"changed": changed, "unchanged": same, "lifted": lifted, "without_effect": read.idle}
    if as_json:
        print_json(figures)
    else:
        out.print(
            f"Imported: {changed} new or changed, {same} as before, {lifted} lifted, {read.idle} without effect"
        )


def export_list(
    file: Annotated[Path | None, typer.Argument(help="Where to write; standard output by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write your own rules about domains as the CSV that Mastodon imports.

    Example: threadbridge blocks export domain_blocks.csv
    """
    with ground(needs_base_url=False) as opened:
        data = opened.store.read_now(blocklists.export)
        held = opened.store.read_now(blocks.of_holder, OPERATOR)
    if as_json:
        print_json([one.entry for one in held])
    elif file is None or str(file) == "-":
        sys.stdout.write(data.decode())
    else:
        file.write_bytes(data)
        out.print(f"Written: {shown(str(file))}")


def preview(
    source: Annotated[str, typer.Argument(help="A file, or the https address of a list.")],
    severity: SeverityOption = "suspend",
    priority: Annotated[int | None, typer.Option(help="As a followed list of this priority.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a list would cut: which servers, and how many followers, reactions, replies, … of each account.

    Example: threadbridge blocks preview https://lists.example/tier0.csv
    """
    with ground() as opened:
        if source.startswith(("https://", "http://")):
            read = asyncio.run(_fetched(opened, source))
        else:
            read = files.read(_bytes_of(Path(source)), default=severity)
        entries = [blocklists.entry_of(row, severity) for row in read.rows]
        cut = opened.store.read_now(blocklists.preview, entries, priority=priority)
    _say_preview(cut, read, as_json=as_json)


# ── followed lists ───────────────────────────────────────────────────────────────────────────────────────────────


def subscribe(
    url: Annotated[str, typer.Argument(help="The https address of a list.")],
    name: Annotated[str, typer.Option(help="What you call it.")] = "",
    priority: Annotated[int, typer.Option(help="The list with the greater number goes first.")] = 0,
    severity: Annotated[
        Literal["suspend", "limit"], typer.Option("--severity", help="The strictest that the list may say.")
    ] = "suspend",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cut.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow a list of blocked servers: it is read every day, and what it retracts is lifted.

    Example: threadbridge blocks subscribe https://lists.example/tier0.csv --severity limit --dry-run
    """
    with ground() as opened:
        read = asyncio.run(_fetched(opened, url))
        if (trouble := blocklists.doubt(read, 0)) is not None:
            raise Invalid("The list is not followed", detail=trouble)
        entries = [blocklists.entry_of(row, severity) for row in read.rows]
        if dry_run:
            cut = opened.store.read_now(blocklists.preview, entries, priority=priority)
            _say_preview(cut, read, as_json=as_json)
            return
        opened.store.transact_now(blocklists.subscribe, url, name=name, priority=priority, severity_cap=severity)
    if as_json:
        print_json({"url": url, "entries": len(entries), "severity_cap": severity, "priority": priority})
        return
    out.print(f"Followed: {shown(url)}, {len(entries)} entries; `threadbridge serve` or `work` reads it now.")


def unsubscribe(
    url: Annotated[str, typer.Argument(help="The address of the list.")], as_json: AsJson = False
) -> None:
    """Follow a list no more; what only it had blocked is lifted.

    Example: threadbridge blocks unsubscribe https://lists.example/tier0.csv
    """
    with ground(needs_base_url=False) as opened:
        if not opened.store.transact_now(blocklists.unsubscribe, url):
            raise NotFound(f"No list is followed at {url}", hint="`threadbridge blocks lists` names them.")
    if as_json:
        print_json({"url": url, "followed": False})
    else:
        out.print(f"Not followed any more: {shown(url)}")


def lists(
    refresh: Annotated[str | None, typer.Option(help="Read this list now, and believe it though it shrank.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the followed lists: how much they say, when they were read, what is wrong.

    Example: threadbridge blocks lists
    """
    with ground(needs_base_url=False) as opened:
        followed = opened.store.read_now(blocks.subscriptions)
        if refresh is not None:
            wanted = next((one for one in followed if one.url == refresh), None)
            if wanted is None:
                raise NotFound(f"No list is followed at {refresh}")
            opened.store.transact_now(blocklists.ask, wanted.id, force=True)
    if as_json:
        print_json(followed)
        return
    if not followed:
        out.print("No list is followed. `threadbridge blocks subscribe` follows one.")
        return
    table = Table("List", "Priority", "At most", "Entries", "Taken over", "Trouble", box=None, pad_edge=False)
    for one in followed:
        at = f"{one.taken_at:%Y-%m-%d %H:%M}" if one.taken_at else "not yet"
        words = shown((one.trouble or "")[:80])
        table.add_row(shown(one.name), str(one.priority), one.severity_cap, str(one.entries), at, words)
    out.print(table)


async def _fetched(opened: Ground, url: str) -> Read:
    services = open_services(opened)
    try:
        read, _ = await blocklists.fetch(services.client, url)
    finally:
        await services.aclose()
    assert read is not None, "without an ETag a list is always read"
    return read


def _bytes_of(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(files.SIZE_MAX + 1)
    try:
        return file.read_bytes()
    except OSError as error:
        raise Invalid(f"{file} could not be read", detail=error.strerror) from None


def _kind(subject: str, keyword: bool) -> SubjectKind:
    if keyword:
        return "keyword"
    return "actor" if "@" in subject or subject.startswith(("https://", "http://")) else "domain"


def _say_preview(cut: Preview, read: Read | None = None, *, as_json: bool = False) -> None:
    problems: list[dict[str, Any]] = [
        {"line": one.line, "problem": one.words} for one in (read.problems if read else ())
    ]
    if as_json:
        losses = [
            {"handle": one.handle, "host": one.host, "becomes": one.standing.name.lower(),
             "followers": one.followers, "reactions": one.reactions, "replies": one.replies,
             "mentions": one.mentions, "quotes": one.quotes, "votes": one.votes, "requests": one.requests}
            for one in cut.losses
        ]  # fmt: skip
        hosts = {host: standing.name.lower() for host, standing in cut.hosts}
        rows = {"rows": len(read.rows), "without_effect": read.idle} if read else {}
        print_json({**rows, "hosts": hosts, "losses": losses, "problems": problems})
        return
    if read is not None:
        out.print(
            f"Read: {len(read.rows)} {'rule' if len(read.rows) == 1 else 'rules'}, {read.idle} lines without effect, "
            f"{len(problems)} not understood."
        )
    for problem in problems[:20]:
        out.print(f"Line {problem['line']} is not understood: {shown(problem['problem'])}")
    if not cut.hosts:
        out.print("Nobody whom we know would be cut.")
        return
    out.print(f"{len(cut.hosts)} servers that we know would be limited or suspended.")
    columns = ("Followers", "Asking", "Reactions", "Votes", "Replies", "Mentions", "Quotes")
    table = Table("Account", "Server", "Becomes", *columns, box=None, pad_edge=False)
    for one in cut.losses:
        counted = (one.followers, one.requests, one.reactions, one.votes, one.replies, one.mentions, one.quotes)
        figures = [str(number) for number in counted]
        table.add_row(shown(one.handle), shown(one.host), one.standing.name.lower(), *figures)
    out.print(table)
