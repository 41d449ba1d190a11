"""`make mutants`: how many small faults in the code that keeps strangers out would the tests notice?

Each mutant of the modules in `TARGETS` is tried against the tests named beside it. What survives is printed; those
that docs/mutation.md explains are marked as such. MUTANTS_SECONDS bounds the run (a part of each module's mutants is
then drawn by MUTANTS_SEED), MUTANTS_ONLY names modules, JOBS the processes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, settings
from tests.mutation.mutants import Mutant, Source
from tests.mutation.trial import KILLED, SURVIVED, TIMED_OUT, Baseline, Forked, Trial, spare_keys, try_all

ROOT = Path(__file__).parents[2]
EXPLAINED = ROOT / "docs" / "mutation.md"


def _ground(*subjects: str) -> tuple[str, ...]:
    return tuple(f"tests/ground/test_signatures_{subject}.py" for subject in subjects)


TARGETS: dict[str, tuple[str, ...]] = {
    "signatures/structured": _ground("demands", "rfc9421"),
    "signatures/multikey": _ground("keys", "proofs"),
    "signatures/knocking": _ground("demands"),
    "signatures/keys": _ground("keys", "demands", "proofs", "cavage", "rfc9421", "schemes", "vectors"),
    "signatures/cavage": _ground("cavage", "rfc9421", "schemes", "vectors", "mutations", "agree_with_apsig"),
    "signatures/demands": _ground("demands", "rfc9421"),
    "signatures/rfc9421": _ground("rfc9421", "demands", "schemes", "vectors", "mutations"),
    "signatures/proofs": _ground("proofs"),
    "signatures/schemes": _ground(
        "schemes", "cavage", "rfc9421", "proofs", "vectors", "mutations", "agree_with_apsig"
    ),
    "net/guard": ("tests/world/test_net_guard.py",),
    "net/dialing": (
        "tests/world/test_net_dialing.py",
        "tests/world/test_net_guard.py",
        "tests/world/test_net_client.py",
    ),
    "federation/admission": ("tests/world/test_federation_admission.py", "tests/world/test_federation_each_owner.py"),
    "federation/inbox": ("tests/world/test_federation_inbox.py", "tests/world/test_federation_each_owner.py"),
}
_PYTEST = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler", "-s"]
# Left for others: mutants meet one database, in the file system.
_PYTEST += ["-k", "not postgresql", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
_LIBRARIES = (
    "aiohttp", "alembic", "blurhash", "cryptography.x509", "http_message_signatures", "apsig.draft", "apsig.rfc9421",
    "httpcore2", "httpx2", "hypothesis.strategies", "idna", "ijson", "itsdangerous", "jinja2", "nh3", "orjson",
    "PIL.Image", "pydantic_settings", "py3langid", "rfc8785", "rich.console", "sqlalchemy.orm",
    "starlette.applications", "structlog", "typer", "uvicorn", "yarl",
)  # fmt: skip


_SURVIVOR = "SURVIVED "


class Tally:
    """What became of one module's mutants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0
        self.results: list[tuple[Mutant, str]] = []

    def report(self, mutant: Mutant, said: str) -> None:
        self.results.append((mutant, said))

    @property
    def tried(self) -> int:
        return len(self.results)

    @property
    def survivors(self) -> list[Mutant]:
        return sorted((m for m, said in self.results if said == SURVIVED), key=lambda m: (m.line, m.number))

    def line(self, mutant: Mutant) -> str:
        """How a mutant is called, here and in docs/mutation.md: without line numbers, which move."""
        return f"{self.name} {mutant.function or 'module'}: {mutant.told}"


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._source.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._source.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        tree = ast.fix_missing_locations(self._source.tree)
        exec(compile(tree, str(self._source.path), "exec", dont_inherit=True), vars(module))


class QuickFirst:
    """Runs the tests in the order of their time, and says which one failed."""

    def __init__(self, baseline: Baseline) -> None:
        self._seconds = baseline.seconds
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid


def newly_imported(source: Source, mutant: Mutant, files: list[str], baseline: Baseline) -> Forked:
    """For what only a new import shows: constants, tables, patterns, defaults."""

    def work() -> str:
        mutant.apply()
        sys.meta_path.insert(0, Mutated(source))
        order = QuickFirst(baseline)
        code = pytest.main(["-x", *_PYTEST, *files], plugins=[order])
        return SURVIVED if code == pytest.ExitCode.OK else f"{KILLED} {order.failed}"

    return Forked(work, 30 + 6 * sum(baseline.seconds.values()))


