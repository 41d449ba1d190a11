"""Rules about who may speak: which of several decides, what a domain covers, what a word is."""

from __future__ import annotations

import pytest

from threadbridge.domain.blocks import (
    EVERYWHERE,
    Rule,
    Somebody,
    Standing,
    by_words,
    decide,
    domains_above,
    judge,
    subject_of,
)
from threadbridge.errors import Invalid

BOB = Somebody("https://a.b.example/users/bob", "a.b.example", "bob@a.b.example")
OWNER = 7


def own(subject: str, severity: str, kind: str = "domain") -> Rule:
    return Rule(kind, subject, severity)  # type: ignore[arg-type]


def listed(subject: str, severity: str, priority: int) -> Rule:
    return Rule("domain", subject, severity, None, priority, "list:1")  # type: ignore[arg-type]


def owners(subject: str, severity: str, kind: str = "domain") -> Rule:
    return Rule(kind, subject, severity, OWNER)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], Standing.FINE),
        ([own("b.example", "suspend")], Standing.SUSPENDED),
        ([own("a.b.example", "limit")], Standing.LIMITED),
        # Innocents: a sibling, a name that only ends alike, another person.
        ([own("c.b.example", "suspend")], Standing.FINE),
        ([own("notb.example", "suspend"), own("xb.example", "suspend")], Standing.FINE),
        ([own("https://a.b.example/users/bo", "suspend", "actor")], Standing.FINE),
        ([own("https://a.b.example/users/bob", "suspend", "actor")], Standing.SUSPENDED),
        ([own("@bob@a.b.example", "suspend", "actor")], Standing.SUSPENDED),
        # The nearest of the own rules decides.
        ([own("example", "suspend"), own("b.example", "limit")], Standing.LIMITED),
        ([own("b.example", "suspend"), own("https://a.b.example/users/bob", "allow", "actor")], Standing.FINE),
        # Lists: the greater priority, then the nearer, then the stricter; own rules above all of them.
        ([listed("b.example", "suspend", 1), listed("b.example", "limit", 2)], Standing.LIMITED),
        ([listed("b.example", "limit", 1), listed("b.example", "suspend", 1)], Standing.SUSPENDED),
        ([listed("b.example", "suspend", 9), own("example", "limit")], Standing.LIMITED),
        ([listed("a.b.example", "limit", 9), own("b.example", "suspend")], Standing.SUSPENDED),
        ([listed("b.example", "suspend", 9), own("b.example", "allow")], Standing.FINE),
        # Allow-list mode stands below everything.
        ([own(EVERYWHERE, "suspend")], Standing.SUSPENDED),
        ([own(EVERYWHERE, "suspend"), own("b.example", "allow")], Standing.FINE),
        ([own(EVERYWHERE, "suspend"), listed("b.example", "allow", -5)], Standing.FINE),
    ],
)
def test_the_right_rule_decides(rules: list[Rule], expected: Standing) -> None:
    assert decide(rules, BOB).standing is expected
    assert decide(list(reversed(rules)), BOB).standing is expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([own("b.example", "limit"), owners("b.example", "suspend")], Standing.SUSPENDED),
        ([own("b.example", "suspend"), owners("b.example", "allow")], Standing.SUSPENDED),
        ([own("b.example", "limit"), owners("b.example", "allow")], Standing.FINE),
        ([owners("b.example", "limit")], Standing.LIMITED),
    ],
)
def test_an_owner_can_be_stricter_and_show_whom_the_operator_limits(rules: list[Rule], expected: Standing) -> None:
    assert judge(rules, BOB, OWNER).standing is expected


def test_one_owners_rules_are_nobody_elses() -> None:
    assert judge([owners("b.example", "suspend")], BOB, OWNER + 1).standing is Standing.FINE
    assert judge([owners("b.example", "suspend")], BOB).standing is Standing.FINE


def test_what_stands_above_a_host() -> None:
    assert domains_above("a.b.example:8443") == ("a.b.example:8443", "a.b.example", "b.example", "example", "*")
    assert domains_above("127.0.0.1:80") == ("127.0.0.1:80", "127.0.0.1", "*")
    assert domains_above("[::1]:80") == ("[::1]:80", "[::1]", "*")


@pytest.mark.parametrize(
    ("keyword", "text", "held"),
    [
        ("buy now", "Please BUY\u00a0 now!", True),
        ("buy", "buyer beware", False),
        ("cash", "#cash", True),
        ("広告", "これは広告です", True),
        ("ﬁne", "FINE words", True),
        ("c++", "I like c++.", True),
        ("straße", "STRASSE", True),
        ("spam", "", False),
    ],
)
def test_words_are_found_whole(keyword: str, text: str, held: bool) -> None:
    rule = own(subject_of("keyword", keyword), "suspend", "keyword")
    assert (by_words([rule], text).standing is Standing.SUSPENDED) is held


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (" Spam.Example. ", "spam.example"),
        ("*.spam.example", "spam.example"),
        ("https://spam.example/", "spam.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
    ],
)
def test_domains_have_one_spelling(written: str, kept: str) -> None:
    assert subject_of("domain", written) == kept


@pytest.mark.parametrize(
    "written",
    ["", "*", "sp*m.example", "a b.example", "exa/mple", "-a.example", "a..example", "x" * 300, "<b>", "a\0b"],
)
def test_what_names_no_server_is_refused(written: str) -> None:
    with pytest.raises(Invalid):
        subject_of("domain", written)


@pytest.mark.parametrize("written", ["bob", "@bob", "bob@", "@@x.example", "https://a b/", "bob@sp*m.example"])
def test_what_names_nobody_is_refused(written: str) -> None:
    with pytest.raises(Invalid):
        subject_of("actor", written)
