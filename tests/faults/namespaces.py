"""Machines of a small network: each a network namespace with a cable (veth) to one switch (a bridge), which can be
pulled. Needs root, and a kernel that allows it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def unavailable() -> str | None:
    """Why this cannot be done here; None when it can."""
    if shutil.which("ip") is None:
        return "there is no `ip` here (iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"tb{os.getpid()}probe"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"the kernel allows no network namespaces here: {error.stderr.decode().strip()}"
    _ip("netns", "del", name)
    return None


class Network:
    """The switch; the test's own process is at `here`."""

    def __init__(self) -> None:
        # Unlikely to be anybody's: the benchmarking network (RFC 2544), one /24 per test process.
        self._prefix = f"198.{18 + os.getpid() % 2}.{os.getpid() // 2 % 250}"
        self._tag = f"tb{os.getpid() % 100000}"
        self.here = f"{self._prefix}.1"
        self.network = f"{self._prefix}.0/24"
        self._machines: list[str] = []
        _ip("link", "add", self._tag, "type", "bridge")
        _ip("addr", "add", f"{self.here}/24", "dev", self._tag)
        _ip("link", "set", self._tag, "up")

    def machine(self) -> Machine:
        number = len(self._machines) + 2
        name, cable = f"{self._tag}m{number}", f"{self._tag}c{number}"
        _ip("netns", "add", name)
        self._machines.append(name)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", cable, "master", self._tag, "up")
        address = f"{self._prefix}.{number}"
        for words in (("addr", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                      ("link", "set", "lo", "up")):  # fmt: skip
            _ip("-n", name, *words)
        return Machine(name, cable, address)

    def close(self) -> None:
        for name in self._machines:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._tag], check=False, capture_output=True)


class Machine:
    """One of them."""

    def __init__(self, name: str, cable: str, address: str) -> None:
        self._name = name
        self._cable = cable
        self.address = address

    def pull(self) -> None:
        """Nothing comes through from now on, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def plug(self) -> None:
        _ip("link", "set", self._cable, "up")

    def start(self, words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        """A process there."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self._name, *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def inside(self, work: Callable[[], T]) -> T:
        """Run `work` there, in a thread; processes that it starts are there as well."""
        found: list[T] = []

        def enter() -> None:
            with open(f"/run/netns/{self._name}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            found.append(work())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return found[0]


@contextmanager
def network() -> Iterator[Network]:
    made = Network()
    try:
        yield made
    finally:
        made.close()