def run_module(name: str, tally: Tally, *, seed: int, ends_at: float, processes: int, again: set[str] | None) -> None:
    module = f"threadbridge.{name.replace('/', '.')}"
    source = Source(ROOT / "src" / "threadbridge" / f"{name}.py", module)
    files = [str(ROOT / file) for file in TARGETS[name]]
    order = [mutant for mutant in source.mutants if again is None or tally.line(mutant) in again]
    tally.total = len(order)
    random.Random(f"{seed} {name}").shuffle(order)
    # The two kinds take their turns in two goes; each gets its share of the time.
    imported = [mutant for mutant in order if mutant.function is None]
    began = time.monotonic()
    share = (ends_at - began) * (1 - len(imported) / max(1, len(order)))
    kept = Path(tempfile.mkstemp(prefix="mutants-")[1])

    def in_functions() -> str:
        with kept.open("w") as file:

            def report(mutant: Mutant, said: str) -> None:
                file.write(json.dumps([mutant.number, said]) + "\n")
                file.flush()

            plugin = Trial(source, order, processes=processes, ends_at=began + share, report=report)
            pytest.main([*_PYTEST, *files], plugins=[plugin])
            file.write(json.dumps([-1, vars(plugin.baseline)]) + "\n")
        return SURVIVED

    forked = Forked(in_functions, 24 * 3600)
    while forked.result() is None:
        time.sleep(0.05)
    numbered = {mutant.number: mutant for mutant in order}
    baseline = Baseline()
    for number, said in map(json.loads, kept.read_text().splitlines()):
        if number == -1:
            baseline = Baseline(**said)
        else:
            tally.report(numbered[number], said)
    kept.unlink()
    if baseline.failed or not baseline.seconds:
        raise SystemExit(f"{name}: red without any mutant: {next(iter(baseline.failed), 'nothing ran')}")

    def waiting() -> Iterator[tuple[Mutant, Callable[[], Forked]]]:
        for mutant in imported:
            if time.monotonic() > ends_at:
                return
            yield mutant, partial(newly_imported, source, mutant, files, baseline)

    for mutant, said in try_all(waiting(), processes):
        tally.report(mutant, said)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("MUTANTS_SECONDS", "7200")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("MUTANTS_SEED", "1")))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--killers", action="store_true", help="also print which test noticed each mutant")
    parser.add_argument("--again", type=Path, help="only the mutants that this earlier output prints as survivors")
    parser.add_argument("only", nargs="*", default=os.environ.get("MUTANTS_ONLY", "").split())
    given = parser.parse_args()
    os.nice(10)
    os.chdir(ROOT)
    settings.register_profile(
        "mutants", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
    )  # fmt: skip
    settings.load_profile("mutants")
    sys.dont_write_bytecode = True
    for library in _LIBRARIES:
        importlib.import_module(library)
    spare_keys()
    again = None
    if given.again is not None:
        again = {line.split(maxsplit=2)[2] for line in given.again.read_text().splitlines() if _SURVIVOR in line}
    names = [name for name in TARGETS if not given.only or any(name.startswith(only) for only in given.only)]
    weights = {name: len(Source(ROOT / "src" / "threadbridge" / f"{name}.py", name).mutants) for name in names}
    explained = set(EXPLAINED.read_text().splitlines()) if EXPLAINED.exists() else set()
    left, remaining = given.seconds, sum(weights.values())
    tallies = []
    for name in names:
        began = time.monotonic()
        tally = Tally(name)
        run_module(
            name,
            tally,
            seed=given.seed,
            ends_at=began + left * weights[name] / remaining,
            processes=given.processes,
            again=again,
        )
        left -= time.monotonic() - began
        remaining -= weights[name]
        tallies.append(tally)
        show(tally, explained, time.monotonic() - began, killers=given.killers)
    tried = sum(tally.tried for tally in tallies)
    survived = sum(len(tally.survivors) for tally in tallies)
    print(
        f"\nseed {given.seed}, {sum(tally.total for tally in tallies)} mutants, {tried} tried, {survived} survived:",
        end=" ",
    )
    print(f"{(tried - survived) / max(1, tried):.1%}")


def show(tally: Tally, explained: set[str], seconds: float, *, killers: bool) -> None:
    tried, survivors = tally.tried, tally.survivors
    slow = sum(1 for _, said in tally.results if said == TIMED_OUT)
    known = [tally.line(mutant) in explained for mutant in survivors]
    print(
        f"{tally.name}: {tried} of {tally.total} tried, {tried - len(survivors)} killed ({slow} by time), "
        f"{(tried - len(survivors)) / max(1, tried):.1%}, {sum(known)} of {len(survivors)} survivors explained, "
        f"{seconds:.0f} s",
        flush=True,
    )
    for mutant, is_known in zip(survivors, known, strict=True):
        print(f"  {'explained' if is_known else _SURVIVOR} {mutant.line:4} {tally.line(mutant)}", flush=True)
    if killers:
        for mutant, said in sorted(tally.results, key=lambda each: each[0].number):
            print(f"  {mutant.line:4} {mutant.told}: {said}")


if __name__ == "__main__":
    main()
