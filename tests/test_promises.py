"""The documents, executable: what README, FEDERATION and the tables in docstrings promise is there, and nothing else.

Documents are read as text; the truth is taken from the running program (its commands, settings, routes, tables).
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route, Router

from threadbridge import cli, errors, worker
from threadbridge.config import CONFIG_FILE, ENV_PREFIX, Config, fixed
from threadbridge.federation import inbox
from threadbridge.services import open_ground, open_services
from threadbridge.web.app import Front, create_app

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "threadbridge"
DOCUMENTS = ["README.md", "FEDERATION.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
README = (ROOT / "README.md").read_text()
FEDERATION = (ROOT / "FEDERATION.md").read_text()


def commands_of(group: Any, prefix: str = "") -> dict[str, Any]:
    """Everything that can be typed after `threadbridge`, also of two words."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if not hasattr(command, "commands"):
            found[prefix + name] = command
            continue
        if command.invoke_without_command:
            found[prefix + name] = command
        found |= commands_of(command, f"{prefix}{name} ")
    return found


COMMANDS: dict[str, Any] = commands_of(cli.assembled())
# What other tools leave in a checkout, and what git does not keep.
LEFT_BEHIND = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "dist",
               "build", "var", "node_modules", ".idea", ".vscode", ".coverage"}  # fmt: skip


def chapter(text: str, title: str) -> str:
    """One chapter of a document, without its title."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^##? |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no chapter {title!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    ruled = [number for number, row in enumerate(rows) if set("".join(row)) <= set("-| ")]
    return [row for number, row in enumerate(rows) if number not in ruled and number + 1 not in ruled]


def codes(text: str) -> list[str]:
    """Everything in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def files(*folders: str) -> Iterator[Path]:
    """Files of the project as git would keep them."""
    for folder in folders or (".",):
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            if (
                path.is_file()
                and not LEFT_BEHIND & set(parts)
                and not any(part.endswith(".egg-info") for part in parts)
            ):
                yield path


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_command_is_in_the_table_and_no_other() -> None:
    named = [codes(row[0]) for row in table(chapter(README, "Commands"))]
    assert sorted(named) == sorted([name] for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_help_has_an_example_that_can_be_typed(name: str) -> None:
    help_text = str(COMMANDS[name].help)
    assert f"threadbridge {name}" in help_text.partition("Example:")[2], help_text
    known = options(name)
    assert known - {"--help"} or name == "work"
    for option in re.findall(r"--[a-z-]+", help_text):
        assert any(option in options(command) for command in COMMANDS), f"{option} in the help of {name}"


def options(command: str) -> set[str]:
    found = {"--help", "--debug", "--version"}
    for parameter in COMMANDS[command].params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def test_what_a_script_would_read_can_be_json() -> None:
    told = {name for name in COMMANDS if "--json" in options(name)}
    assert told == set(COMMANDS) - {"serve", "work", "demo", "sandbox"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_line_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()] + codes(text)
    for line in lines:
        found = re.search(r"\bthreadbridge ([a-z-]+)(.*)", line)
        if found is None:
            continue
        second = re.match(r" ([a-z-]+)", found[2])
        name = f"{found[1]} {second[1]}" if second and f"{found[1]} {second[1]}" in COMMANDS else found[1]
        if not found[2] and any(known.startswith(f"{name} ") for known in COMMANDS):
            continue  # a group, named as such
        assert name in COMMANDS, line
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", found[2]):
            assert option in options(name), line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_everything_that_can_be_made_is_in_the_makefile(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / document).read_text()
    for target in re.findall(r"(?:^|`|and )(?:[A-Z]+=\w+ )?make ([a-z]+)\b", text, re.MULTILINE):
        assert target in targets, f"make {target} in {document}"


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def shown_default(name: str, default: Any) -> str | None:
    """How the table has to show a default; None where words say what takes its place."""
    if name == "data_dir":
        return "`~/.local/share/threadbridge`"
    if default is None:
        return None
    if default in ("", ()):
        return "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`{', '.join(map(str, default))}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_every_setting_is_in_the_table_with_its_default_and_no_other() -> None:
    rows = {codes(row[0])[0]: row for row in table(chapter(README, "Settings"))}
    assert set(rows) == {ENV_PREFIX + name.upper() for name in Config.model_fields}
    for name, field in Config.model_fields.items():
        _, default, meaning = rows[ENV_PREFIX + name.upper()]
        wanted = shown_default(name, field.default)
        assert default == wanted or (wanted is None and default), f"{name}: {default}, but it is {wanted}"
        assert meaning
        assert field.description, name


def test_every_variable_that_a_document_names_is_a_setting() -> None:
    known = {ENV_PREFIX + name.upper() for name in Config.model_fields} | {ENV_PREFIX + "CONFIG"}
    for path in files():
        if path.suffix in (".png", ".ico") or path.is_relative_to(ROOT / "tests"):
            continue
        for name in re.findall(rf"\b{ENV_PREFIX}[A-Z_]*[A-Z]\b", path.read_text()):
            assert name in known or name.startswith(f"{ENV_PREFIX}TEST"), f"{name} in {path}"
    assert CONFIG_FILE in README


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def served_routes(folder: Path) -> set[str]:
    """Every path that the running server answers at."""

    async def collect() -> set[str]:
        ground = open_ground(fixed(base_url="https://bridge.example", data_dir=folder))
        services = open_services(ground)
        try:
            front = create_app(services)
            assert isinstance(front, Front)
            router = front._app
            assert isinstance(router, Router)
            paths = [route.path for route in router.routes if isinstance(route, Route)]
            assert len(paths) == len(router.routes) == len(set(paths))
            return {re.sub(r":\w+\}", "}", path) for path in paths}
        finally:
            await services.aclose()
            ground.close()

    return asyncio.run(collect())


def test_every_route_is_in_the_table_and_no_other(tmp_path: Path) -> None:
    named = [path for row in table(chapter(README, "Routes")) for path in codes(row[0])]
    assert len(named) == len(set(named))
    assert set(named) == served_routes(tmp_path)


# ── the map ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_floors_in_the_map_are_the_floors_that_are_held() -> None:
    from tests.test_architecture import FLOORS

    drawn = re.findall(r"```\n(errors ·.*?)```", chapter(README, "Map"), re.DOTALL)[0]
    names = [
        name
        for line in drawn.splitlines()
        for name in line.partition("  ")[0].strip("· ").split(" · ")
    ]  # fmt: skip
    assert names == FLOORS
    there = {path.stem for path in SRC.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__main__"} == set(FLOORS)


def test_every_place_in_the_map_exists() -> None:
    folder = ""
    for row in table(chapter(README, "Map")):
        for place in codes(row[1]):
            candidates = [SRC / place, ROOT / place, SRC / folder / place]
            assert any(candidate.exists() for candidate in candidates), f"{place} in the map"
            folder = place.partition("/")[0] if "/" in place else folder


def test_every_package_and_every_folder_of_tests_is_in_the_map() -> None:
    text = chapter(README, "Map")
    packages = {path.parent.name for path in SRC.glob("*/__init__.py")}
    missing = {name for name in packages if f"{name}/" not in text}
    assert not missing
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name not in LEFT_BEHIND}
    assert not {name for name in folders if f"`{name}`" not in text and f"`tests/{name}`" not in text}
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in LEFT_BEHIND | {".ci"}}
    assert top == {"src", "tests", "templates", "deploy", "docs"}


