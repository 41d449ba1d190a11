"""Lists of blocked servers in every form in which they are passed around; bad rows are named with their lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadbridge.activitypub import blocklists
from threadbridge.activitypub.blocklists import Row
from threadbridge.errors import Invalid

MASTODON = b"""#domain,#severity,#reject_media,#reject_reports,#public_comment,#obfuscate
spam.example,suspend,true,true,"Spam, and more",false
loud.example,silence,false,false,,true
odd.example,noop,true,false,,false
"""


def test_mastodons_export_is_read_and_written_alike() -> None:
    read = blocklists.read(MASTODON)
    assert read.problems == ()
    assert read.idle == 1
    assert read.rows == (
        Row(2, "domain", "spam.example", "suspend", "Spam, and more", True, True, False),
        Row(3, "domain", "loud.example", "limit", "", False, False, True),
    )
    again = blocklists.read(blocklists.write(read.rows))
    assert [(r.subject, r.severity, r.comment, r.obfuscate) for r in again.rows] == [
        (r.subject, r.severity, r.comment, r.obfuscate) for r in read.rows
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfspam.example\r\n# a remark\r\n\r\nloud.example # why\r\n",
        b"domain\nspam.example\nloud.example\n",
        b"Instance,Reason,Severity\nspam.example,spam,suspend\nloud.example,,\n",
        b"domain,severity,public_comment,unknown\nspam.example,suspended,x,y\nloud.example,defederate,,\n",
        b"*.spam.example\nLOUD.example.\nloud.example\n",
    ],
)
def test_other_forms(data: bytes) -> None:
    read = blocklists.read(data)
    assert read.problems == ()
    assert {(row.subject, row.severity) for row in read.rows} == {
        ("spam.example", "suspend"),
        ("loud.example", "suspend"),
    }


def test_an_owners_blocked_accounts() -> None:
    read = blocklists.read(b"bob@spam.example\n@Eve@loud.example\n")
    assert [(row.kind, row.subject) for row in read.rows] == [
        ("actor", "@bob@spam.example"),
        ("actor", "@eve@loud.example"),
    ]
    assert blocklists.write_plain(row.subject for row in read.rows) == b"bob@spam.example\neve@loud.example\n"


def test_bad_rows_are_named_with_their_lines() -> None:
    data = b"""#domain,#severity,#reject_media
good.example,suspend,false
sp**m.example,suspend,false
other.example,destroy,false
flag.example,suspend,perhaps
good.example,silence,false
,suspend,false
long.example,suspend,false,extra
"""
    read = blocklists.read(data)
    assert [problem.line for problem in read.problems] == [3, 4, 5, 6, 7, 8]
    assert [row.subject for row in read.rows] == ["good.example"]


@pytest.mark.parametrize("data", [b"<!doctype html><p>404", b'{"a": 1}', b"\xff\xfe", b"a\0b", b'#domain\n"open'])
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        blocklists.read(data)


def test_a_comment_is_no_formula_in_a_spreadsheet() -> None:
    row = Row(0, "domain", "spam.example", "suspend", "=HYPERLINK(1)")
    assert b"'=HYPERLINK(1)" in blocklists.write([row])


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_anything_is_read_or_refused_in_words(data: bytes) -> None:
    try:
        read = blocklists.read(data)
    except Invalid:
        return
    assert blocklists.read(blocklists.write(read.rows)).problems == ()
