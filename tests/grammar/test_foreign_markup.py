"""Markup of others leads to where it says, and never to a place on this server by leaving the server out."""

from __future__ import annotations

import pytest

from threadbridge.activitypub.text import clean


@pytest.mark.parametrize(
    "href",
    ["/owner/sign-out", "//other.example/x", "owner", "?a=b", "#x", "", " /owner", "\t//h", "javascript:alert(1)",
     "data:text/html,x", "mailto:a@b.example", "https:owner", "http:/owner"],
)  # fmt: skip
def test_a_link_without_a_server_is_no_link(href: str) -> None:
    assert "href" not in clean(f'<a href="{href}">words</a>')
    assert "words" in clean(f'<a href="{href}">words</a>')


@pytest.mark.parametrize("href", ["https://a.example/", "http://a.example/b", "HTTPS://a.example/x?y#z"])
def test_a_link_with_one_stays(href: str) -> None:
    assert f'href="{href}"' in clean(f'<a href="{href}">words</a>')
