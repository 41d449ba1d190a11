"""What lies in deploy/, held against the program, and read by the tools it is written for where they are installed.

Nothing here starts a container or a cluster; each file says what was run and what was not.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.test_promises import COMMANDS, options

from threadbridge.config import ENV_PREFIX, Config
from threadbridge.telemetry import metrics
from threadbridge.web import probes

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
YAML = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])
UNITS = sorted(DEPLOY.glob("*.service"))
FIGURE = re.compile(r"\b((?:threadbridge|process)_[a-z_]+)\b")
STYLE = (
    "{extends: default, rules: {line-length: {max: 140}, document-start: disable, truthy: disable, "
    "comments: {min-spaces-from-content: 1}, quoted-strings: disable}}"
)


def tool(name: str) -> str:
    """Where a program is, beside this Python or on the path; skips the test where it is not."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path, **given: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **given)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def named(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping anywhere in a document."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from named(inner)


def runs(arguments: list[str]) -> None:
    """What is started exists, with these options."""
    assert arguments[0] in COMMANDS, arguments
    assert set(arguments[1:]) <= options(arguments[0]), arguments


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def told() -> set[str]:
    """Every series that /metrics can tell."""
    figures = metrics.Shared(
        waiting={0: 1}, due={0: 1}, age={0: 1.0}, jobs={("read", "waiting"): 1}, hosts={"closed": 1},
        accounts_in_trouble=0, last_read=1.0, last_hour={"delivered": 1}, disk_free=1,
    )  # fmt: skip
    metrics.is_version("0")
    names = set()
    for line in (metrics.own() + metrics.shared(figures)).decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def test_the_dashboard_shows_figures_that_exist_and_all_of_them() -> None:
    board = json.loads((DEPLOY / "grafana" / "threadbridge.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel.get("targets", ())
        for name in FIGURE.findall(target["expr"])
    }
    assert asked <= told(), sorted(asked - told())
    ours = {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in told() if name.startswith("threadbridge_")}
    assert {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in asked if name.startswith("threadbridge_")} == ours
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_the_alerts_ask_for_figures_that_exist_and_say_where_help_is() -> None:
    rules = documents(DEPLOY / "prometheus" / "alerts.yml")[0]["groups"][0]["rules"]
    chapters = re.findall(r"^## (.+)$", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    for rule in rules:
        assert set(FIGURE.findall(rule["expr"])) <= told(), rule["alert"]
        document, chapter = rule["annotations"]["runbook"].split(", ", 1)
        assert (ROOT / document).exists()
        assert chapter.strip('"') in chapters, chapter


def test_promtool_takes_the_rules() -> None:
    run(tool("promtool"), "check", "rules", DEPLOY / "prometheus" / "alerts.yml")


def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    promtool = tool("promtool")
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    (tmp_path / "token").write_text("secret")
    (tmp_path / "prometheus.yml").write_text(
        text.replace("/etc/prometheus/threadbridge.token", str(tmp_path / "token"))
    )
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", tmp_path)
    run(promtool, "check", "config", tmp_path / "prometheus.yml")


# ── settings, commands, probes ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_what_is_set_are_settings(path: Path) -> None:
    known = {ENV_PREFIX + name.upper() for name in Config.model_fields}
    for document in documents(path):
        for mapping in named(document):
            names = {str(name) for name in mapping} | {str(mapping.get("name", ""))}
            assert {name for name in names if name.startswith(ENV_PREFIX)} <= known


def test_the_compose_file_starts_what_exists() -> None:
    compose = documents(DEPLOY / "compose.yaml")[0]
    ours = {name: service for name, service in compose["services"].items() if service["image"] == "threadbridge"}
    assert set(ours) == {"web", "worker"}
    given = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text())) == given
    for service in ours.values():
        runs(service["command"])
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert set(service["networks"]) == {"inside", "outside"}
    assert compose["services"]["database"]["networks"] == ["inside"]
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_file(), volume


