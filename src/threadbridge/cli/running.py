"""Commands that run something: the server, the worker, the demo, the sandbox."""

from __future__ import annotations

from typing import Annotated

import typer

from threadbridge import __version__, logs, server
from threadbridge.cli.terminal import (
    AsJson,
    debugging,
    err,
    ground,
    print_json,
    print_lines,
    shown,
)
from threadbridge.errors import BadConfiguration


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
        port = opened.config.probe_port
        probed = server.listen(opened.config.host, port) if port else None
        answers = f"; probes on {opened.config.host}:{port}" if port else ""
        err.print(f"threadbridge {__version__} works for {opened.ids.base}{answers}")
        server.in_loop(server.run(opened, worker=True, probed=probed))


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


def drill(
    followers: Annotated[int, typer.Option(min=1, help="How many followers.")] = 10_000,
    hosts: Annotated[int, typer.Option(min=1, help="On how many servers.")] = 1_000,
    dead: Annotated[str, typer.Option(help="Share of servers that refuse connections or never answer.")] = "5%",
    slow: Annotated[str, typer.Option(help="Share that answers after two seconds.")] = "5%",
    too_many: Annotated[str, typer.Option("--429", help="Share that asks to be left alone for a while.")] = "2%",
    failing: Annotated[str, typer.Option("--5xx", help="Share that has trouble for a while.")] = "2%",
    gone: Annotated[str, typer.Option(help="Share that says it is gone.")] = "1%",
    bad_tls: Annotated[str, typer.Option(help="Share whose TLS is broken.")] = "1%",
    seconds: Annotated[float, typer.Option(min=1, help="End after this time at the latest.")] = 60.0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes (PostgreSQL for several).")] = 1,
    database: Annotated[
        str | None, typer.Option(help="A PostgreSQL address; a schema is made there, and dropped afterwards.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Before going live: what this machine carries. A throw-away bridge delivers to servers on loopback, some of
    them ill; the exit status is 1 when anybody was told twice, too early, or not at all.

    Example: threadbridge drill --followers 10000 --hosts 1000 --dead 5% --429 2% --seconds 60
    """
    from threadbridge import drill as drills

    logs.configure("text", debug=debugging(), quiet=True)
    plan = drills.Plan(
        followers=followers, hosts=hosts, dead=_share(dead, "--dead"), slow=_share(slow, "--slow"),
        too_many=_share(too_many, "--429"), failing=_share(failing, "--5xx"), gone=_share(gone, "--gone"),
        bad_tls=_share(bad_tls, "--bad-tls"), seconds=seconds, workers=workers, database=database,
    )  # fmt: skip
    report = drills.drill(plan, lambda words: err.print(shown(words)))
    if as_json:
        print_json(report)
    else:
        print_lines(drills.lines(report))
    if report.broken:
        raise typer.Exit(1)


def _share(text: str, option: str) -> float:
    """A share as people write it: 5%, 0.5%, 0.05."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadConfiguration(f"{option} takes a share such as 5% or 0.05", detail=text[:80])
    return value


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
