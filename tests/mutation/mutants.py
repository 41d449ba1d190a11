"""What may go wrong in a module: each small change of its syntax tree that the tests ought to notice.

Rule: only what a machine does is changed. The words of errors, type annotations, docstrings, decorators and
`field(…)` are left alone, since no test should pin them.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_OTHER_NAME = {"any": "all", "all": "any", "min": "max", "max": "min"}
_OTHER_METHOD = {
    "fullmatch": "match",
    "match": "search",
    "startswith": "endswith",
    "endswith": "startswith",
    "partition": "rpartition",
    "rpartition": "partition",
}
_SPARED_METHODS = frozenset(
    {"lower", "upper", "strip", "lstrip", "rstrip", "removesuffix", "removeprefix", "astimezone", "keys"}
)
_WORDS_FOR_PEOPLE = frozenset({"detail", "hint"})

Change = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """One change. `function` is the qualified name of the outermost function whose body holds it, None when only a
    new import of the module shows it. `apply` changes the tree of the `Source` it came from, for good."""

    number: int
    line: int
    function: str | None
    told: str
    apply: Change


class Source:
    """A module's file, its tree and all its mutants, always in the same order."""

    def __init__(self, path: Path, module: str) -> None:
        self.path, self.module = path, module
        self.tree = ast.parse(path.read_text(), str(path))
        self.mutants: list[Mutant] = []
        self._named: Counter[tuple[str | None, str]] = Counter()
        self._function: str | None = None
        self._classes: list[str] = []
        self._in_regex = False
        self._block(self.tree.body)

    # ── walking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _block(self, body: list[ast.stmt]) -> None:
        for position, statement in enumerate(body):
            self._statement(statement, body, position)

    def _statement(self, node: ast.stmt, body: list[ast.stmt], position: int) -> None:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Global() | ast.Nonlocal():
                return
            case ast.Expr(value=ast.Constant(value=str())):
                return
            case ast.Assign(targets=[ast.Name(id=name)]) if _names_a_type(name) and self._function is None:
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                for default in [*node.args.defaults, *node.args.kw_defaults]:
                    if default is not None:
                        self._expression(default, node, words=False)
                outermost = self._function is None
                if outermost:
                    self._function = ".".join([*self._classes, node.name])
                self._block(node.body)
                if outermost:
                    self._function = None
                return
            case ast.ClassDef():
                self._classes.append(node.name)
                self._block(node.body)
                self._classes.pop()
                return
        self._removed(node, body, position)
        if isinstance(node, ast.If | ast.While):
            self._negated(node, "test")
        if isinstance(node, ast.AugAssign) and type(node.op) in _COMPUTED:
            other = _COMPUTED[type(node.op)]()
            self._add(node, f"{_short(node)} with {type(other).__name__}", _setting(node, "op", other))
        for name, value in ast.iter_fields(node):
            if name == "annotation":
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.expr):
                    self._expression(child, node, words=isinstance(node, ast.Raise))
                elif isinstance(child, ast.excepthandler | ast.withitem | ast.match_case):
                    self._part(child)
        for block in ("body", "orelse", "finalbody"):
            inner = getattr(node, block, None)
            if isinstance(inner, list):
                self._block(inner)
        if isinstance(node, ast.Match) and len(node.cases) > 1:
            for case in node.cases:
                self._add(case.pattern, f"without `case {ast.unparse(case.pattern)}`", _dropping(node.cases, case))

    def _part(self, node: ast.excepthandler | ast.withitem | ast.match_case) -> None:
        match node:
            case ast.ExceptHandler():
                if node.type is not None:
                    self._expression(node.type, node, words=False)
                self._block(node.body)
            case ast.withitem():
                self._expression(node.context_expr, node, words=False)
            case ast.match_case():
                if node.guard is not None:
                    self._negated(node, "guard")
                    self._expression(node.guard, node, words=False)
                self._block(node.body)

    def _removed(self, node: ast.stmt, body: list[ast.stmt], position: int) -> None:
        """The statement gone, or its value."""
        nothing = ast.copy_location(ast.Pass(), node)
        none = ast.copy_location(ast.Constant(None), node)
        match node:
            case ast.Return(value=None | ast.Constant(value=None)) | ast.Expr() | ast.Raise() | ast.Delete():
                self._add(node, f"without `{_short(node)}`", _at(body, position, nothing))
            case ast.Return():
                self._add(node, f"`{_short(node)}` → return None", _setting(node, "value", none))
            case ast.Continue() | ast.Break():
                other = ast.Break() if isinstance(node, ast.Continue) else ast.Continue()
                self._add(
                    node, f"{_short(node)} → {_short(other)}", _at(body, position, ast.copy_location(other, node))
                )
            case ast.AugAssign():
                self._add(node, f"without `{_short(node)}`", _at(body, position, nothing))
            case ast.Assign(targets=[ast.Name()]) | ast.AnnAssign(target=ast.Name(), value=ast.expr()):
                if self._function is not None and not _is_none(node.value):
                    self._add(node, f"`{_short(node)}` → None", _setting(node, "value", none))
            case ast.Assign() | ast.AnnAssign(value=ast.expr()) if not _unpacks(node):
                self._add(node, f"without `{_short(node)}`", _at(body, position, nothing))

    def _negated(self, node: ast.AST, name: str) -> None:
        test = getattr(node, name)
        if isinstance(test, ast.UnaryOp) or (isinstance(test, ast.Compare) and len(test.ops) == 1):
            return  # another mutant says the same
        changed = ast.copy_location(ast.UnaryOp(ast.Not(), test), test)
        self._add(test, f"`{_short(test)}` → not", _setting(node, name, changed))

    # ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────

    def _expression(self, node: ast.expr, parent: ast.AST, *, words: bool) -> None:
        """`words`: what stands here is said to people."""
        replace = _replacing(parent, node)
        match node:
            case ast.Compare():
                self._compare(node)
            case ast.BoolOp():
                other: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                self._add(node, f"`{_short(node)}` → {type(other).__name__.lower()}", _setting(node, "op", other))
                for value in node.values:
                    self._add(
                        value,
                        f"`{_short(node)}` without `{_short(value)}`",
                        _dropping(node.values, value, keep=replace),
                    )
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                self._add(node, f"`{_short(node)}` → `{_short(node.operand)}`", replace(node.operand))
            case ast.BinOp() if type(node.op) in _COMPUTED:
                swapped = _COMPUTED[type(node.op)]()
                self._add(node, f"`{_short(node)}` → {type(swapped).__name__}", _setting(node, "op", swapped))
            case ast.IfExp():
                self._negated(node, "test")
            case ast.Constant():
                if not (words and isinstance(node.value, str)):
                    self._constant(node)
                return
            case ast.JoinedStr():
                if words:
                    return
                constants = [part for part in node.values if isinstance(part, ast.Constant)]
                pattern = self._in_regex
                self._in_regex = pattern or self._function is None
                for text in constants if self._in_regex else constants[:1]:
                    self._constant(text)
                self._in_regex = pattern
                for part in node.values:
                    if isinstance(part, ast.FormattedValue):
                        self._expression(part.value, part, words=False)
                return
            case ast.Call():
                self._call(node, replace, words)
                return
            case ast.List() | ast.Set() | ast.Tuple() if not isinstance(getattr(node, "ctx", None), ast.Store):
                for item in list(node.elts):
                    self._add(item, f"`{_short(item)}` left out of `{_short(node)}`", _dropping(node.elts, item))
            case ast.Dict():
                for key, value in zip(node.keys, node.values, strict=True):
                    self._add(value, f"`{_short(key or value)}` left out", _without_entry(node, value))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._comprehension(node)
                return
            case ast.Slice():
                for name in ("lower", "upper"):
                    if getattr(node, name) is not None:
                        self._add(node, f"`{_short(node)}` without its {name} end", _setting(node, name, None))
            case ast.Lambda():
                self._expression(node.body, node, words=words)
                return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child, node, words=words)

    def _compare(self, node: ast.Compare) -> None:
        for position, op in enumerate(node.ops):
            for other in _COMPARED[type(op)]:
                self._add(node, f"`{_short(node)}` → {other.__name__}", _at(node.ops, position, other()))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        for part in node.generators:
            for test in part.ifs:
                self._add(test, f"`{_short(node)}` without its `if`", _dropping(part.ifs, test))
                self._expression(test, part, words=False)
            self._expression(part.iter, part, words=False)
        for made in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self._expression(made, node, words=False)

    def _call(self, node: ast.Call, replace: Callable[[ast.expr], Change], words: bool) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("field", "TypeVar"):
            return
        if isinstance(node.func, ast.Name) and node.func.id in _OTHER_NAME:
            other = _OTHER_NAME[node.func.id]
            self._add(node, f"`{_short(node)}` → {other}", _setting(node.func, "id", other))
        if isinstance(node.func, ast.Attribute):
            method = node.func.attr
            if method in _OTHER_METHOD:
                other = _OTHER_METHOD[method]
                self._add(node, f"`{_short(node)}` → {other}", _setting(node.func, "attr", other))
            if method in _SPARED_METHODS:
                self._add(node, f"`{_short(node)}` without {method}", replace(node.func.value))
        if len(node.args) > 1 and not words and not any(isinstance(each, ast.Starred) for each in node.args[:2]):
            first, second, *rest = node.args
            self._add(
                node, f"`{_short(node)}` with its arguments swapped", _setting(node, "args", [second, first, *rest])
            )
        regex = ast.unparse(node.func) == "re.compile"
        self._in_regex = self._in_regex or regex
        self._expression(node.func, node, words=False)
        for argument in node.args:
            self._expression(argument, node, words=words)
        self._in_regex = False if regex else self._in_regex
        for keyword in node.keywords:
            if keyword.arg in _WORDS_FOR_PEOPLE:
                continue
            if keyword.arg is not None:
                self._add(node, f"`{_short(node)}` without {keyword.arg}=", _dropping(node.keywords, keyword))
            self._expression(keyword.value, keyword, words=words)

    def _constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, str) and (self._in_regex or (self._function is None and _REGEX.search(value))):
            for told, changed in _other_patterns(value):
                self._add(node, f"pattern {value!r}: {told}", _setting(node, "value", changed))
            return
        changed_value: object
        match value:
            case bool():
                changed_value = not value
            case int() | float():
                changed_value = value + 1
            case str():
                changed_value = "XX" + value
            case bytes():
                changed_value = b"XX" + value
            case _:
                return
        self._add(node, f"{_cut(repr(value))} → {_cut(repr(changed_value))}", _setting(node, "value", changed_value))

    def _add(self, node: ast.AST, told: str, apply: Change) -> None:
        line = getattr(node, "lineno", 0)
        # The same change twice in one function has two names, and none of them a line number, which moves.
        self._named[self._function, told] += 1
        if (times := self._named[self._function, told]) > 1:
            told = f"{told} ({times})"
        self.mutants.append(Mutant(len(self.mutants), line, self._function, told, apply))


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _setting(node: ast.AST, name: str, value: object) -> Change:
    return lambda: setattr(node, name, value)


