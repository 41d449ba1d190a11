"""The floors of the house, executable: who may import whom, where each library lives, what stays pure.

Imports are read from the syntax tree, those inside functions and under TYPE_CHECKING included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "threadbridge"

# From left to right; one inner list is one floor's neighbours, which may not import each other either, except as
# their order here allows.
FLOORS = [
    "errors", "config", "domain", "signatures", "activitypub",
    "telemetry", "storage", "net", "media", "sources",
    "delivery", "federation", "bridge", "portability",
    "services", "connecting", "web", "worker", "server", "sandbox", "logs", "reports", "doctor", "demo", "drill",
    "cli",
]  # fmt: skip
PURE = ("errors", "domain", "signatures", "activitypub")
IMPURE_MODULES = {
    "asyncio", "datetime.now", "logging", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "structlog",
    "subprocess", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip

# A library may be imported in these places and nowhere else.
HOMES = {
    "sqlalchemy": ("storage",),
    "alembic": ("storage",),
    "sqlite3": ("storage",),
    "psycopg": ("storage",),
    "httpcore2": ("net",),
    "aiohttp": ("net",),
    "obstore": ("media.shelves",),
    "httpx2": ("demo",),
    "cryptography": ("signatures", "storage.vault"),
    "http_message_signatures": ("signatures",),
    "starlette": ("web", "sandbox"),
    "jinja2": ("web", "sandbox"),
    "itsdangerous": ("web",),
    "uvicorn": ("server",),
    "PIL": ("media", "sandbox.drawing"),
    "blurhash": ("media",),
    "nh3": ("activitypub.text",),
    "idna": ("net",),
    "ijson": ("sources", "portability.contents"),
    "py3langid": ("sources",),
    "prometheus_client": ("telemetry.metrics",),
    "opentelemetry": ("telemetry.traces",),
    "typer": ("cli",),
    "click": ("cli",),
    "pydantic": ("config",),
    "pydantic_settings": ("config",),
}


def modules() -> list[tuple[str, ast.Module]]:
    """(dotted name below threadbridge, syntax tree) of every module but migrations, whose form Alembic dictates."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        relative = path.relative_to(SRC)
        if "migrations" in relative.parts:
            continue
        parts = relative.with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found.append((name, ast.parse(path.read_text(), str(path))))
    return found


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(module or module.name, line) of every import anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def floor_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def ours(target: str) -> str | None:
    """The part of an imported name below threadbridge, or None."""
    if target == "threadbridge" or not target.startswith("threadbridge."):
        return None
    return target.removeprefix("threadbridge.")


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_only_from_its_own_floor_or_from_the_left(name: str, tree: ast.Module) -> None:
    if name in ("", "__main__"):
        return
    here = FLOORS.index(floor_of(name))
    for target, line in imported(tree):
        below = ours(target)
        if below is None or below == "__version__":
            continue
        there = floor_of(below)
        assert there in FLOORS, f"{name}:{line} imports {target}, which stands on no floor"
        assert FLOORS.index(there) <= here, f"{name}:{line} imports {target}, to its right"


def test_no_import_circles() -> None:
    names = {name for name, _ in modules()}
    graph: dict[str, set[str]] = {}
    for name, tree in modules():
        targets = set()
        for target, _ in imported(tree):
            below = ours(target)
            while below and below not in names:
                below = below.rpartition(".")[0]
            if below and below != name:
                targets.add(below)
        graph[name] = targets
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for target in sorted(graph[name]):
            walk(target, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        walk(name, ())


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_each_library_has_one_home(name: str, tree: ast.Module) -> None:
    for target, line in imported(tree):
        homes = HOMES.get(target.split(".")[0])
        if homes is None:
            continue
        at_home = any(name == home or name.startswith(home + ".") for home in homes)
        assert at_home, f"{name}:{line} imports {target}; its home is {', '.join(homes)}"


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_left_of_storage_all_is_pure(name: str, tree: ast.Module) -> None:
    if floor_of(name) not in PURE:
        return
    for target, line in imported(tree):
        assert target not in IMPURE_MODULES, f"{name}:{line} imports {target}"
        assert target.rpartition(".")[0] not in IMPURE_MODULES, f"{name}:{line} imports {target}"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Await), f"{name}: waits in line {node.lineno}"
        if isinstance(node, ast.AsyncFunctionDef):
            # A port may declare what its adapters do over the network; it does nothing itself.
            last = node.body[-1]
            declared = isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...
            assert declared, f"{name}: async in line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in ("now", "utcnow", "today"), f"{name}: a clock in line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input"), f"{name}: the world in line {node.lineno}"


