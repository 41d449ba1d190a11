"""The inputs of the Fediverse pasture (funfedi.dev): some 260 forms of a post that somebody once sent.

Rule: the package wants libraries older than ours, so it lives in a folder of its own in the user's cache, is asked
once by an interpreter of its own, and what it said is kept there as JSON. Where the package index is not there, the
tests are skipped with the reason.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "fediverse-pasture-inputs==0.3.0"
INSTALL_SECONDS = 300
_TELL = """
import json
from fediverse_pasture_inputs import available
print(json.dumps({name: data.examples for name, data in available.items()}))
"""


def inputs() -> dict[str, list[dict[str, Any]]]:
    """{set: [properties that a post is made of]}."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "threadbridge-tests"
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / f"{PACKAGE}.json"
    with (cache / "pasture.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of pytest start at once
        if not kept.exists():
            kept.write_text(json.dumps(_asked(cache / PACKAGE)))
    found: dict[str, list[dict[str, Any]]] = json.loads(kept.read_text())
    return found


def _asked(folder: Path) -> Any:
    python = folder / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE],
            check=True, capture_output=True, timeout=INSTALL_SECONDS,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        pytest.skip(
            f"{PACKAGE} could not be installed: {(getattr(error, 'stderr', None) or b'').decode()[-300:] or error}"
        )
    told = subprocess.run([str(python), "-c", _TELL], check=True, capture_output=True, text=True)
    return json.loads(told.stdout)
