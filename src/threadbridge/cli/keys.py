"""Commands about signing keys: list them, change them, watch the change, take it back."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import typer
from rich.table import Table

from threadbridge.cli.terminal import AsJson, ground, out, print_json, shown
from threadbridge.federation import rotation
from threadbridge.storage import accounts, keys, rotations
from threadbridge.storage.rotations import Rotation
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import new_rsa_key

Handle = Annotated[str, typer.Argument(help="The account.")]

_USED_FOR = {"rsa": "signs requests", "ed25519": "proves documents"}
_STATES = {
    "current": "in use",
    "next": "on trial",
    "old": "replaced, still published",
    "retired": "retired",
}
_ROTATION = {
    "trying": "on trial",
    "spreading": "changed",
    "restoring": "being taken back",
    "done": "changed",
    "rolled_back": "taken back",
}


def list_keys(handle: Handle, as_json: AsJson = False) -> None:
    """List an account's keys: what each is for, how it stands, and its fingerprint.

    Example: threadbridge keys list alice
    """
    with ground() as opened:
        rows = opened.store.read_now(_rows, opened.ids.actor, handle)
    if as_json:
        print_json(rows)
        return
    table = Table("Key", "For", "State", "Since", "Fingerprint", box=None, pad_edge=False)
    for row in rows:
        since = f"{row['created_at']:%Y-%m-%d %H:%M}"
        name = "#" + shown(row["id"].rpartition("#")[2])
        table.add_row(name, row["for"], row["words"], since, row["fingerprint"][:16])
    out.print(table)


def rotate(handle: Handle, as_json: AsJson = False) -> None:
    """Change an account's RSA key: tried at a few servers first, then told to everybody; taken back by itself when it
    is refused. `threadbridge serve` or `work` does it; this command only asks for it.

    Example: threadbridge keys rotate alice
    """
    with ground() as opened:
        key = new_rsa_key()
        opened.store.transact_now(lambda tx: rotation.begin(tx, opened.vault, accounts.named(tx, handle), key))
        found = opened.store.read_now(_status, handle)
    _say(found, as_json)


def status(handle: Handle, as_json: AsJson = False) -> None:
    """Say how the last change of an account's key stands.

    Example: threadbridge keys status alice
    """
    with ground() as opened:
        found = opened.store.read_now(_status, handle)
    _say(found, as_json)


def rollback(handle: Handle, as_json: AsJson = False) -> None:
    """Take a change of an account's key back, as long as the old key is still published.

    Example: threadbridge keys rollback alice
    """
    with ground() as opened:
        opened.store.transact_now(lambda tx: rotation.roll_back(tx, accounts.named(tx, handle)))
        found = opened.store.read_now(_status, handle)
    _say(found, as_json)


def _rows(tx: Tx, actor: Any, handle: str) -> list[dict[str, Any]]:
    account = accounts.named(tx, handle)
    return [
        {
            "id": f"{actor(account.id)}#{key.fragment}",
            "kind": key.kind,
            "for": _USED_FOR[key.kind],
            "state": key.state,
            "words": _STATES[key.state],
            "created_at": key.created_at,
            "fingerprint": hashlib.sha256(key.public_pem.encode()).hexdigest(),
        }
        for key in keys.every(tx, account.id)
    ]


def _status(tx: Tx, handle: str) -> dict[str, Any]:
    account = accounts.named(tx, handle)
    last = rotations.latest(tx, account.id)
    if last is None:
        return {"handle": account.handle, "state": "never", "words": "the key was never changed", "told": {}}
    told = rotations.totals(tx, last.update_id) if last.update_id is not None else {}
    return {
        "handle": account.handle,
        "state": last.state,
        "words": _words(last),
        "reason": last.reason,
        "started_at": last.started_at,
        "changed_at": last.changed_at,
        "told": told,
    }


def _words(last: Rotation) -> str:
    words = f"{_ROTATION[last.state]}: {last.reason}"
    if last.state == "spreading":
        words += f"; the old key is published until {last.changed_at + rotations.KEPT:%Y-%m-%d}"
    return words


def _say(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    out.print(f"@{shown(found['handle'])}: {shown(found['words'])}")
    if found["told"]:
        counts = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in sorted(found["told"].items()))
        out.print(f"  told of the new key: {counts}")
