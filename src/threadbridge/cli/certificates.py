"""The command that writes certificates of erasure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.errors import Invalid, NotFound
from threadbridge.portability import certificates
from threadbridge.services import Ground
from threadbridge.storage import certificates as deletions
from threadbridge.storage.store import Tx

Handle = Annotated[str, typer.Argument(help="The account, deleted or not.")]


def certificate(
    handle: Handle,
    post: Annotated[
        str, typer.Argument(metavar="[POST]", help="A deleted post, its number or address; none: the account's.")
    ] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write; none: print it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a signed certificate of what was deleted: which servers were told, when, and what each answered.

    Example: threadbridge certificate alice 17 --output certificate.json
    """
    with ground() as opened:
        made = opened.store.read_now(_made, opened, handle, post)
    if output is None:
        print(made.decode())
        return
    output.write_bytes(made)
    said = json.loads(made)
    if as_json:
        print_json({"file": str(output), "subject": said["subject"], "complete": said["complete"],
                    "counts": said["counts"]})  # fmt: skip
        return
    counted = ", ".join(f"{count:,} {state}" for state, count in said["counts"].items()) or "no server"
    out.print(f"Wrote {shown(str(output))}: {counted}.")
    if not said["complete"]:
        out.print("Some are still being tried: write it anew later.")


def _made(tx: Tx, opened: Ground, handle: str, post: str) -> bytes:
    account_id = deletions.handle_of(tx, handle.strip().lstrip("@"))
    if account_id is None:
        raise NotFound(f"There is no account {handle!r}")
    if not post:
        return certificates.of_account(tx, opened.vault, opened.ids, account_id)
    given = post.rstrip("/").rpartition("/")[2]
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise Invalid(f"{post!r} is no number or address of a post")
    return certificates.of_post(tx, opened.vault, opened.ids, account_id, int(given))
