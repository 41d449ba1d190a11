"""Lists of blocked servers and people as files: what Mastodon exports, what FediBlock lists look like, plain lists.

    #domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate     Mastodon, admin's export
    domain,severity,public_comment,…      instance,reason,…                         lists made from FediBlock
    one domain, or @user@host, per line                                            plain; an owner's export

Rule: a row is understood or named with its line; nothing is guessed. Severities that others have and we have not mean
what comes closest: `silence` limits, `noop` blocks nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from threadbridge.domain.blocks import Severity, SubjectKind, subject_of
from threadbridge.errors import Invalid, TooLarge

ROWS_MAX = 100_000
SIZE_MAX = 20_000_000
HEADER = ("#domain", "#severity", "#reject_media", "#reject_reports", "#public_comment", "#obfuscate")

_COLUMNS = {
    "domain": "subject", "instance": "subject", "host": "subject", "hostname": "subject",
    "account address": "account", "account": "account",
    "severity": "severity", "action": "severity", "level": "severity",
    "reject_media": "reject_media", "reject_reports": "reject_reports", "public_comment": "comment",
    "comment": "comment", "reason": "comment", "obfuscate": "obfuscate",
}  # fmt: skip
_SEVERITIES: dict[str, Severity | None] = {
    "suspend": "suspend", "suspended": "suspend", "reject": "suspend", "block": "suspend", "blocked": "suspend",
    "defederate": "suspend", "silence": "limit", "silenced": "limit", "limit": "limit", "limited": "limit",
    "allow": "allow", "accept": "allow", "noop": None, "none": None,
}  # fmt: skip
_TRUE = {"true", "1", "yes", "t"}
_FALSE = {"false", "0", "no", "f", ""}


@dataclass(frozen=True, slots=True)
class Row:
    """One rule of a list, with the line on which it stands."""

    line: int
    kind: SubjectKind
    subject: str
    severity: Severity
    comment: str = ""
    reject_media: bool = False
    reject_reports: bool = False
    obfuscate: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that is not understood."""

    line: int
    words: str


@dataclass(frozen=True, slots=True)
class Read:
    """A whole list: what it says, what was not understood, how many rows block nothing (`noop`)."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    idle: int = 0


def read(data: bytes, *, default: Severity = "suspend") -> Read:
    """A list in any of the forms above; `default` is the severity where none is written. Raises Invalid when this is
    no such list at all, TooLarge."""
    if len(data) > SIZE_MAX:
        raise TooLarge("The list is too large", detail=f"at most {SIZE_MAX} bytes are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid("The list is not UTF-8 text", detail=f"byte {error.start}") from None
    if "\0" in text or text.lstrip()[:1] in ("<", "{"):
        raise Invalid("This is no list of servers", detail="a CSV file or one server per line is read")
    try:
        return _read(_rows(text), default)
    except csv.Error as error:
        raise Invalid("The list is broken CSV", detail=str(error)) from None


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    for cells in reader:
        if reader.line_num > 2 * ROWS_MAX:
            raise TooLarge("The list has too many rows", detail=f"at most {ROWS_MAX} are read")
        if any(cell.strip() for cell in cells):
            yield reader.line_num, [cell.strip() for cell in cells]


def _read(rows: Iterable[tuple[int, list[str]]], default: Severity) -> Read:
    columns: list[str | None] | None = None
    found: dict[tuple[str, str], Row] = {}
    problems: list[Problem] = []
    idle = 0
    for line, cells in rows:
        if columns is None:
            columns = _header(cells)
            if columns is not None:
                continue
            columns = ["subject"]
        if cells[0].startswith("#"):
            continue
        try:
            row = _row(line, dict(zip(columns, cells, strict=False)), default, len(cells) > max(len(columns), 1))
        except Invalid as error:
            problems.append(Problem(line, str(error.public)))
            continue
        if row is None:
            idle += 1
            continue
        before = found.get((row.kind, row.subject))
        if before is not None and before.severity != row.severity:
            problems.append(Problem(line, f"{row.subject} stands in line {before.line} with another severity"))
        found.setdefault((row.kind, row.subject), row)
        if len(found) > ROWS_MAX:
            raise TooLarge("The list has too many rows", detail=f"at most {ROWS_MAX} are read")
    return Read(tuple(found.values()), tuple(problems), idle)


def _header(cells: list[str]) -> list[str | None] | None:
    """What the columns are, if this row says so; None when it is a row like the others."""
    names = [_COLUMNS.get(cell.removeprefix("#").strip().casefold()) for cell in cells]
    return names if "subject" in names or "account" in names else None


def _row(line: int, cells: dict[str | None, str], default: Severity, too_long: bool) -> Row | None:
    if too_long:
        raise Invalid("the row has more cells than the list has columns")
    account = cells.get("account") or ""
    named = account or (cells.get("subject") or "").partition("#")[0].strip()
    if not named:
        raise Invalid("the row names no server")
    kind: SubjectKind = "actor" if account or "@" in named.lstrip("@") or named.startswith("http") else "domain"
    written = cells.get("severity", "").casefold()
    if written and written not in _SEVERITIES:
        raise Invalid(f"the severity {written[:40]!r} means nothing here")
    severity = _SEVERITIES[written] if written else default
    flags = {name: _flag(name, cells.get(name, "")) for name in ("reject_media", "reject_reports", "obfuscate")}
    subject = subject_of(kind, named)
    if severity is None:
        return None
    return Row(line, kind, subject, severity, cells.get("comment", "")[:2000], **flags)


def _flag(name: str, written: str) -> bool:
    folded = written.casefold()
    if folded not in _TRUE | _FALSE:
        raise Invalid(f"{name} is neither true nor false: {written[:40]!r}")
    return folded in _TRUE


def write(rows: Iterable[Row]) -> bytes:
    """The rules about domains as Mastodon's administrators import them. Mastodon has no `allow` there: those are left
    to `write_plain`."""
    said = io.StringIO()
    writer = csv.writer(said, lineterminator="\n")
    writer.writerow(HEADER)
    for row in rows:
        if row.kind == "domain" and row.severity != "allow":
            severity = "silence" if row.severity == "limit" else "suspend"
            flags = [str(flag).lower() for flag in (row.reject_media, row.reject_reports)]
            writer.writerow([row.subject, severity, *flags, _free(row.comment), str(row.obfuscate).lower()])
    return said.getvalue().encode()


def write_plain(subjects: Iterable[str]) -> bytes:
    """One subject per line, as Mastodon exports an owner's blocked domains and accounts."""
    return "".join(f"{subject.removeprefix('@')}\n" for subject in subjects).encode()


def _free(text: str) -> str:
    """Free text that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
