"""Commands about what became of posts: receipts by server, trying again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from threadbridge.activitypub.ids import Ids
from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.delivery import again
from threadbridge.errors import Invalid, NotFound
from threadbridge.storage import accounts, ledger, posts, views
from threadbridge.storage import receipts as by_server
from threadbridge.storage.receipts import SHOWN, Prospect, Server
from threadbridge.storage.store import Tx
from threadbridge.web import receipts

Handle = Annotated[str, typer.Argument(help="The account.")]
PostArgument = Annotated[str, typer.Argument(metavar="POST", help="The post: its number or its address.")]
LISTED = 500


def show(
    handle: Handle,
    post: PostArgument,
    which: Annotated[str, typer.Option("--show", help=f"One of: {', '.join(SHOWN)}.")] = "everything",
    after: Annotated[str, typer.Option(help="Go on behind this server (500 are listed at a time).")] = "",
    retry: Annotated[bool, typer.Option("--again", help="First try again wherever it has not arrived.")] = False,
    host: Annotated[str, typer.Option(help="With --again: at this server alone.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what became of a post, server by server: delivered when, waiting until when, refused and why.

    Example: threadbridge receipts alice 17 --show problems
    """
    if which not in SHOWN:
        raise Invalid(f"There is no such list as {which!r}", hint=f"There are: {', '.join(SHOWN)}.")
    asked: Prospect | None = None
    with ground() as opened:
        account_id, number = opened.store.read_now(named, opened.ids, handle, post)
        if retry:
            asked = opened.store.transact_now(again.ask, account_id, number, host or None, "the operator")
        found = opened.store.read_now(_shown, account_id, number, which, after)
        uri = opened.ids.post(account_id, number)
    if as_json:
        found["servers"] = receipts.documents(found["servers"])
        print_json({"post": uri, "asked_again": retry, "prospect": asked, **found})
        return
    out.print(shown(uri))
    if retry:
        words = receipts.again_words(asked, _time) if asked is not None else ""
        out.print(f"{words[:1].upper()}{words[1:]}. `threadbridge serve` or `work` does it.")
    for sentence in found["sentences"]:
        out.print(f"  {shown(sentence)}")
    if found["servers"]:
        out.print(_table(found["servers"]))
    if found["next"]:
        out.print(f"More: --after {shown(found['next'])}")


def named(tx: Tx, ids: Ids, handle: str, post: str) -> tuple[int, int]:
    """(account, post) by a handle and what somebody typed for a post. Raises Invalid, NotFound."""
    account = accounts.named(tx, handle)
    given = post.rstrip("/").rpartition("/")[2]
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise Invalid(f"{post!r} is no number or address of a post", hint=f"Like 17, or {ids.post(account.id, 17)}.")
    if posts.by_id(tx, account.id, int(given)) is None:
        raise NotFound(f"There is no post {given} of {handle!r}")
    return account.id, int(given)


def _shown(tx: Tx, account_id: int, number: int, which: str, after: str) -> dict[str, Any]:
    found = by_server.servers(tx, account_id, number, show=which, after=after, limit=LISTED + 1)
    sentences = receipts.sentences(ledger.receipts(tx, [number]).get(number, []))
    post = posts.by_id(tx, account_id, number)
    unfinished = number in views.awaiting_fan_out(tx, [number])
    if not sentences and post is not None:
        words = receipts.without(silent=post.silent, unfinished=unfinished)
        return {"sentences": [f"{words[:1].upper()}{words[1:]}"], "servers": found, "next": None}
    return {
        "sentences": [f"{sentence.kind}: {sentence.words}" for sentence in sentences],
        "servers": found[:LISTED],
        "next": found[LISTED - 1].host if len(found) > LISTED else None,
    }


def _table(servers: list[Server]) -> Table:
    table = Table("Server", "Followers", "What", box=None, pad_edge=False)
    for server in servers:
        said = [
            f"{receipts.KINDS.get(line.kind, line.kind) or 'Before'}: {receipts.line_words(line, server, _time)}"
            for line in server.lines
        ]
        table.add_row(shown(server.host), f"{server.people:,}", shown("\n".join(said)))
    return table


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
