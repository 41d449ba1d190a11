"""From the post at its source to the last delivery, and from a request to its answer, the log bears one id: through
web and worker processes, and whatever id a stranger brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import orjson
from tests.rig import BackgroundLoop, Served, Stranger, eventually, free_socket
from tests.stories.bridged_account import Threads
from tests.stories.command_line import CommandLine, answers

from threadbridge.sandbox.network import Network

FORGED = "f" * 32


def lines(*logs: str) -> list[dict[str, Any]]:
    """The JSON lines of several logs."""
    return [json.loads(line) for log in logs for line in log.splitlines() if line.startswith("{")]


def events(told: list[dict[str, Any]]) -> set[str]:
    return {line["event"] for line in told}


def test_it_does(tmp_path: Path) -> None:
    with free_socket() as sock:
        probe = sock.getsockname()[1]
    shell = CommandLine(tmp_path / "a home", {"LOG_FORMAT": "json", "PROBE_PORT": str(probe)})
    loop = BackgroundLoop()
    threads_at, stranger_at = free_socket(), free_socket()
    threads = Threads(loop, Network(), f"http://127.0.0.1:{threads_at.getsockname()[1]}")
    bob = Stranger(f"http://127.0.0.1:{stranger_at.getsockname()[1]}")
    served = [Served(loop, threads.app(), threads_at), Served(loop, bob.create_app(), stranger_at)]
    try:
        token = threads.person.token
        shell.run("connect", "--token", token, "--graph-url", threads.base).went_well()
        with shell.serving("--no-worker") as web, shell.working() as worker:
            inbox = f"{shell.base}/ap/users/1/inbox"
            follow = bob.activity("Follow", f"{shell.base}/ap/users/1")
            body = orjson.dumps(follow)
            brought = {
                "X-Request-Id": FORGED,
                "traceparent": f"00-{FORGED}-{'a' * 16}-01",
                "X-Correlation-Id": FORGED,
            }
            answer = httpx2.post(inbox, content=body, headers={**bob.signed(inbox, body), **brought}, trust_env=False)
            assert answer.status_code == 202, answer.text
            eventually(lambda: bob.of_kind("Accept"))

            def of_the_follow() -> list[dict[str, Any]]:
                told = lines(web.err, worker.err)
                heard = [line for line in told if line["event"] == "heard" and line["activity"] == follow["id"]]
                assert len({line["trail"] for line in heard}) <= 1
                return [line for line in told if heard and line.get("trail") == heard[0]["trail"]]

            wanted = {"heard", "an activity was said", "deliveries settled"}
            eventually(lambda: wanted <= events(of_the_follow()))
            assert {line["activity"] for line in of_the_follow()} == {follow["id"], bob.of_kind("Accept")[0]["id"]}

            bob.answer = lambda number: 500 if number == 1 else 202
            threads.post("Good morning")
            said = eventually(lambda: [line for line in lines(worker.err) if line.get("said") == "Create"])[0]
            assert said["post"]
            assert said["activity"].startswith(f"{shell.base}/ap/users/1/posts/{said['post']}")

            def of_the_post() -> list[dict[str, Any]]:
                return [line for line in lines(web.err, worker.err) if line.get("trail") == said["trail"]]

            wanted = {"an account was read", "an activity was said", "an activity was addressed",
                      "a delivery did not arrive", "deliveries settled"}  # fmt: skip
            eventually(lambda: wanted <= events(of_the_post()))
            late = next(line for line in of_the_post() if line["event"] == "a delivery did not arrive")
            assert (late["status"], late["outcome"], late["attempt"]) == (500, "waiting", 1)
            assert late["activity"] == said["activity"]
            assert late["again_at"]

            # The refusal is told its id, and that is not the one that was brought.
            bent = {**bob.signed(inbox, body), "digest": "SHA-256=" + "A" * 43 + "=", **brought}
            before = shell.everything()
            refused = httpx2.post(inbox, content=body, headers=bent, trust_env=False)
            assert refused.status_code in (400, 401)
            named = refused.headers["x-request-id"]
            eventually(lambda: [e for e in lines(web.err) if e.get("trail") == named and "refused" in e["event"]])
            assert shell.everything() == before
            assert FORGED not in web.err + worker.err

            # The worker has no web side, and answers the probes all the same.
            here = f"http://127.0.0.1:{probe}"
            assert answers(f"{here}/livez")
            assert answers(f"{here}/readyz")
            own = httpx2.get(f"{here}/metrics", trust_env=False).text
            assert 'threadbridge_delivery_attempts_total{lane="post",outcome="waiting"} 1.0' in own
            assert 'threadbridge_reads_total{outcome="ok"}' in own
            assert "threadbridge_backlog_age_seconds" not in own
            assert "threadbridge_backlog_age_seconds" in httpx2.get(f"{here}/metrics?collect=shared").text
            assert httpx2.get(f"{here}/", trust_env=False).status_code in (404, 421)
    finally:
        for one in served:
            one.stop()
        loop.close()
