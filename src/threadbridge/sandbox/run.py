"""`threadbridge sandbox`: the mock network on a socket until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

from threadbridge import server
from threadbridge.sandbox import sample
from threadbridge.sandbox.app import create_app
from threadbridge.sandbox.network import Network


def run_sandbox(sock: socket.socket, base_url: str, *, seeded: bool, say: Callable[[str], None]) -> None:
    """Serve the mock network; with `seeded` it begins with the sample people. Ends on SIGINT or SIGTERM."""
    network = Network()
    if seeded:
        sample.seed(network)
    say(f"The mock Threads network answers on {base_url}/ (its page) and {base_url}/v1.0/ (its API)")
    for person in network.people.values():
        say(f"  @{person.username}  token {person.token}")
        say(f"  threadbridge connect --token {person.token} --graph-url {base_url}")
    server.in_loop(_serve(create_app(network, base_url), sock))


async def _serve(app: object, sock: socket.socket) -> None:
    serving = server.http_server(app)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        serving.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await serving.serve(sockets=[sock])
