"""Commands that are imported when they are used, and described without being imported.

Rule: `threadbridge --help` reads what the commands say about themselves from their sources; only what is typed is
loaded. Importing all of them takes longer than most of them run.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

Function = Callable[..., object]
Groups = Mapping[str, tuple[str, Mapping[str, Function]]]
Kind = TypeVar("Kind", bound=TyperGroup)


@dataclass(frozen=True, slots=True)
class Later:
    """A function of a module of this package, by its name."""

    module: str
    name: str

    def __call__(self, *args: Any, **named: Any) -> object:
        return self.load()(*args, **named)

    def load(self) -> Function:
        found: Function = getattr(importlib.import_module(f"{__package__}.{self.module}"), self.name)
        return found

    def says(self) -> str:
        """What its docstring says, read from the source."""
        return _docstrings(self.module).get(self.name) or self.load().__doc__ or ""


class Module:
    """A module of this package that is imported when a function of it is needed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, function: str) -> Later:
        return Later(self._name, function)


@cache
def _docstrings(module: str) -> dict[str, str]:
    spec = importlib.util.find_spec(f"{__package__}.{module}")
    try:
        tree = ast.parse(Path(spec.origin).read_bytes()) if spec and spec.origin else ast.Module([], [])
    except (OSError, SyntaxError):
        # A program without its sources says the same, only later.
        return {}
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.FunctionDef)}


class Root(TyperGroup):
    """The program. Its own help shows each command with its first words, and loads none."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        loaded = self.commands
        if isinstance(loaded, Commands):
            self.commands = loaded.described()
        try:
            super().format_help(ctx, formatter)
        finally:
            self.commands = loaded


class Commands(MutableMapping[str, Any]):
    """{name: command or group of commands}, each made when it is asked for. A group that is a command too does that
    when it stands alone."""

    def __init__(self, commands: Mapping[str, Function], groups: Groups) -> None:
        self._commands = commands
        self._groups = groups
        self._names = [*(name for name in commands if name not in groups), *groups]
        self._made: dict[str, Any] = {}

    def described(self) -> dict[str, Any]:
        """Stand-ins that say what each does."""
        return {name: TyperCommand(name, help=self._about(name)) for name in self._names}

    def _about(self, name: str) -> str:
        if name not in self._commands:
            return self._groups[name][0]
        command = self._commands[name]
        return command.says() if isinstance(command, Later) else command.__doc__ or ""

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._group(name) if name in self._groups else self._command(name)
        return self._made[name]

    def _command(self, name: str) -> Any:
        app = typer.Typer(rich_markup_mode="rich", add_completion=False)
        app.command(name)(_loaded(self._commands[name]))
        return typer.main.get_command(app)

    def _group(self, name: str) -> TyperGroup:
        about, commands = self._groups[name]
        if name in self._commands:
            app = typer.Typer(name=name, rich_markup_mode="rich", add_completion=False)
            app.callback(invoke_without_command=True)(_loaded(self._commands[name]))
        else:
            app = typer.Typer(
                name=name, help=about, no_args_is_help=True, rich_markup_mode="rich", add_completion=False
            )
            app.callback()(_nothing)
        for second, command in commands.items():
            app.command(second)(_loaded(command))
        return typed(app, TyperGroup)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands are not taken away")


def _nothing() -> None:
    pass


def _loaded(command: Function) -> Function:
    return command.load() if isinstance(command, Later) else command


def typed(app: typer.Typer, kind: type[Kind]) -> Kind:
    """The group that an assembled application is."""
    made = typer.main.get_command(app)
    assert isinstance(made, kind)
    return made
