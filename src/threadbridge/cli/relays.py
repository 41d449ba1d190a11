"""Commands about relays: subscribe, leave, list."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.errors import Invalid
from threadbridge.federation import relay
from threadbridge.services import Ground, open_services

Address = Annotated[
    str, typer.Argument(help="The relay: its inbox (https://relay.example/inbox), or its actor where it has one.")
]


def add(address: Address, as_json: AsJson = False) -> None:
    """Ask a relay to take the public posts of all accounts here. Nothing that it passes on is shown here.

    Example: threadbridge relays add https://relay.example/inbox
    """
    if not address.startswith(("https://", "http://")):
        raise Invalid(
            f"{address!r} is no address", hint="Give the relay's inbox, for example https://relay.example/inbox."
        )
    with ground() as opened:
        inbox, actor_uri = asyncio.run(_ways_in(opened, address))
        opened.store.transact_now(relay.subscribe, opened.ids, address, inbox=inbox, actor_uri=actor_uri)
    if as_json:
        print_json({"address": address, "inbox": inbox, "actor": actor_uri})
        return
    out.print(
        f"Asked: {shown(address)}. `threadbridge serve` or `work` carries it; `relays list` says what they answer."
    )


async def _ways_in(opened: Ground, address: str) -> tuple[str, str | None]:
    services = open_services(opened)
    try:
        services.client.guard.check_url(address)
        if address.rstrip("/").endswith("/inbox"):
            return address, None
        # LitePub's relays are followed like anybody else.
        described = await services.peers.described(address)
        return described.inbox, described.id
    finally:
        await services.aclose()


def remove(address: Address, as_json: AsJson = False) -> None:
    """Leave a relay: it is told, and gets nothing from now on.

    Example: threadbridge relays remove https://relay.example/inbox
    """
    with ground() as opened:
        opened.store.transact_now(relay.unsubscribe, opened.ids, address)
    if as_json:
        print_json({"address": address, "left": True})
        return
    out.print(f"Left: {shown(address)}.")


def list_relays(as_json: AsJson = False) -> None:
    """List the relays, whether they have let us in, and what went wrong when they were asked.

    Example: threadbridge relays list
    """
    with ground() as opened:
        found = opened.store.read_now(relay.listed)
    if as_json:
        print_json(
            [
                {
                    "address": one.address,
                    "state": one.state,
                    "asked_at": one.asked_at,
                    "changed_at": one.changed_at,
                    "trouble": trouble,
                }
                for one, trouble in found
            ]
        )
        return
    if not found:
        out.print("No relays. `threadbridge relays add` asks one.")
        return
    table = Table("Relay", "State", "Since", "Trouble", box=None, pad_edge=False)
    for one, trouble in found:
        table.add_row(shown(one.address), one.state, f"{one.changed_at:%Y-%m-%d %H:%M}", shown(trouble or ""))
    out.print(table)
