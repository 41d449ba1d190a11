"""One pytest that tries many mutants: everything is imported and collected once, then each mutant has a forked
process of its own, in which the code of one function is exchanged and the tests that pass through it are run, the
quick ones first, until one fails.

Rule: the parent never runs a test, so that every fork begins from the same state. Whatever the tests wait for is
bounded by their own time without a mutant.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import functools
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.mutation.mutants import Mutant, Source

KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"
_PATIENCE = 15.0
"""Seconds that any mutant is given beyond six times what its tests need."""


@dataclass
class Baseline:
    """What the tests do while nothing is wrong: seconds, and through which functions of the module each passes."""

    seconds: dict[str, float] = field(default_factory=dict)
    through: dict[str, list[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Forked:
    """A forked process that says one word to its parent and is stopped when it takes too long."""

    def __init__(self, work: Callable[[], str], patience: float) -> None:
        self.ends_at = time.monotonic() + patience
        self._folder = tempfile.mkdtemp(prefix="mutant-")
        self._said = Path(self._folder) / "said"
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(work, patience)

    def _become(self, work: Callable[[], str], patience: float) -> None:
        said = KILLED
        try:
            os.setsid()
            _die_with_the_parent()
            os.environ["TMPDIR"] = tempfile.tempdir = self._folder
            silence = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(silence, number)
            resource.setrlimit(resource.RLIMIT_CPU, (int(patience) + 1, int(patience) + 2))
            said = work()
        except BaseException as error:  # the mutant broke what runs the tests
            said = f"{KILLED} {type(error).__name__}"
        finally:
            self._said.write_text(said)
            os._exit(0)

    def result(self) -> str | None:
        """The word, once the process has ended (also by force)."""
        ended, _ = os.waitpid(self.pid, os.WNOHANG)
        if not ended and time.monotonic() < self.ends_at:
            return None
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            if not ended:
                os.kill(self.pid, signal.SIGKILL)
        if not ended:
            os.waitpid(self.pid, 0)
        said = self._said.read_text() if self._said.exists() else ""
        shutil.rmtree(self._folder, ignore_errors=True)
        return said or TIMED_OUT


def try_all(waiting: Iterator[tuple[Mutant, Callable[[], Forked]]], processes: int) -> Iterator[tuple[Mutant, str]]:
    """The result of each, at most so many at once."""
    running: list[tuple[Mutant, Forked]] = []
    more = True
    while more or running:
        while more and len(running) < processes:
            following = next(waiting, None)
            if following is None:
                more = False
                break
            running.append((following[0], following[1]()))
        for one in list(running):
            said = one[1].result()
            if said is not None:
                running.remove(one)
                yield one[0], said
        time.sleep(0.002)


class Trial:
    """The pytest plugin. `report` is called with each mutant and what became of it."""

    def __init__(
        self, source: Source, mutants: list[Mutant], *, processes: int, ends_at: float,
        report: Callable[[Mutant, str], None],
    ) -> None:  # fmt: skip
        self.source, self.mutants, self.processes, self.ends_at = source, mutants, processes, ends_at
        self.report = report
        self.baseline = Baseline()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        functions = dict(_functions(sys.modules[self.source.module]))
        gc.freeze()
        self._measure(session, set(functions))
        if self.baseline.failed:
            return True

        def waiting() -> Iterator[tuple[Mutant, Callable[[], Forked]]]:
            for mutant in self.mutants:
                if mutant.function is None or mutant.function not in functions:
                    continue
                if time.monotonic() > self.ends_at:
                    return
                yield mutant, functools.partial(self._fork, session, mutant, functions[mutant.function])

        for mutant, said in try_all(waiting(), self.processes):
            self.report(mutant, said)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.baseline.failed.append(f"{report.nodeid}\n{report.longreprtext[-2000:]}")

    def _measure(self, session: pytest.Session, functions: set[str]) -> None:
        file = Path(tempfile.mkstemp(prefix="baseline-")[1])

        def work() -> str:
            heard: set[str] = set()

            def trace(frame: FrameType, event: str, _: Any) -> None:
                code = frame.f_code
                if code.co_filename == str(self.source.path):
                    heard.add(code.co_qualname.partition(".<locals>")[0])

            threading.settrace(trace)
            caches = _caches()
            found = self.baseline
            for item, following in zip(session.items, [*session.items[1:], None], strict=True):
                heard.clear()
                sys.settrace(trace)  # anew each time: a test that exhausts the stack ends it
                for cache in caches:
                    cache()
                began = time.monotonic()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                found.seconds[item.nodeid] = time.monotonic() - began
                found.through[item.nodeid] = sorted(heard & functions)
            file.write_text(json.dumps(vars(found)))
            return SURVIVED

        forked = Forked(work, 900)
        while (said := forked.result()) is None:
            time.sleep(0.05)
        if said != SURVIVED:
            self.baseline.failed.append(f"the tests themselves: {said}")
        else:
            self.baseline = Baseline(**json.loads(file.read_text()))
        file.unlink()

    def _fork(self, session: pytest.Session, mutant: Mutant, function: FunctionType) -> Forked:
        seconds, through = self.baseline.seconds, self.baseline.through
        # Whatever ran while the tests were collected is missed, which can only make a mutant survive.
        items = [item for item in session.items if mutant.function in through[item.nodeid]]
        items.sort(key=lambda item: seconds[item.nodeid])
        patience = _PATIENCE + 6 * sum(seconds[item.nodeid] for item in items)

        def work() -> str:
            if not items:
                return SURVIVED
            mutant.apply()
            code = compile(
                ast.fix_missing_locations(self.source.tree), str(self.source.path), "exec", dont_inherit=True
            )
            function.__code__ = next(each for each in _codes(code) if each.co_qualname == mutant.function)
            for cache in _caches():
                cache()
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed:
                    return f"{KILLED} {item.nodeid}"
            return SURVIVED

        return Forked(work, patience)


def spare_keys(number: int = 12) -> None:
    """An RSA key costs a tenth of a second and every fork would make its own: here they are made before."""
    make = rsa.generate_private_key
    kept = {size: [make(public_exponent=65537, key_size=size) for _ in range(number)] for size in (2048,)}

    def next_one(public_exponent: int, key_size: int, backend: object = None) -> rsa.RSAPrivateKey:
        if public_exponent == 65537 and kept.get(key_size):
            return kept[key_size].pop(0)
        return make(public_exponent=public_exponent, key_size=key_size)

    rsa.generate_private_key = next_one


def _die_with_the_parent() -> None:
    """Or an interrupted run would leave whatever hangs behind. (Linux; elsewhere the limits of time remain.)"""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _functions(module: Any) -> Iterator[tuple[str, FunctionType]]:
    """Every function that a module defines, by qualified name, without what decorators put around it."""
    for scope in [module, *(each for each in vars(module).values() if isinstance(each, type))]:
        if isinstance(scope, type) and scope.__module__ != module.__name__:
            continue
        for value in vars(scope).values():
            inner = value.fget if isinstance(value, property) else getattr(value, "__wrapped__", value)
            inner = getattr(inner, "__func__", inner)
            if isinstance(inner, FunctionType) and inner.__code__.co_filename == module.__file__:
                yield inner.__code__.co_qualname, inner


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _caches() -> list[Callable[[], None]]:
    """What the product remembers from one test to the next would hide through which functions the second passes."""
    found = []
    for name, module in list(sys.modules.items()):
        if name.startswith("threadbridge"):
            for value in list(vars(module).values()):
                clear = getattr(value, "cache_clear", None)
                if callable(clear) and not isinstance(value, type):
                    found.append(clear)
    return found
