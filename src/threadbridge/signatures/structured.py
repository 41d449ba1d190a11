"""Structured fields (RFC 8941): the few productions that signatures over HTTP need.

Rule: patterns are possessive and anchored at a position, so that reading takes time in proportion to the length of
what a stranger sent.
"""

from __future__ import annotations

import re

KEY = r"[a-z*][a-z0-9_.*-]*+"
STRING = r"\"(?:[ !#-\[\]-~]|\\[\"\\])*+\""
_WORD = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+"
ITEM_VALUE = rf"(?:{STRING}|-?[0-9]{{1,15}}(?:\.[0-9]{{1,3}})?|\?[01]|:[A-Za-z0-9+/=]*+:|{_WORD})"
"""Any bare item: string, number, boolean, bytes, token."""


def quoted(value: str) -> str:
    """A String, serialised (section 4.1.6)."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unquoted(text: str) -> str:
    """What a serialised String says."""
    return re.sub(r"\\(.)", r"\1", text[1:-1])
