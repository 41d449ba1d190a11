"""Commands about new posts that have not left yet: list them, send one now, do not share one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from threadbridge.bridge import holding
from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.storage import accounts, held
from threadbridge.storage.store import Tx

Handle = Annotated[str, typer.Argument(help="The account.")]
Number = Annotated[int, typer.Argument(help="The held post, as `held list` numbers it.", min=1)]
_WHO = "the operator"
_TEXT = 60


def list_held(handle: Handle, as_json: AsJson = False) -> None:
    """List new posts that wait to leave, and those that are not shared.

    Example: threadbridge held list alice
    """
    with ground() as opened:
        minutes, rows = opened.store.read_now(_listed, handle)
    if as_json:
        print_json({"handle": handle, "minutes": minutes, "posts": rows})
        return
    out.print(f"New posts are held for {minutes} minutes." if minutes else "New posts leave at once.")
    if rows:
        table = Table("Number", "State", "Leaves", "Text", box=None, pad_edge=False)
        for row in rows:
            leaves = f"{row['leaves_at']:%Y-%m-%d %H:%M} UTC" if row["leaves_at"] else shown(row["reason"] or "")
            table.add_row(str(row["number"]), row["state"], leaves, shown(row["text"].replace("\n", " ")[:_TEXT]))
        out.print(table)


def _listed(tx: Tx, handle: str) -> tuple[int, list[dict[str, Any]]]:
    account_id = accounts.named(tx, handle).id
    return held.minutes(tx, account_id), [
        {
            "number": one.id,
            "state": one.state,
            "leaves_at": one.due_at if one.state == "held" else None,
            "reason": one.reason,
            "published": one.post.published,
            "url": one.post.permalink,
            "text": one.post.text,
        }
        for one in held.listed(tx, account_id)
    ]


def send(handle: Handle, number: Number, as_json: AsJson = False) -> None:
    """Let a held post leave now, and before it what it continues.

    Example: threadbridge held send alice 3
    """
    _decide(holding.send_now, handle, number, "It leaves now.", as_json)


def cancel(handle: Handle, number: Number, as_json: AsJson = False) -> None:
    """Do not share a held post, nor what continues it.

    Example: threadbridge held cancel alice 3
    """
    _decide(holding.cancel, handle, number, "It is not shared.", as_json)


def _decide(work: Callable[[Tx, int, int, str], None], handle: str, number: int, words: str, as_json: bool) -> None:
    with ground() as opened:
        opened.store.transact_now(lambda tx: work(tx, accounts.named(tx, handle).id, number, _WHO))
    if as_json:
        print_json({"handle": handle, "number": number, "done": words.rstrip(".").lower()})
        return
    out.print(words)
