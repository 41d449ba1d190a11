"""A peer that is a program of others: Fedify and `activitypub-testing` from npm, run by Node.

Rule: they are installed by their lock file into the user's cache and never into the tree. Where Node, npm or the
registry is not there the tests are skipped with the reason; what is installed and fails is a failure.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "node"
LISTS = ("package.json", "package-lock.json", ".npmrc")
INSTALL_SECONDS = 300


def installed() -> Path:
    """The folder with node_modules, installed when it is not there yet; skips when that cannot be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node and npm are not installed: nothing was tried against Fedify and activitypub-testing")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"v(\d+)\.", version)
    if found is None or int(found[1]) < 20:
        pytest.skip(f"Node 20 or newer is needed, here is {version.strip()}")
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in LISTS)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "threadbridge-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"node-{digest}"
    with (cache / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of pytest start at once
        if not folder.exists():
            _install(npm, folder)
    shutil.copy(HERE / "peer.mjs", folder / f"peer-{os.getpid()}.mjs")
    return folder


def _install(npm: str, folder: Path) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in LISTS:
        shutil.copy(HERE / name, unfinished / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=unfinished, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install the peers in time: is the registry reachable?")
    if done.returncode != 0:
        pytest.skip(f"npm could not install the peers: {done.stderr.strip()[-300:]}")
    unfinished.rename(folder)


class Fedify:
    """The Fedify library in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._script = folder / f"peer-{os.getpid()}.mjs"
        self._process = subprocess.Popen(
            ["node", "--no-warnings", str(self._script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, command: str, **given: Any) -> Any:
        """What it answers; an exception over there is an AssertionError here."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **given}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the Node process ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(10)
        self._script.unlink(missing_ok=True)
