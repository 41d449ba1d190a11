"""Who may speak here: rules about actors, domains and words, and what follows from them.

Rule: a decision is made from rules and names alone, so that the inbox, the fan-out, the pages and a preview cannot
disagree. The operator's own rules stand above subscribed lists, whatever those say; among the own rules the nearest
decides (an actor before its domain, a domain before the one above it), as Mastodon looks up a domain block; among
lists the one with the higher priority. An owner can only be stricter than the operator, except that they may show
whom the operator limits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from typing import Literal

from threadbridge.errors import Invalid

SubjectKind = Literal["actor", "domain", "keyword"]
Severity = Literal["allow", "limit", "suspend"]

SEVERITIES: tuple[Severity, ...] = ("allow", "limit", "suspend")
EVERYWHERE = "*"
"""The domain above all others: suspended in allow-list mode."""
KEYWORD_MAX = 500
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_PORT = re.compile(r":([0-9]{1,5})$")


class Standing(IntEnum):
    """What somebody may do here; the greater is the stricter."""

    FINE = 0
    LIMITED = 1
    """What they do is kept and shown to nobody but the owner."""
    SUSPENDED = 2
    """They are not heard and get nothing."""


_STANDING = {"allow": Standing.FINE, "limit": Standing.LIMITED, "suspend": Standing.SUSPENDED}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `account_id` None means the operator's; `priority` None an own rule, else that of the list it came
    with (a greater number goes first)."""

    kind: SubjectKind
    subject: str
    severity: Severity
    account_id: int | None = None
    priority: int | None = None
    holder: str = "operator"
    actor: str | None = None
    """Whose handle the subject was when the rule was made, by id: a handle can be changed, an id cannot."""


@dataclass(frozen=True, slots=True)
class Somebody:
    """Whom a decision is about: an actor's id (None when only a server is meant), its server, its handle."""

    uri: str | None
    host: str
    handle: str = ""
    former: str = ""
    """The handle that they give up at this moment."""

    def subjects(self) -> tuple[str, ...]:
        """Every subject that a rule about them can have, nearest first."""
        named = (self.uri,) if self.uri else ()
        handles = (handle_of(handle) for handle in (self.handle, self.former) if handle)
        return (*named, *handles, *domains_above(self.host))


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided, and by which rule (None: by none)."""

    standing: Standing
    rule: Rule | None = None

    @property
    def reason(self) -> str:
        """The rule in words, for logs and pages."""
        if self.rule is None:
            return "no rule"
        if self.rule.subject == EVERYWHERE:
            return "not on the allow list"
        done = {"allow": "allowed", "limit": "limited", "suspend": "suspended"}[self.rule.severity]
        whose = "the owner" if self.rule.account_id is not None else "the operator"
        return f"{self.rule.kind} {done} by {whose if self.rule.priority is None else 'a subscribed list'}"


FINE = Ruling(Standing.FINE)


def domains_above(host: str) -> tuple[str, ...]:
    """The names under which rules about a host stand, nearest first: itself with its port, without it, the domains
    above it, everywhere."""
    name = _PORT.sub("", host)
    names = [host] if name != host else []
    if name.startswith("[") or _is_address(name):
        return (*names, name, EVERYWHERE)
    labels = name.split(".")
    return (*names, *(".".join(labels[number:]) for number in range(len(labels))), EVERYWHERE)


def decide(rules: Iterable[Rule], about: Somebody) -> Ruling:
    """The ruling of one level (all `rules` are the operator's, or all one owner's) about somebody."""
    subjects = {subject: place for place, subject in enumerate(about.subjects())}
    about_them = subjects.keys()
    applying = [
        rule for rule in rules if rule.kind != "keyword" and (rule.subject in about_them or rule.actor in about_them)
    ]
    if not applying:
        return FINE

    def place(rule: Rule) -> int:
        return min(subjects[name] for name in (rule.subject, rule.actor) if name in subjects)

    def weight(rule: Rule) -> tuple[bool, int, int, int]:
        # The allow-list mode stands last of all, below the lists too: a list may say "allow".
        own = rule.priority is None and rule.subject != EVERYWHERE
        listed = -1_000_000 if rule.priority is None else rule.priority
        return own, listed, -place(rule), _STANDING[rule.severity]

    chosen = max(applying, key=weight)
    return Ruling(_STANDING[chosen.severity], chosen)


def combine(operator: Ruling, owner: Ruling) -> Ruling:
    """Both levels together."""
    if operator.standing is Standing.LIMITED and owner.rule is not None and owner.rule.severity == "allow":
        return owner
    return owner if owner.standing > operator.standing else operator


def judge(rules: Sequence[Rule], about: Somebody, account_id: int | None = None) -> Ruling:
    """What the operator's rules, and those of one owner, say about somebody."""
    if not rules:
        return FINE
    operator = decide((rule for rule in rules if rule.account_id is None), about)
    if account_id is None:
        return operator
    return combine(operator, decide((rule for rule in rules if rule.account_id == account_id), about))


