"""Import and export: posts and megabytes per second, and the memory they take at most."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from PIL import Image
from tests.benchmarks import load

POSTS = 3000
PICTURES = 300


def measure() -> list[tuple[str, float, str, str | None]]:
    with load.folder() as folder:
        download = folder / "instagram-alice-2026-01-01-bench.zip"
        _write(download)
        environment = {
            **os.environ,
            "THREADBRIDGE_BASE_URL": "https://bridge.example",
            "THREADBRIDGE_DATA_DIR": str(folder / "data"),
        }
        imported, import_peak = _run(["import", str(download), "--handle", "alice", "--json"], environment)
        archive = folder / "archive.zip"
        exported, export_peak = _run(["export", "alice", "--output", str(archive), "--json"], environment)
        megabytes = archive.stat().st_size / 1e6
    return [
        ("import", POSTS / imported, "posts/s", None),
        ("import, peak memory", import_peak, "MB", None),
        ("export", megabytes / exported, "MB/s", None),
        ("export, peak memory", export_peak, "MB", None),
    ]


def _run(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(seconds, peak megabytes of the largest process) of a command."""
    started = time.perf_counter()
    code = (
        "import resource,subprocess,sys;"
        "subprocess.run([sys.executable,'-m','threadbridge.cli',*sys.argv[1:]],check=True,stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started, int(answer.stdout.split()[-1]) / 1024


def _write(path: Path) -> None:
    rng = random.Random(7)
    posts = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(POSTS):
            uri = ""
            if number % (POSTS // PICTURES) == 0:
                uri = f"media/posts/202601/{number}_n_{17_900_000_000_000_000 + number}.jpg"
                noise = Image.frombytes("RGB", (64, 64), rng.randbytes(64 * 64 * 3)).resize((1080, 1350))
                target = path.parent / "picture.jpg"
                noise.save(target, quality=90)
                archive.write(target, uri)
            text = f"Post {number}: " + " ".join(rng.choices(["boats", "harbour", "light", "ferry", "#rain"], k=20))
            posts.append({"media": [{"uri": uri, "creation_timestamp": 1_700_000_000 + number * 60, "title": text}]})
        archive.writestr(
            "your_instagram_activity/threads/threads_and_replies.json",
            json.dumps({"text_post_app_text_posts": posts}),
        )