@pytest.mark.parametrize("document", [*DOCUMENTS, *(f"docs/{p.relative_to(ROOT / 'docs')}" for p in files("docs"))])
def test_every_link_between_documents_leads_somewhere(document: str) -> None:
    file = ROOT / document
    text = file.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "#")):
            assert (file.parent / target.partition("#")[0]).exists(), f"{target} in {document}"
    for place in codes(text):
        if re.fullmatch(r"(?:tests|docs|deploy|templates|src)/[\w./-]+", place):
            found = (ROOT / place).exists() or any(ROOT.glob(f"{place}-*"))
            assert found, f"{place} in {document}"


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\(([\w.-]+\.md)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("0*.md"))
    for path in folder.glob("0*.md"):
        title = path.read_text().splitlines()[0]
        assert f"[{title.removeprefix('# ')}]({path.name})" in (folder / "README.md").read_text()


def test_every_file_of_deploy_is_mentioned_and_starts_what_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for path in files("deploy"):
        name = path.relative_to(ROOT).as_posix()
        assert name in README or name in makefile, name
    unit = (ROOT / "deploy" / "threadbridge.service").read_text()
    command = re.search(r"^ExecStart=\S+/threadbridge (\S+)$", unit, re.MULTILINE)
    assert command
    assert command[1] in COMMANDS


