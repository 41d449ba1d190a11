"""Commands about an account itself: its profile, its aliases, its own domain, its name, its end."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from threadbridge.bridge import holding
from threadbridge.cli.terminal import AsJson, err, ground, out, print_json, shown
from threadbridge.domain.accounts import check_domain, check_handle
from threadbridge.errors import Invalid
from threadbridge.federation import also_known, farewell, own_domain
from threadbridge.portability import certificates
from threadbridge.services import Ground, open_services
from threadbridge.storage import accounts, posts, profiles
from threadbridge.storage import held as held_posts
from threadbridge.storage.profiles import UNCHANGED
from threadbridge.storage.store import Tx

Handle = Annotated[str, typer.Argument(help="The account.")]
_OPERATOR = "the operator"


# ── profile ──────────────────────────────────────────────────────────────────────────────────────────────────────


def show(handle: Handle, as_json: AsJson = False) -> None:
    """Show what an account's profile says beyond what comes from the source.

    Example: threadbridge profile show alice
    """
    with ground() as opened:
        found = opened.store.read_now(_profile, opened, handle)
    _say_profile(found, as_json)


def set_(
    handle: Handle,
    line: Annotated[
        str | None, typer.Option(help="The line that says that this is a bridge; empty: a field says it instead.")
    ] = None,
    default_line: Annotated[bool, typer.Option("--default-line", help="Say it in our words again.")] = False,
    discoverable: Annotated[bool | None, typer.Option(help="Directories and recommendations.")] = None,
    indexable: Annotated[bool | None, typer.Option(help="Search engines and full-text searches.")] = None,
    featured: Annotated[int | None, typer.Option(help="Newest posts on top when none is pinned.")] = None,
    credit: Annotated[list[str] | None, typer.Option(help="A web site that may name the author (repeat it).")] = None,
    hold: Annotated[
        int | None, typer.Option(help="Minutes that new posts wait before they leave, 0 to 15.", min=0, max=15)
    ] = None,
    avatar_alt: Annotated[str | None, typer.Option(help="Description of the profile picture.")] = None,
    header_alt: Annotated[str | None, typer.Option(help="Description of the header picture.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change what an account's profile says; followers' servers are told by themselves.

    Example: threadbridge profile set alice --no-indexable --featured 10
    """
    with ground() as opened:

        def choose(tx: Tx) -> None:
            profiles.choose(
                tx,
                accounts.named(tx, handle).id,
                opened.ids.authority,
                line=None if default_line else line if line is not None else UNCHANGED,
                discoverable=discoverable,
                indexable=indexable,
                featured=featured,
                credit=credit or None,
                avatar_alt=avatar_alt,
                header_alt=header_alt,
            )
            if hold is not None:
                holding.choose(tx, accounts.named(tx, handle).id, hold, _OPERATOR)

        opened.store.transact_now(choose)
        found = opened.store.read_now(_profile, opened, handle)
    _say_profile(found, as_json)


def field(
    handle: Handle,
    name: Annotated[str, typer.Argument(help="The field's name.")],
    value: Annotated[str, typer.Argument(help="Its value; empty takes the field away.")],
    as_json: AsJson = False,
) -> None:
    """Add, change or remove a field of a profile's table. An address is verified when its page links back (rel=me).

    Example: threadbridge profile field alice Website https://alice.example
    """
    with ground() as opened:

        def change(tx: Tx) -> None:
            account = accounts.named(tx, handle)
            held = [(one.name, one.value) for one in profiles.of_account(tx, account.id).fields]
            names = [one for one, _ in held]
            if value and name in names:
                held[names.index(name)] = (name, value)
            elif value:
                held.append((name, value))
            elif name in names:
                del held[names.index(name)]
            else:
                raise Invalid(
                    f"There is no field {name!r}", hint=f"`threadbridge profile show {account.handle}` names them."
                )
            profiles.set_fields(tx, account.id, held)

        opened.store.transact_now(change)
        found = opened.store.read_now(_profile, opened, handle)
    _say_profile(found, as_json)


