"""Commands that run something: the server, the worker, the demo, the sandbox."""

from __future__ import annotations

from typing import Annotated

import typer

from threadbridge import __version__, logs, server
from threadbridge.cli.terminal import (
    debugging,
    err,
    ground,
)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    worker: Annotated[bool, typer.Option(help="Also do the work that happens by itself.")] = True,
) -> None:
    """Serve the bridge, with its worker in the same process.

    Example: THREADBRIDGE_BASE_URL=https://bridge.example threadbridge serve --port 8000
    """
    roles = ("web", "worker") if worker else ("web",)
    with ground(running=True, host=host, port=port) as opened, server.sole(opened, *roles):
        sock = server.listen(opened.config.host, opened.config.port)
        bound = sock.getsockname()[1]
        err.print(f"threadbridge {__version__} serves {opened.ids.base} on {opened.config.host}:{bound}")
        server.in_loop(server.run(opened, worker=worker, sock=sock))


def work() -> None:
    """Only the worker: polls, fans out, delivers, builds archives.

    Example: threadbridge work      (beside: threadbridge serve --no-worker)
    """
    with ground(running=True) as opened, server.sole(opened, "worker"):
        err.print(f"threadbridge {__version__} works for {opened.ids.base}")
        server.in_loop(server.run(opened, worker=True))


def demo(
    port: Annotated[
        int, typer.Option(min=0, max=65533, help="First of the three ports on loopback; 0 takes free ones.")
    ] = 8000,
    leave: Annotated[bool, typer.Option("--exit", help="End after the walk, with its status.")] = False,
) -> None:
    """Walk through the main job on this machine: three real servers on loopback, sample data, every step shown.

    Example: threadbridge demo --port 9000
    """
    from threadbridge.demo import run_demo

    logs.configure("text", debug=debugging(), quiet=True)
    raise typer.Exit(run_demo(port, leave=leave, debug=debugging()))


def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8100,
    empty: Annotated[bool, typer.Option("--empty", help="Begin without the sample people.")] = False,
) -> None:
    """A mock Threads network: the documented API, and a page on which fake people post, edit and delete.

    Example: threadbridge sandbox --port 8100
    then:    threadbridge connect --token TOKEN --graph-url http://127.0.0.1:8100
    """
    from threadbridge.sandbox.run import run_sandbox

    logs.configure("auto", debug=debugging())
    sock = server.listen(host, port)
    run_sandbox(sock, f"http://{host}:{sock.getsockname()[1]}", seeded=not empty, say=err.print)