def by_words(rules: Iterable[Rule], text: str) -> Ruling:
    """The strictest ruling of the keyword rules about a plain text."""
    found = FINE
    folded = _fold(text)
    for rule in rules:
        if rule.kind == "keyword" and _STANDING[rule.severity] > found.standing and _holds(folded, rule.subject):
            found = Ruling(_STANDING[rule.severity], rule)
    return found


def _holds(folded: str, keyword: str) -> bool:
    # Whole words, as Mastodon's filters do; scripts that write without spaces have no word boundary to ask for.
    start = folded.find(keyword)
    while start >= 0:
        end = start + len(keyword)
        before = folded[start - 1] if start else " "
        after = folded[end] if end < len(folded) else " "
        if not (_spaced(keyword[0]) and _spaced(before)) and not (_spaced(keyword[-1]) and _spaced(after)):
            return True
        start = folded.find(keyword, start + 1)
    return False


def _spaced(character: str) -> bool:
    """Whether a character belongs to a word in a script that divides words by spaces."""
    return character.isalnum() and unicodedata.east_asian_width(character) not in ("W", "F")


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


# ── reading subjects ─────────────────────────────────────────────────────────────────────────────────────────────


def handle_of(text: str) -> str:
    """`@user@host` in the one form in which rules hold it."""
    return "@" + text.strip().removeprefix("@").casefold()


def subject_of(kind: SubjectKind, text: str) -> str:
    """A subject as rules hold it. Raises Invalid with words that say what is wrong."""
    if kind == "domain":
        return domain_of(text)
    if kind == "keyword":
        folded = _fold(text)
        if not folded or len(folded) > KEYWORD_MAX or "\0" in folded:
            raise Invalid(f"A keyword has between 1 and {KEYWORD_MAX} characters")
        return folded
    given = text.strip()
    if given.startswith(("https://", "http://")):
        if len(given) > 2048 or any(character.isspace() or character < " " for character in given):
            raise Invalid("That is no actor's address")
        return given
    name, at, host = given.removeprefix("@").partition("@")
    if not name or not at or not re.fullmatch(r"[\w.-]+", name):
        raise Invalid("An actor is named by its address (https://…) or as @user@host")
    return f"@{name.casefold()}@{domain_of(host)}"


def domain_of(text: str) -> str:
    """A domain as rules hold it: lower case, in ASCII, without `*.`, scheme or path; a port is kept. Raises
    Invalid."""
    name = text.strip().lower().rstrip(".")
    if "://" in name:
        name = name.partition("://")[2].rstrip("/")
    name = name.removeprefix("*.").removeprefix("@")
    port = ""
    if match := _PORT.search(name):
        port, name = match[0], name[: match.start()]
    if not name or len(name) > 253:
        raise Invalid(f"{text.strip()[:80]!r} is no domain")
    if "*" in name or "?" in name:
        raise Invalid(f"{name[:80]!r} is obfuscated: it names no server")
    if _is_address(name):
        return name + port
    try:
        labels = [label if label.isascii() else "xn--" + _encoded(label) for label in name.split(".")]
    except UnicodeError:
        raise Invalid(f"{text.strip()[:80]!r} is no domain") from None
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise Invalid(f"{text.strip()[:80]!r} is no domain")
    return ".".join(labels) + port


def _encoded(label: str) -> str:
    if not all(character.isalnum() or character == "-" or unicodedata.combining(character) for character in label):
        raise UnicodeError
    return unicodedata.normalize("NFKC", label).casefold().encode("punycode").decode()


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