def test_the_image_runs_as_nobody_and_starts_what_exists() -> None:
    lines = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", lines, re.MULTILINE)
    runs(json.loads(re.findall(r"^CMD (.*)$", lines, re.MULTILINE)[-1]))
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", lines, re.MULTILINE)[-1]) == ["threadbridge"]
    for source in re.findall(r"^COPY (?!--)(.+) \S+$", lines, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
    extras = set(re.findall(r"\[([a-z0-9,]+)\]\"", lines)[0].split(","))
    assert extras <= set(re.findall(r"^([a-z0-9]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    for path in re.findall(r"(/[a-z]+z)'", lines):
        assert path in probes.PATHS


def test_the_pods_are_those_that_are_meant() -> None:
    folder = DEPLOY / "kubernetes"
    resources = documents(folder / "kustomization.yaml")[0]["resources"]
    assert {path.name for path in folder.glob("*.yaml")} == {*resources, "kustomization.yaml"}
    everything = [document for name in resources for document in documents(folder / name)]
    deployments = {one["metadata"]["name"]: one["spec"] for one in everything if one["kind"] == "Deployment"}
    assert set(deployments) == {"threadbridge-web", "threadbridge-worker"}
    for spec in deployments.values():
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == labels
        container = spec["template"]["spec"]["containers"][0]
        runs(container["args"])
        port = container["ports"][0]
        environment = {one["name"]: one["value"] for one in container.get("env", ())}
        assert str(port["containerPort"]) == environment.get("THREADBRIDGE_PROBE_PORT", "8000")
        assert spec["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"].partition("?")[0] in probes.PATHS
            assert asked["port"] == port["name"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    for one in everything:
        match one["kind"]:
            case "PodDisruptionBudget":
                assert one["spec"]["selector"]["matchLabels"] in [
                    s["selector"]["matchLabels"] for s in deployments.values()
                ]
            case "HorizontalPodAutoscaler":
                assert one["spec"]["scaleTargetRef"]["name"] in deployments
                for figure in one["spec"]["metrics"]:
                    assert figure["type"] == "Resource" or figure["external"]["metric"]["name"] in told()
            case "Service":
                assert one["spec"]["selector"] == deployments["threadbridge-web"]["selector"]["matchLabels"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_units_start_what_exists(unit: Path) -> None:
    text = unit.read_text()
    started = re.findall(r"^ExecStart=/opt/threadbridge/bin/threadbridge (.+)$", text, re.MULTILINE)
    assert len(started) == 1
    runs(started[0].split())
    for wanted in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "UMask=0077"):
        assert f"\n{wanted}\n" in text


# ── the page for the night ───────────────────────────────────────────────────────────────────────────────────────


def test_what_the_page_for_the_night_says_is_said_by_the_program() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    code = re.findall(r"`([^`\n]+)`", page) + re.findall(r"^(?!\{)(.*threadbridge .*)$", page, re.MULTILINE)
    for first, second, rest in re.findall(r"\bthreadbridge ([a-z-]+)(?: ([a-z-]+))?([^`\n|]*)", "\n".join(code)):
        name = f"{first} {second}" if f"{first} {second}" in COMMANDS else first
        if name in COMMANDS:
            assert set(re.findall(r"--[a-z-]+", rest)) <= options(name), name
    wanted = "doctor,queue,queue drop,accounts,hosts list,hosts show,hosts probe,hosts replay,receipts,keys status"
    for name in wanted.split(","):
        assert name in COMMANDS
        assert f"threadbridge {name}" in page
    program = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    said = set(re.findall(r'"event": "([^"]+)"', page)) | {
        "deliveries could not be taken", "outcomes could not be written down", "could not be read",
        "a request failed", "a job failed", "the database cannot be asked: ", "given up",
        "for their turn: is a worker running?",
        "already works as", "The database is of a newer version", "This data belongs to",
        "but it is not this server", " are free in the data folder",
    }  # fmt: skip
    for words in said:
        assert words.strip() in page, words
        assert words in program, words
    figures = " ".join(told())
    for name in re.findall(r"grep ([a-z_]+)`", page):
        assert name in figures or name in program, name


# ── their own tools ──────────────────────────────────────────────────────────────────────────────────────────────


def test_hadolint_takes_the_image() -> None:
    run(tool("hadolint"), DEPLOY / "Dockerfile")


def test_yamllint_takes_every_file() -> None:
    run(tool("yamllint"), "-s", "-d", STYLE, *YAML)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    program = tmp_path / "threadbridge"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copies = []
    for unit in UNITS:
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(unit.read_text().replace("/opt/threadbridge/bin/threadbridge", str(program)))
    done = run(analyze, "verify", *copies)
    complaints = [line for line in done.stderr.splitlines() if any(copy.name in line for copy in copies)]
    assert not complaints, complaints


def test_caddy_takes_its_file(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "DOMAIN": "bridge.example", "BRIDGE": "web:8000"}
    run(tool("caddy"), "validate", "--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile", env=home)