def _at(items: list[Any], position: int, item: Any) -> Change:
    def change() -> None:
        items[position] = item

    return change


def _replacing(parent: ast.AST, node: ast.expr) -> Callable[[ast.expr], Change]:
    """What puts another expression in the place of `node`."""

    def put(other: ast.expr) -> Change:
        def change() -> None:
            for name, value in ast.iter_fields(parent):
                if value is node:
                    setattr(parent, name, other)
                elif isinstance(value, list):
                    value[:] = [other if each is node else each for each in value]

        return change

    return put


def _dropping(items: list[Any], item: ast.AST, keep: Callable[[ast.expr], Change] | None = None) -> Change:
    """Takes one out; where two would become one, `keep` puts the other in the place of the whole."""

    def change() -> None:
        items[:] = [each for each in items if each is not item]
        if keep is not None and len(items) == 1 and isinstance(items[0], ast.expr):
            keep(items[0])()

    return change


def _without_entry(node: ast.Dict, value: ast.expr) -> Change:
    def change() -> None:
        position = next(number for number, each in enumerate(node.values) if each is value)
        del node.keys[position], node.values[position]

    return change


_REGEX = re.compile(r"\][*+{]|\(\?:")
"""What tells a pattern from other texts outside of `re.compile`."""
_REGEX_PIECE = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:P<\w+>|[:=!])|\{(\d+)(?:,(\d+))?\}|[*+?]|.", re.DOTALL
)