def header(
    handle: Handle,
    picture: Annotated[Path | None, typer.Argument(help="A picture file; none takes the header away.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set or remove the picture across the top of a profile (Threads has none).

    Example: threadbridge profile header alice sunset.jpg
    """
    with ground() as opened:
        account = opened.store.read_now(accounts.named, handle)
        if picture is not None and not picture.is_file():
            raise Invalid(f"There is no file {str(picture)!r}", hint="Give the path of a picture.")
        row = opened.media.ingest(picture, kind_hint="image") if picture is not None else None
        if row is not None and not row.media_type.startswith("image/"):
            raise Invalid(
                f"A header is a picture, and that is {row.media_type}", hint="Give a JPEG, PNG, GIF or WebP."
            )

        def put(tx: Tx) -> None:
            if row is not None:
                posts.add_media(tx, row)
            profiles.set_header(tx, account.id, row.sha256 if row else None)

        opened.store.transact_now(put)
        found = opened.store.read_now(_profile, opened, handle)
    _say_profile(found, as_json)


def alias(
    handle: Handle,
    other: Annotated[str, typer.Argument(help="@name@server, or the address of the other account.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say that another account is the same person, so that its followers can be moved here.

    Example: threadbridge profile alias alice @alice@old.example
    """
    with ground() as opened:
        account = opened.store.read_now(accounts.named, handle)
        if remove:
            opened.store.transact_now(_remove_alias, account.id, other)
        else:
            asyncio.run(_add_alias(opened, account.id, other))
        found = opened.store.read_now(_profile, opened, handle)
    _say_profile(found, as_json)


async def _add_alias(opened: Ground, account_id: int, other: str) -> None:
    services = open_services(opened)
    try:
        await also_known.add(services.store, services.peers, services.ids, account_id, other)
    finally:
        await services.aclose()


def _remove_alias(tx: Tx, account_id: int, other: str) -> None:
    named = {one.handle: one.uri for one in profiles.of_account(tx, account_id).aliases}
    profiles.remove_alias(tx, account_id, named.get(other.lstrip("@"), other))


def _profile(tx: Tx, opened: Ground, handle: str) -> dict[str, Any]:
    account = accounts.named(tx, handle)
    held = profiles.of_account(tx, account.id)
    ids = opened.ids
    return {
        "handle": account.handle,
        "address": f"@{ids.acct(account.handle, account.domain)}",
        "former_handles": accounts.former_handles(tx, account.id),
        "line": account.bridge_line,
        "discoverable": account.discoverable,
        "indexable": account.indexable,
        "featured": account.featured_count,
        "hold_minutes": held_posts.minutes(tx, account.id),
        "credit": list(account.credit_domains),
        "avatar_alt": account.avatar_alt,
        "header": ids.media(account.header, account.header_type) if account.header and account.header_type else None,
        "header_alt": account.header_alt,
        "fields": [
            {"name": one.name, "value": one.value, "verified_at": one.verified_at, "trouble": one.trouble}
            for one in held.fields
        ],
        "aliases": [{"uri": one.uri, "handle": one.handle, "name": one.name} for one in held.aliases],
    }


def _say_profile(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    out.print(f"[bold]{shown(found['address'])}[/bold]")
    line = found["line"]
    out.print(f"  says that it is a bridge: {'in our words' if line is None else shown(line) or 'in a field'}")
    out.print(f"  discoverable: {_yes(found['discoverable'])}   indexable: {_yes(found['indexable'])}")
    out.print(f"  newest posts on top: {found['featured']}")
    if found["credit"]:
        out.print(f"  named as an author by: {shown(', '.join(found['credit']))}")
    if found["header"]:
        out.print(f"  header: {shown(found['header'])}")
    for one in found["fields"]:
        mark = " (verified)" if one["verified_at"] else f" ({one['trouble']})" if one["trouble"] else ""
        out.print(f"  {shown(one['name'])}: {shown(one['value'])}{shown(mark)}")
    for one in found["aliases"]:
        out.print(f"  also known as @{shown(one['handle'])}")


def _yes(on: bool) -> str:
    return "yes" if on else "no"


# ── domain ───────────────────────────────────────────────────────────────────────────────────────────────────────


def set_domain(
    handle: Handle,
    domain: Annotated[str, typer.Argument(help="The domain, for example example.org.")],
    as_json: AsJson = False,
) -> None:
    """Let an account be found as @handle@domain: says what that web server needs, and uses it once it answers.

    Example: threadbridge domain set alice example.org
    """
    with ground() as opened:
        account = opened.store.read_now(accounts.named, handle)
        chosen = check_domain(domain, private_allowed=bool(opened.config.allowed_private_networks))
        if chosen == opened.ids.authority:
            raise Invalid("That is this server's own name", hint="Accounts are found under it anyway.")
        opened.store.transact_now(profiles.ask_for_domain, account.id, chosen)
        _look(opened, account.id, as_json)


def check_own_domain(handle: Handle, as_json: AsJson = False) -> None:
    """Look whether an account's own domain leads here, and say exactly what is wrong. Ends with 1 when something is.

    Example: threadbridge domain check alice
    """
    with ground() as opened:
        account = opened.store.read_now(accounts.named, handle)
        if opened.store.read_now(profiles.own_domain, account.id) is None:
            raise Invalid(
                f"The account {account.handle!r} has no own domain",
                hint=f"`threadbridge domain set {account.handle} example.org` gives it one.",
            )
        right = _look(opened, account.id, as_json)
    if not right:
        raise typer.Exit(1)


def remove_domain(handle: Handle, as_json: AsJson = False) -> None:
    """Let an account be found under this server's name alone.

    Example: threadbridge domain remove alice
    """
    with ground() as opened:
        account = opened.store.read_now(accounts.named, handle)
        removed = opened.store.transact_now(profiles.remove_domain, account.id)
        address = f"@{opened.ids.acct(account.handle)}"
    if as_json:
        print_json({"removed": removed, "address": address})
    else:
        out.print(f"{'Removed' if removed else 'There was none'}: the account is [bold]{shown(address)}[/bold]")


def _look(opened: Ground, account_id: int, as_json: bool) -> bool:
    """Whether the domain answers rightly."""
    asyncio.run(_look_now(opened, account_id))
    account = opened.store.read_now(accounts.by_id, account_id)
    held = opened.store.read_now(profiles.own_domain, account_id)
    assert account is not None
    assert held is not None
    ready = own_domain.snippets(opened.ids, account, held.domain)
    right = all(level != "error" for level, _ in held.findings)
    if as_json:
        print_json(
            {
                "domain": held.domain,
                "state": held.state,
                "address": f"@{opened.ids.acct(account.handle, account.domain)}",
                "findings": [{"level": level, "words": words} for level, words in held.findings],
                "snippets": {"caddy": ready.caddy, "nginx": ready.nginx, "static": ready.static},
            }
        )
        return right
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    for level, words in held.findings:
        out.print(f"  [{colours[level]}]{level}[/{colours[level]}]  {shown(words)}")
    out.print(f"The account is [bold]@{shown(opened.ids.acct(account.handle, account.domain))}[/bold] now.")
    if account.domain is None:
        out.print(
            "It gets the other name as soon as the domain answers rightly (it is looked at every hour). Either:"
        )
        for name, text in (("Caddy", ready.caddy), ("nginx", ready.nginx), ("a file", ready.static)):
            out.print(f"\n[bold]{name}[/bold]\n{shown(text)}")
    return right


async def _look_now(opened: Ground, account_id: int) -> None:
    services = open_services(opened)
    try:
        async with services.echo_client() as client:
            await own_domain.check_now(services.store, client, services.ids, account_id)
    finally:
        await services.aclose()


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def rename(
    handle: Handle,
    new_handle: Annotated[str, typer.Argument(help="The handle that it gets.")],
    as_json: AsJson = False,
) -> None:
    """Give an account another handle. Its addresses and followers stay; the old handle is found for a year.

    Example: threadbridge accounts rename alice alicia
    """
    with ground() as opened:
        chosen = check_handle(new_handle.strip().lstrip("@").lower())
        renamed = opened.store.transact_now(
            lambda tx: accounts.rename(tx, accounts.named(tx, handle).id, chosen)
        )  # fmt: skip
        address = f"@{opened.ids.acct(renamed.handle, renamed.domain)}"
    if as_json:
        print_json({"handle": renamed.handle, "address": address, "account_id": renamed.id})
    else:
        out.print(f"Renamed: [bold]{shown(address)}[/bold]")


def delete(
    handle: Handle,
    cooling_days: Annotated[
        int, typer.Option(min=0, max=365, help="Days in which it can be taken back.")
    ] = farewell.COOLING.days,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an account: after the days of grace every server that ever got something of it is told, then keys, texts
    and media are erased. The name and all addresses stay gone for ever. Make an archive first: `threadbridge export`.

    Example: threadbridge accounts delete alice
    """
    with ground() as opened:
        account = opened.store.read_now(accounts.named, handle)
        if not yes:
            address = shown(f"@{opened.ids.acct(account.handle, account.domain)}")
            err.print(f"This deletes {address} for good. Type {shown(account.handle)} to say that you mean it:")
            typed = sys.stdin.readline()
            if typed.strip().lstrip("@") != account.handle:
                raise Invalid("The name does not match: nothing was deleted")
        asked = opened.store.transact_now(
            farewell.ask, account.id, _OPERATOR, timedelta(days=cooling_days)
        )  # fmt: skip
        code = opened.store.read_now(certificates.code, opened.vault, account.id)
        proof = f"{opened.ids.base}/certificates/{account.id}/{code}"
    if as_json:
        print_json({"handle": account.handle, "begins_at": asked.due_at, "certificate": proof})
        return
    begins = f"{asked.due_at:%Y-%m-%d %H:%M} UTC"
    out.print(f"@{shown(account.handle)} bridges nothing any more. The deletion begins at {begins},")
    out.print("while `threadbridge serve` or `threadbridge work` runs.")
    out.print(f"  Its certificate, afterwards: {shown(proof)}")
    if cooling_days:
        out.print(f"  `threadbridge accounts undelete {shown(account.handle)}` takes it back until then.")


def undelete(handle: Handle, as_json: AsJson = False) -> None:
    """Take a deletion back, as long as it has not begun.

    Example: threadbridge accounts undelete alice
    """
    with ground() as opened:
        account = opened.store.read_now(accounts.named, handle)
        opened.store.transact_now(farewell.take_back, account.id, _OPERATOR)
        kept = opened.store.read_now(accounts.by_id, account.id)
    assert kept is not None
    if as_json:
        print_json({"handle": kept.handle, "state": kept.state.value})
    else:
        out.print(f"@{shown(kept.handle)} stays; it is {kept.state.value}.")
