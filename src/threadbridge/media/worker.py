"""The parent's side of `cleaner`: a few children, kept running, ended when they take too long.

Rule: a picture that makes a child hang, crash or grow costs that child and that picture, never this process. A
child that is ended is replaced at the next picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import threadbridge
from threadbridge.errors import DiskFull, MediaRefused, Unavailable

WALL_SECONDS = 60.0
_LONGEST_ANSWER = 1 << 16


class _Child:
    """One cleaner process and the pipe to it. Not thread-safe: the pool lends it to one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, str], seconds: float) -> dict[str, Any] | None:
        """The child's answer, or None when it died or took longer than that."""
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            self.end()
            return None
        line = self._line(process, time.monotonic() + seconds)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.end()
            return None
        return answer

    def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # broken, because the child is gone
                    pipe.close()
        process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.end()
        # A clean environment: the child shall know nothing; where the package lies it is told outright.
        environment = {
            "PYTHONPATH": str(Path(threadbridge.__file__).parent.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "MALLOC_ARENA_MAX": "1",
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "threadbridge.media.cleaner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=environment,
                cwd=os.sep,
                start_new_session=True,  # Ctrl-C is for us; the child ends when its pipe closes
            )
        except OSError as error:
            raise Unavailable("Pictures cannot be read now", detail=str(error)) from None
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert process.stdout is not None
        handle = process.stdout.fileno()
        held = b""
        poller = select.poll()  # select() cannot take descriptors above 1023
        poller.register(handle, select.POLLIN)
        while not held.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                return b""
            part = os.read(handle, 4096)
            held += part
            if not part or len(held) > _LONGEST_ANSWER:
                return b""
        return held


class Cleaners:
    """A pool of children; threads wait for a free one."""

    def __init__(self, children: int, *, seconds: float = WALL_SECONDS) -> None:
        self._seconds = seconds
        self._all = [_Child() for _ in range(children)]
        self._free: queue.LifoQueue[_Child] = queue.LifoQueue()
        for child in self._all:
            self._free.put(child)
        self.close = weakref.finalize(self, _end_all, self._all)

    def clean(self, source: Path, target: Path, media_type: str) -> tuple[int, int, str]:
        """Clean a picture into `target`: (width, height, blurhash). Raises MediaRefused, DiskFull, Unavailable."""
        request = {"source": str(source), "target": str(target), "media_type": media_type}
        child = self._free.get()
        try:
            answer = child.ask(request, self._seconds)
        except BaseException:
            child.end()  # its answer to an abandoned question must not be taken for the next one's
            raise
        finally:
            self._free.put(child)
        if answer is None:
            raise MediaRefused(
                "The picture could not be read within the limits of time and memory",
                detail="the process that decodes pictures ended or took too long",
            )
        if "disk_full" in answer:
            raise DiskFull(
                "No space is left for pictures", detail=answer["disk_full"], hint="Free some space and try again."
            )
        if "refused" in answer:
            raise MediaRefused(answer["refused"], detail=answer.get("detail"))
        return answer["width"], answer["height"], answer["blurhash"]


def _end_all(children: list[_Child]) -> None:
    for child in children:
        child.end()