def _other_patterns(pattern: str) -> Iterator[tuple[str, str]]:
    """A pattern with each of its repetitions, classes and alternatives changed."""
    before = ""
    for piece in _REGEX_PIECE.finditer(pattern):
        text, start, end = piece[0], piece.start(), piece.end()
        other = None
        if text in ("*", "+"):
            # A plus behind another repetition makes it possessive, which changes the time and seldom the meaning.
            other = None if before in ("*", "+", "?", "}") else {"*": "+", "+": "*"}[text]
        elif text == "?":
            other = None if before in ("*", "+", "?", "}") else ""
        elif piece[1] is not None:
            other = f"{{{piece[1]},{int(piece[2]) + 1}}}" if piece[2] else f"{{{int(piece[1]) + 1}}}"
        elif text.startswith("[") and len(text) > 1:
            other = "[" + text[2:] if text.startswith("[^") else "[^" + text[1:]
        elif text == "|":
            other = ""
        if other is not None:
            yield f"`{text}` at {start} → `{other}`", pattern[:start] + other + pattern[end:]
        before = text[-1]


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _names_a_type(name: str) -> bool:
    return name[:1].isupper() and not name.isupper()


def _is_none(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _unpacks(node: ast.Assign | ast.AnnAssign) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(each, ast.Tuple | ast.Name) for each in node.targets)


def _short(node: ast.AST) -> str:
    return _cut(ast.unparse(node).splitlines()[0])


def _cut(text: str) -> str:
    return text if len(text) <= 70 else f"{text[:67]}…"
