"""Which signature to try next when one was refused ("double knocking").

Rule: pure, and the same for deliveries and for documents. Only 400 and 401 speak of signatures; nothing is tried
twice, and after four tries somebody simply does not want us.

    400, 401   with an Accept-Signature that we can meet    as it asks, once
               a GET of an address with a query             with the query left out of what is signed, or back in
               otherwise                                    the other dialect
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from threadbridge.signatures import demands
from threadbridge.signatures.demands import Demand
from threadbridge.signatures.schemes import Scheme

REFUSED = frozenset({400, 401})
_SAID_MAX = 120


@dataclass(frozen=True, slots=True)
class Manner:
    """How a request is signed: the dialect, what the other server asked for in an RFC 9421 signature, and (draft
    only) whether the query is part of it."""

    scheme: Scheme = "cavage"
    demand: Demand | None = None
    with_query: bool = True

    @property
    def lasting(self) -> Manner:
        """The same for the next request: a nonce is good once."""
        return self if self.demand is None else replace(self, demand=replace(self.demand, nonce=None))

    @property
    def kept(self) -> tuple[str, str | None]:
        """The words by which it is kept in a database, to be `remembered`."""
        dialect = self.scheme if self.with_query else f"{self.scheme} without the query"
        return dialect, self.demand.lasting if self.demand else None

    def __str__(self) -> str:
        return f"{self.scheme} as asked" if self.demand is not None else self.kept[0]


USUAL = Manner()
"""What every server of the Fediverse reads."""
WITHOUT_QUERY = Manner(with_query=False)


@dataclass(frozen=True, slots=True)
class Knock:
    """One try: how it was signed and what was answered. `asked` is the answer's Accept-Signature, `said` the
    beginning of its body when that is readable."""

    manner: Manner
    status: int
    asked: str | None = None
    said: str = ""


def onward(tried: Sequence[Knock], *, key_id: str, body: bool = True, query: bool = False) -> Manner | None:
    """How to sign the next try after these (in order, at least one); None when there is none. `key_id` is the key
    that signs, `body` says whether something is sent, `query` that it is a GET of an address with a query."""
    last = tried[-1]
    if last.status not in REFUSED:
        return None
    manners = [knock.manner for knock in tried]
    if not any(manner.demand for manner in manners[1:]):
        for demand in demands.read(last.asked):
            wanted = Manner("rfc9421", demand)
            if demand.can_be_met(key_id, body=body) and wanted not in manners:
                return wanted
    other = replace(last.manner, with_query=not last.manner.with_query)
    if query and last.manner.scheme == "cavage" and other not in manners:
        return other
    schemes: tuple[Scheme, ...] = ("rfc9421", "cavage")
    return next((Manner(scheme) for scheme in schemes if scheme not in {m.scheme for m in manners}), None)


def remembered(scheme: str | None, asked: str | None) -> Manner:
    """The manner that was kept of a server, as its words in a database say."""
    if scheme == WITHOUT_QUERY.kept[0]:
        return WITHOUT_QUERY
    if scheme != "rfc9421":
        return USUAL
    return Manner("rfc9421", next(iter(demands.read(asked)), None))


def evidence(tried: Sequence[Knock]) -> str:
    """What was refused and what was accepted, in words: "cavage: 401 (Invalid signature); rfc9421: 202"."""
    return "; ".join(
        f"{knock.manner}: {knock.status}" + (f" ({knock.said[:_SAID_MAX]})" if knock.said else "") for knock in tried
    )
