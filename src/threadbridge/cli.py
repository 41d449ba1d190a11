"""The command line. Every command works from any directory, without a terminal, on a plain install.

Rule: what went wrong is said in words on standard error, with what to do; a traceback only with `--debug`. Exit
status: 0 done · 1 refused or failed · 2 wrong usage or configuration · 130 interrupted. Remote text is printed with
its control characters removed.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from threadbridge import __version__, config, connecting, doctor, logs, reports, server
from threadbridge.errors import BadConfiguration, DiskFull, Invalid, ThreadbridgeError
from threadbridge.portability import exports, imports, verify
from threadbridge.services import Ground, open_ground, open_services
from threadbridge.sources.threads_download import open_download
from threadbridge.storage import accounts, connections
from threadbridge.storage.store import Tx
from threadbridge.storage.vault import new_rsa_key, new_token, token_hash

app = typer.Typer(
    name="threadbridge",
    help="A federated bridge: Threads accounts in the Fediverse, and everything stays their owners'.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)
# Without `emoji`, or an address such as "host:8:…" turns into a picture.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.callback(invoke_without_command=True)
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and everything in the log.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        out.print(f"threadbridge {__version__}")
        raise typer.Exit
    _root.debug = debug  # type: ignore[attr-defined]  # read by `main` when something fails


def main() -> None:
    """The console script: the only map from errors to exit codes."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = 0
    try:
        app()  # wrong usage is said, and answered with 2, by typer itself
    except ThreadbridgeError as error:
        _say_error(error)
        code = 2 if isinstance(error, BadConfiguration) else 1
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        code = _say_what_the_system_said(error)
    except Exception as error:
        code = _say_unforeseen(error)
    sys.exit(code)


