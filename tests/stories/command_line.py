"""The command line as people use it: a process of its own with its own environment, folder, input and limits.

Processes come from a fork server that has the program loaded already: importing it takes longer than most commands.
(`tests/test_packaging.py` starts the installed program from nothing.)
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pkgutil
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import func, select
from tests.rig import eventually, free_socket

from threadbridge import cli
from threadbridge.storage import schema
from threadbridge.storage.store import Store, Tx

PROCESSES = multiprocessing.get_context("forkserver")
# The command line loads each of its modules when it is used; here all of them have been.
_MODULES = [f"threadbridge.cli.{module.name}" for module in pkgutil.iter_modules(cli.__path__)]
PROCESSES.set_forkserver_preload(
    [
        "threadbridge.demo",
        "threadbridge.sandbox.run",
        "alembic.command",
        *(module for module in _MODULES if not module.endswith("__main__")),
    ]
)


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def went_well(self) -> Done:
        assert self.status == 0, f"status {self.status}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        return self

    def refused(self, *words: str, status: int | None = None) -> Done:
        """It said no in words, on standard error, without a traceback, with a status that means no."""
        assert 1 <= self.status <= 123, f"status {self.status}\n{self.out}\n{self.err}"
        assert status is None or self.status == status, f"status {self.status}\n{self.err}"
        assert self.out == "", self.out
        assert "Traceback" not in self.err, self.err
        assert "unforeseen" not in self.err, self.err
        for word in words:
            assert word in self.err, f"{word!r} is missing in: {self.err}"
        return self


@dataclass
class Running:
    """A command under way."""

    process: Any
    _out: Path
    _err: Path

    @property
    def pid(self) -> int:
        number = self.process.pid
        assert isinstance(number, int)
        return number

    @property
    def out(self) -> str:
        return self._out.read_text(errors="surrogateescape")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="surrogateescape")

    @property
    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def done(self, seconds: float = 60) -> Done:
        """Wait for its end."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"it did not end within {seconds} seconds\n{self.out}\n{self.err}")
        return Done(self.process.exitcode, self.out, self.err)

    def stopped(self, number: signal.Signals = signal.SIGTERM, seconds: float = 8) -> Done:
        """End it with a signal, within the time that is promised."""
        self.send(number)
        return self.done(seconds)


@dataclass
class CommandLine:
    """A bridge's settings and folder, and the commands run with them. There is a space in every path."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with free_socket() as sock:
            self.port = self.port or sock.getsockname()[1]
        self.settings = {
            "BASE_URL": self.base,
            "ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "DATA_DIR": str(self.data),
            "PORT": str(self.port),
            "POLL_SECONDS": "0.2",
            **self.settings,
        }

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data dir"

    def start(
        self,
        *arguments: str | Path,
        stdin: str = "",
        cwd: Path | None = None,
        file_size_limit: int | None = None,
        encoding: str = "utf-8",
        first: Callable[[], None] | None = None,
        **changed: Any,
    ) -> Running:
        """Start a command; `changed` are settings (None: not set), `encoding` is what its terminal understands,
        `first` is called in the new process before anything else (to die at a certain place, to have few files)."""
        number = time.monotonic_ns()
        texts = [self.folder / f"{kind} {number}" for kind in ("in", "out", "err")]
        for text in texts:
            text.write_text(stdin if text is texts[0] else "")
        settings = {name: value for name, value in {**self.settings, **changed}.items() if value is not None}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("THREADBRIDGE_", "XDG_"))}
        environment = {
            **kept,
            "HOME": str(self.folder),
            "COLUMNS": "200",
            **{f"THREADBRIDGE_{name}": value for name, value in settings.items()},
        }
        process = PROCESSES.Process(
            target=_command,
            args=(
                [str(part) for part in arguments],
                environment,
                cwd or self.folder,
                texts,
                file_size_limit,
                encoding,
                first,
            ),
        )
        process.start()
        return Running(process, texts[1], texts[2])

    def run(self, *arguments: str | Path, seconds: float = 60, **given: Any) -> Done:
        return self.start(*arguments, **given).done(seconds)

    @contextmanager
    def serving(self, *options: str, **changed: Any) -> Iterator[Running]:
        """`threadbridge serve`, ready."""
        running = self.start("serve", *options, **changed)
        try:
            eventually(lambda: answers(f"{self.base}/readyz") or _stay(running), 30)
            yield running
        finally:
            if running.alive:
                running.stopped()

    @contextmanager
    def working(self) -> Iterator[Running]:
        """`threadbridge work`, past its start."""
        running = self.start("work")
        try:
            eventually(lambda: "works for" in running.err or _stay(running), 30)
            yield running
        finally:
            if running.alive:
                running.stopped()

    def everything(self) -> dict[str, int]:
        """{table: rows}: what a refused command must leave as it was. Empty when there is no database yet."""
        url = self.settings.get("DATABASE_URL") or f"sqlite:///{self.data / 'threadbridge.sqlite3'}"
        if url.startswith("sqlite") and not (self.data / "threadbridge.sqlite3").exists():
            return {}
        store = Store.open(url)

        def count(tx: Tx) -> dict[str, int]:
            return {
                name: int(tx.execute(select(func.count()).select_from(table)).scalar_one())
                for name, table in schema.metadata.tables.items()
                if name != "figures"
            }

        try:
            return store.read_now(count)
        finally:
            store.close()

    def media_files(self) -> list[Path]:
        """Every file of the media folder."""
        return [path for path in (self.data / "media").rglob("*") if path.is_file()]


def answers(url: str) -> bool:
    """Whether a server is there and content."""
    try:
        return httpx2.get(url, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def _stay(running: Running) -> bool:
    assert running.alive, running.err
    return False


def _command(
    arguments: list[str],
    environment: Mapping[str, str],
    cwd: Path,
    texts: list[Path],
    file_size_limit: int | None,
    encoding: str,
    first: Callable[[], None] | None,
) -> None:
    """In the new process: become the command."""
    for number, (path, flags) in enumerate(zip(texts, (os.O_RDONLY, _WRITE, _WRITE), strict=True)):
        descriptor = os.open(path, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, encoding=encoding)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding=encoding) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["threadbridge", *arguments]
    if file_size_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
    if first is not None:
        first()
    from threadbridge.cli import main

    main()


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_APPEND