def test_no_transaction_is_held_over_the_network() -> None:
    """`def` decides and writes, `async def` talks: no async function takes a Tx."""
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.AsyncFunctionDef):
                annotations = [ast.unparse(a.annotation) for a in node.args.args if a.annotation]
                assert "Tx" not in annotations, f"{name}: {node.name} is async and takes a Tx"


def test_no_crowd_names() -> None:
    crowd = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
    assert not {name for name, _ in modules() if crowd & set(name.split("."))}


def test_importing_does_nothing() -> None:
    """At module level: definitions, constants, and registrations by decorator; no call statements that act."""
    allowed = {"register_url_convertor"}
    for name, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = ast.unparse(node.value.func)
                assert called in allowed, f"{name}:{node.lineno} calls {called} on import"


# The words in which servers talk to each other: read and written in `activitypub/`, `sources/` and what plays another
# server. Archives hold such documents, and proofs and signatures are about them.
SPEAKERS = ("activitypub", "sources", "sandbox", "demo", "signatures", "portability")
WIRE_WORDS = frozenset({
    "@context", "alsoKnownAs", "attributedTo", "assertionMethod", "contentMap", "inReplyTo",
    "interactionPolicy", "mediaType", "movedTo", "orderedItems", "OrderedCollection", "OrderedCollectionPage",
    "preferredUsername", "publicKey", "publicKeyPem", "publicKeyMultibase", "quoteUri", "quoteUrl", "sharedInbox",
    "totalItems", "Tombstone", "verificationMethod",
})  # fmt: skip
KEYS = frozenset({
    "actor", "attachment", "bto", "bcc", "cc", "content", "endpoints", "href", "icon", "id", "image", "instrument",
    "items", "links", "next", "object", "partOf", "proof", "published", "rel", "subject", "tag", "target", "to",
    "type", "updated", "url", *WIRE_WORDS,
})  # fmt: skip


def keys_read(tree: ast.Module) -> Iterator[tuple[object, int]]:
    """(key, line) of every `x["key"]` and `x.get("key")`, but for what jobs keep for themselves."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr):
            continue
        of: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            of, key = node.value, node.slice.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant):
                of, key = node.func.value, first.value
        if of is not None and not (isinstance(of, ast.Attribute) and of.attr == "arguments"):
            yield key, node.lineno


@pytest.mark.parametrize(("name", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_wire_words_are_spoken_at_the_border_only(name: str, tree: ast.Module) -> None:
    floor = floor_of(name)
    if floor in SPEAKERS:
        return
    if floor in ("net", "federation", "bridge"):
        for key, line in keys_read(tree):
            # What it passes to itself is kept as it came, whole, as the door does with what comes from elsewhere.
            kept_whole = (name, key) == ("federation.own_inbox", "object")
            assert key not in KEYS or kept_whole, (
                f"{name}:{line} reads {key!r} out of a document; `activitypub` does that"
            )
    for node in ast.walk(tree):
        # Names of parameters and columns of ours may be spelt like a word of the wire; what is text, is one.
        if isinstance(node, ast.Constant) and node.value in WIRE_WORDS:
            raise AssertionError(f"{name}:{node.lineno} holds the wire word {node.value!r}")