# ── tables in docstrings ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_of_verbs_is_what_the_server_reacts_to() -> None:
    told: dict[str, set[str]] = {}
    pattern = r"^    ([A-Z]\w+(?:, [A-Z]\w+)*)  +([a-z]+\.[a-z_]+(?:, [a-z]+\.[a-z_]+)*)"
    read_as = {"EmojiReact": "Like", "Accept": "Answer", "Reject": "Answer", "Add": "Arrange", "Remove": "Arrange",
               "QuoteRequest": "Request", "ReplyRequest": "Request"}  # fmt: skip
    for kinds, verbs in re.findall(pattern, str(inbox.__doc__), re.MULTILINE):
        for kind in kinds.split(", "):
            told.setdefault(read_as.get(kind, kind), set()).update(verbs.split(", "))
    done: dict[str, set[str]] = {}
    for kind, verb in inbox.VERBS.items():
        name = kind.__name__.removesuffix("Of")
        module = verb.__module__.rpartition(".")[2]
        if module == "inbox":
            done[name] = {
                ".".join(called)
                for called in re.findall(
                    r"\b(follow|relay|react|reply|actor|quote|vote|answering|rules)\.(\w+)(?=[(,\s)])", _source(verb)
                )
            }
        else:
            done[name] = {f"{module}.{verb.__name__}"}
    assert told == done


def _source(function: Any) -> str:
    return inspect.getsource(function).partition("\n")[2]


def test_the_table_of_jobs_is_what_the_worker_does() -> None:
    told = dict(re.findall(r"^    ([a-z_]+)  +(\S+)", str(worker.__doc__), re.MULTILINE))
    assert set(told) == set(worker.JOBS)
    for kind, place in told.items():
        module, _, name = place.rpartition(".")
        where = importlib.import_module(f"threadbridge.{module}") if module else worker
        assert hasattr(where, name), f"{kind}: {place}"


def test_the_tree_of_errors_is_the_tree_of_errors() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = ["ThreadbridgeError"]
    for branch, name in re.findall(r"^    ([│├└─ ]+)(\w+)", str(errors.__doc__), re.MULTILINE):
        depth = len(branch) // 4
        del above[depth:]
        drawn[name] = above[-1]
        above.append(name)
    real = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.ThreadbridgeError)
    }
    del real["ThreadbridgeError"]
    assert drawn == real


# ── FEDERATION.md, CHANGELOG.md ──────────────────────────────────────────────────────────────────────────────────


def test_every_enhancement_proposal_is_named_where_it_is_kept() -> None:
    code = "\n".join(path.read_text() for path in files("src") if path.suffix == ".py")
    told = set(re.findall(r"FEP-[0-9a-f]{4}", FEDERATION))
    kept = set(re.findall(r"FEP-[0-9a-f]{4}", code))
    assert told - {"FEP-67ff"} == kept  # 67ff is FEDERATION.md itself
    for number in re.findall(r"\[FEP-([0-9a-f]{4})\]\(([^)]*)\)", FEDERATION):
        assert number[1].endswith(f"/fep/{number[0]}/fep-{number[0]}.md")


def test_federation_tells_every_verb() -> None:
    text = chapter(FEDERATION, "What is understood")
    for kind in inbox.VERBS:
        name = kind.__name__.removesuffix("Of")
        for word in {
            "Answer": ("Accept", "Reject"),
            "Arrange": ("Add", "Remove"),
            "Request": ("QuoteRequest", "ReplyRequest"),
        }.get(name, (name,)):
            assert f"`{word}" in text, kind


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()


# ── what belongs in no file ──────────────────────────────────────────────────────────────────────────────────────

# Written so that this file does not hold what it looks for.
UNWANTED = {
    "a path of somebody's machine": r"/(?:work|root|Users)/\w|/home/(?!user\b)\w+/|/tmp/(?:bash|tmp|brief)",
    "a package registry's host": r"py[p]i\.org|pythonho[s]ted|registry\.np[m]js|crate[s]\.io|gho[s]t?\.io/v2",
    "the number of an issue": r"\b[Ii]ssues? #?\d|\b(?:[Ff]ixes|[Cc]loses|[Ss]ee) #\d|\bPR #?\d",
    "a note that is kept elsewhere": r"\bDESI[G]N\b|LIBRARIE[S]\.md|\b(?:protocol|bridges)\.m[d]\b|\bT-\d\d\b",
    "something left for later": r"\b(?:TO[D]O|FI[X]ME|XX[X])\b",
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(UNWANTED))
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(UNWANTED[what])
    for path in files():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode().splitlines(), 1):
            found = pattern.search(line)
            assert found is None, f"{path.relative_to(ROOT)}:{number}: {found[0]}"


def test_every_module_says_what_lives_in_it() -> None:
    for path in files("src", "tests"):
        if path.suffix == ".py" and "versions" not in path.parts:
            assert ast.get_docstring(ast.parse(path.read_text())), path
