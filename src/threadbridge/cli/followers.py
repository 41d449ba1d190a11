"""Commands about followers: list them, let in who waits, turn away, remove, choose whether anybody waits at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from threadbridge.activitypub.ids import Ids
from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.errors import NotFound
from threadbridge.federation import follow
from threadbridge.storage import accounts, followers, peers, requests
from threadbridge.storage.store import Tx

Handle = Annotated[str, typer.Argument(help="The account.")]
Person = Annotated[str, typer.Argument(help="Who: their address (@user@host) or id, as `followers list` shows it.")]
LISTED = 500


def list_followers(
    handle: Handle,
    waiting: Annotated[bool, typer.Option("--waiting", help="Those who wait to be let in.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the latest 500 followers, or those who wait.

    Example: threadbridge followers list alice --waiting
    """
    with ground() as opened:
        rows = opened.store.read_now(_waiting if waiting else _following, handle)
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("Nobody waits." if waiting else "Nobody follows yet.")
        return
    table = Table("Address", "Name", "Since", "Id", box=None, pad_edge=False)
    for row in rows:
        table.add_row(f"@{shown(row['address'])}", shown(row["name"]), f"{row['since']:%Y-%m-%d}", shown(row["id"]))
    out.print(table)


def _following(tx: Tx, handle: str) -> list[dict[str, Any]]:
    found = followers.page(tx, accounts.named(tx, handle).id, limit=LISTED)
    return [{"id": f.peer_uri, "address": f.handle, "name": f.name, "since": f.since} for _, f in found]


def _waiting(tx: Tx, handle: str) -> list[dict[str, Any]]:
    found = requests.page(tx, accounts.named(tx, handle).id, limit=LISTED)
    return [{"id": r.peer_uri, "address": r.handle, "name": r.name, "since": r.asked_at} for _, r in found]


def approve(handle: Handle, person: Person, as_json: AsJson = False) -> None:
    """Let somebody in who waits.

    Example: threadbridge followers approve alice @bob@social.example
    """
    _decide(follow.approve, handle, person, "Let in", as_json)


def reject(handle: Handle, person: Person, as_json: AsJson = False) -> None:
    """Turn somebody away who waits.

    Example: threadbridge followers reject alice @bob@social.example
    """
    _decide(follow.reject, handle, person, "Turned away", as_json)


def remove(handle: Handle, person: Person, as_json: AsJson = False) -> None:
    """End somebody's follow; their server is told.

    Example: threadbridge followers remove alice @bob@social.example
    """
    _decide(follow.remove, handle, person, "Removed", as_json)


def _decide(
    decision: Callable[[Tx, Ids, int, str], None], handle: str, person: str, words: str, as_json: bool
) -> None:
    with ground() as opened:

        def decided(tx: Tx) -> str:
            uri, account_id = _named(tx, person), accounts.named(tx, handle).id
            try:
                decision(tx, opened.ids, account_id, uri)
            except NotFound as error:
                listing = f"threadbridge followers list {handle}{'' if decision is follow.remove else ' --waiting'}"
                raise NotFound(error.public, hint=f"`{listing}` shows who it is about.") from None
            return uri

        uri = opened.store.transact_now(decided)
    if as_json:
        print_json({"handle": handle, "id": uri, "done": words.lower()})
        return
    out.print(f"{words}: {shown(uri)}. `threadbridge serve` or `work` tells their server.")


def _named(tx: Tx, person: str) -> str:
    if person.startswith(("https://", "http://")):
        return person
    uri = peers.uri_of_handle(tx, person.strip().lstrip("@"))
    if uri is None:
        raise NotFound(
            f"Nobody of the address {person!r} is known",
            hint="`threadbridge followers list` shows who is, and their ids.",
        )
    return uri


def approval(
    handle: Handle,
    choice: Annotated[Literal["by-hand", "everybody"], typer.Argument(help="Who may follow.")],
    as_json: AsJson = False,
) -> None:
    """Choose who may follow: everybody at once (who waits is let in), or each by hand.

    Example: threadbridge followers approval alice by-hand
    """
    with ground() as opened:
        changed = opened.store.transact_now(
            lambda tx: follow.choose_approval(tx, opened.ids, accounts.named(tx, handle), choice == "by-hand")
        )
    if as_json:
        print_json({"handle": handle, "approval": choice, "changed": changed})
        return
    words = "Followers are let in by hand" if choice == "by-hand" else "Everybody may follow"
    out.print(f"{words}{'' if changed else ', as before'}.")