def _say_what_the_system_said(error: OSError) -> int:
    """A full disk is met in places of which we know nothing: libraries unpack things into temporary files."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _say_unforeseen(error)
    _say_error(DiskFull("No space is left", detail=str(error), hint="Free some space and try again."))
    return 1


def _say_unforeseen(error: Exception) -> int:
    if _debugging():
        traceback.print_exc()
    else:
        words = shown(f"{type(error).__name__}: {error}")
        err.print(f"[red]Error:[/red] something unforeseen happened: {words}\nTry again with --debug to see where.")
    return 1


def _debugging() -> bool:
    return bool(getattr(_root, "debug", False)) or "--debug" in sys.argv


def _say_error(error: ThreadbridgeError) -> None:
    if _debugging():
        traceback.print_exc()
    err.print(f"[red]Error:[/red] {shown(str(error))}")


def shown(text: str) -> str:
    """Foreign text for a terminal: no control characters, no markup."""
    plain = text.replace("\t", " ")
    return escape("".join(character if character.isprintable() or character == "\n" else "�" for character in plain))


def _load(**overrides: Any) -> config.Config:
    loaded = config.load(**overrides)
    logs.configure(loaded.log_format, debug=_debugging())
    for name in config.unknown_environment():
        err.print(f"[yellow]Warning:[/yellow] the environment variable {shown(name)} is no setting of threadbridge")
    return loaded


@contextmanager
def _ground(*, needs_base_url: bool = True, **overrides: Any) -> Iterator[Ground]:
    ground = open_ground(_load(**overrides), needs_base_url=needs_base_url)
    try:
        yield ground
    finally:
        ground.close()


@contextmanager
def _progress(description: str, total: float | None = None, *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; `report(completed, total=…, description=…)` moves it."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def report(completed: float, *, total: float | None = None, description: str | None = None) -> None:
            bar.update(task, completed=completed, total=total, description=description)

        yield report


def _print_json(value: Any) -> None:
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(_plain(value), ensure_ascii=not utf8, indent=2) + "\n")


def _plain(value: Any) -> Any:
    """A value as JSON knows it. (`dataclasses.asdict` counts the items of a Counter anew before Python 3.12.)"""
    if is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | float) else str(value)


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    worker: Annotated[bool, typer.Option(help="Also do the work that happens by itself.")] = True,
) -> None:
    """Serve the bridge, with its worker in the same process.

    Example: THREADBRIDGE_BASE_URL=https://bridge.example threadbridge serve --port 8000
    """
    with _ground(host=host, port=port) as ground, server.sole(ground, "web", *(["worker"] if worker else [])):
        sock = server.listen(ground.config.host, ground.config.port)
        bound = sock.getsockname()[1]
        err.print(f"threadbridge {__version__} serves {ground.ids.base} on {ground.config.host}:{bound}")
        server.in_loop(server.run(ground, worker=worker, sock=sock))


@app.command()
def work() -> None:
    """Only the worker: polls, fans out, delivers, builds archives.

    Example: threadbridge work      (beside: threadbridge serve --no-worker)
    """
    with _ground() as ground, server.sole(ground, "worker"):
        err.print(f"threadbridge {__version__} works for {ground.ids.base}")
        server.in_loop(server.run(ground, worker=True))


@app.command()
def demo(
    port: Annotated[
        int, typer.Option(min=0, max=65533, help="First of the three ports on loopback; 0 takes free ones.")
    ] = 8000,
    leave: Annotated[bool, typer.Option("--exit", help="End after the walk, with its status.")] = False,
) -> None:
    """Walk through the main job on this machine: three real servers on loopback, sample data, every step shown.

    Example: threadbridge demo --port 9000
    """
    from threadbridge.demo import run_demo

    logs.configure("text", debug=_debugging())
    raise typer.Exit(run_demo(port, leave=leave, debug=_debugging()))


@app.command()
def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8100,
    empty: Annotated[bool, typer.Option("--empty", help="Begin without the sample people.")] = False,
) -> None:
    """A mock Threads network: the documented API, and a page on which fake people post, edit and delete.

    Example: threadbridge sandbox --port 8100
    then:    threadbridge connect --token TOKEN --graph-url http://127.0.0.1:8100
    """
    from threadbridge.sandbox.run import run_sandbox

    logs.configure("auto", debug=_debugging())
    sock = server.listen(host, port)
    run_sandbox(sock, f"http://{host}:{sock.getsockname()[1]}", seeded=not empty, say=err.print)


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="The download: one or several ZIPs, or a folder.")],
    handle: Annotated[str | None, typer.Option(help="Handle here; the source's user name by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import a Threads data download: posts with their dates and media, silently; nothing is sent to anybody.

    Example: threadbridge import instagram-alice-2026-01-01-part1.zip instagram-alice-2026-01-01-part2.zip
    """
    with _ground() as ground, open_download(files) as download, _progress("Reading", quiet=as_json) as report:
        summary = imports.import_download(
            ground.store,
            ground.media,
            ground.vault,
            download,
            handle=handle,
            dry_run=dry_run,
            new_key=new_rsa_key,
            on_progress=lambda step: report(step.done, total=step.total, description="Importing posts"),
        )
    if as_json:
        _print_json(summary)
    else:
        _print_lines(reports.import_lines(summary))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(shown(line))


