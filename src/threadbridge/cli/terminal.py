"""What every command uses: the two consoles, errors in words, the opened ground, progress, JSON.

Rule: remote text is printed with its control characters removed.
"""

from __future__ import annotations

import errno
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from threadbridge.errors import DiskFull, ThreadbridgeError

if TYPE_CHECKING:
    from threadbridge.config import Config
    from threadbridge.services import Ground

# Without `emoji`, or an address such as "host:8:…" turns into a picture.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


_debug = False


def set_debug(debug: bool) -> None:
    """Remember that tracebacks are wanted."""
    global _debug  # noqa: PLW0603 (one process, one command line)
    _debug = debug


def say_what_the_system_said(error: OSError) -> int:
    """A full disk is met in places of which we know nothing: libraries unpack things into temporary files."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return say_unforeseen(error)
    say_error(DiskFull("No space is left", detail=str(error), hint="Free some space and try again."))
    return 1


def say_unforeseen(error: Exception) -> int:
    if debugging():
        traceback.print_exc()
    else:
        words = shown(f"{type(error).__name__}: {error}")
        err.print(f"[red]Error:[/red] something unforeseen happened: {words}\nTry again with --debug to see where.")
    return 1


def debugging() -> bool:
    return _debug or "--debug" in sys.argv


def say_error(error: ThreadbridgeError) -> None:
    if debugging():
        traceback.print_exc()
    err.print(f"[red]Error:[/red] {shown(str(error))}")


def shown(text: str) -> str:
    """Foreign text for a terminal: no control characters, no markup."""
    plain = text.replace("\t", " ")
    return escape("".join(character if character.isprintable() or character == "\n" else "�" for character in plain))


def load(*, running: bool = False, **overrides: Any) -> Config:
    """The settings; the log says everything only of what keeps `running`."""
    from threadbridge import config, logs

    loaded = config.load(**overrides)
    sampled = loaded.log_lines_per_minute if running else None
    logs.configure(loaded.log_format, debug=debugging(), quiet=not running, lines_per_minute=sampled)
    for name in config.unknown_environment():
        err.print(f"[yellow]Warning:[/yellow] the environment variable {shown(name)} is no setting of threadbridge")
    return loaded


@contextmanager
def ground(*, needs_base_url: bool = True, running: bool = False, **overrides: Any) -> Iterator[Ground]:
    from threadbridge.services import open_ground

    opened = open_ground(load(running=running, **overrides), needs_base_url=needs_base_url)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def progress(description: str, total: float | None = None, *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; `report(completed, total=…, description=…)` moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def report(completed: float, *, total: float | None = None, description: str | None = None) -> None:
            bar.update(task, completed=completed, total=total, description=description)

        yield report


def print_json(value: Any) -> None:
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


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(shown(line))