@app.command()
def connect(
    token: Annotated[str, typer.Option(help="Access token of the owner; '-' reads it from standard input.")],
    graph_url: Annotated[str | None, typer.Option(help="Where the Threads API lives.")] = None,
    handle: Annotated[str | None, typer.Option(help="Handle here; the profile's by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Connect an account by the Threads API: history is read now, silently; what comes next is bridged.

    Example: threadbridge connect --token - < token.txt
    """
    secret = sys.stdin.readline().strip() if token == "-" else token.strip()  # noqa: S105 (a dash, not a secret)
    if not secret or not secret.isascii() or not secret.isprintable():
        raise Invalid("That is no access token", hint="Give it with --token, or with `--token -` on standard input.")
    with _ground(graph_url=graph_url) as ground, _progress("Reading history", quiet=as_json) as report:
        connected = asyncio.run(_connect(ground, secret, ground.config.graph_url, handle, report))
    account, changes = connected.account, connected.changes
    if as_json:
        _print_json(
            {
                "handle": account.handle,
                "address": f"@{ground.ids.acct(account.handle)}",
                "account_id": account.id,
                "new_account": connected.new_account,
                "posts_new": len(changes.created),
                "posts_recognised": len(changes.recognised),
            }
        )
        return
    out.print(f"Connected: [bold]@{shown(ground.ids.acct(account.handle))}[/bold]")
    out.print(f"  history: {len(changes.created)} posts new, {len(changes.recognised)} known from a download")
    out.print("  New posts go out while `threadbridge serve` runs.")


async def _connect(
    ground: Ground, token: str, graph_url: str, handle: str | None, report: Callable[..., None]
) -> connecting.Connected:
    services = open_services(ground)
    try:
        return await connecting.connect(services, token, graph_url=graph_url, handle=handle, on_page=report)
    finally:
        await services.aclose()


@app.command("accounts")
def list_accounts(as_json: AsJson = False) -> None:
    """List the accounts: state, figures, and what is wrong with their connection.

    Example: threadbridge accounts --json
    """
    with _ground(needs_base_url=False) as ground:
        rows = ground.store.read_now(_account_rows, ground.ids.authority)
    if as_json:
        _print_json(rows)
        return
    if not rows:
        out.print("No accounts yet. `threadbridge import` or `threadbridge connect` make one.")
        return
    table = Table("Handle", "State", "Posts", "Followers", "Source", box=None, pad_edge=False)
    for row in rows:
        words = row["trouble_text"] if row["trouble"] else ("connected" if row["connected"] else "download only")
        if row["trouble"] == "sign_in_again":
            words = f"needs to sign in again: {words}"
        table.add_row(
            f"@{shown(row['handle'])}", row["state"], str(row["posts"]), str(row["followers"]), shown(str(words))
        )
    out.print(table)


def _account_rows(tx: Tx, authority: str) -> list[dict[str, Any]]:
    rows = []
    for account in accounts.listed(tx):
        connection = connections.of_account(tx, account.id)
        rows.append(
            {
                "id": account.id,
                "handle": account.handle,
                "address": f"@{account.handle}@{authority}",
                "state": account.state.value,
                "posts": account.posts_count,
                "followers": account.followers_count,
                "connected": connection is not None,
                "last_read_at": connection.last_read_at if connection else None,
                "trouble": connection.trouble if connection else None,
                "trouble_text": connection.trouble_text if connection else None,
                "needs_sign_in": bool(connection and connection.trouble == "sign_in_again"),
            }
        )
    return rows


@app.command("login-link")
def login_link(
    handle: Annotated[str, typer.Argument(help="The account.")],
    as_json: AsJson = False,
) -> None:
    """Make a one-time link with which the owner signs in; it works once, for fifteen minutes.

    Example: threadbridge login-link alice
    """
    with _ground() as ground:
        token = new_token()

        def add(tx: Tx) -> Any:
            return accounts.add_sign_in_link(tx, accounts.named(tx, handle).id, token_hash(token))

        expires_at = ground.store.transact_now(add)
        url = f"{ground.ids.base}/owner/sign-in?token={token}"
    if as_json:
        _print_json({"url": url, "expires_at": expires_at})
    else:
        out.print(url)


# ── taking everything away ───────────────────────────────────────────────────────────────────────────────────────


@app.command()
def export(
    handle: Annotated[str, typer.Argument(help="The account.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ZIP to write.")],
    as_json: AsJson = False,
) -> None:
    """Write everything an account has into one ZIP that other software reads.

    Example: threadbridge export alice --output alice.zip
    """
    with _ground() as ground, _progress("Writing", quiet=as_json) as report:
        summary = exports.export_now(
            ground.store,
            ground.ids,
            ground.media,
            handle,
            output,
            lambda phase, done, total: report(done, total=total, description=f"Writing {phase}"),
        )
    if as_json:
        _print_json(summary)
    else:
        _print_lines(reports.archive_lines(summary, str(output)))


@app.command("verify")
def verify_(
    file: Annotated[Path, typer.Argument(help="The archive.")],
    as_json: AsJson = False,
) -> None:
    """Check an archive offline: every hash, every count, every reference. Names what is wrong.

    Example: threadbridge verify alice.zip
    """
    report = verify.verify(file)
    if as_json:
        _print_json(report)
    else:
        _print_lines(reports.verify_lines(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command("doctor")
def doctor_(as_json: AsJson = False) -> None:
    """Look for what is wrong with this installation, and say how to mend it.

    Example: threadbridge doctor
    """
    findings = asyncio.run(doctor.examine(_load()))
    if as_json:
        _print_json(findings)
    else:
        marks = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "error": "[red]✗[/red]"}
        for finding in findings:
            out.print(f"{marks[finding.level]} {shown(finding.subject)}: {shown(finding.words)}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
