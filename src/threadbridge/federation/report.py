"""Flag, in both directions: complaints about our accounts, and ours about people elsewhere.

Rule: a complaint changes nothing by itself and is shown to the operator alone, so that nobody can be silenced, or
found out, by complaining. What leaves is said by the server's own actor and names no owner.
"""

from __future__ import annotations

from threadbridge.activitypub import incoming, outgoing
from threadbridge.activitypub.ids import Ids
from threadbridge.activitypub.text import host_of
from threadbridge.delivery import server_word
from threadbridge.domain.blocks import Somebody
from threadbridge.errors import Conflict, Invalid, NotFound
from threadbridge.federation.heard import Heard
from threadbridge.federation.react import our_post
from threadbridge.storage import accounts, blocks, decisions, peers, reports
from threadbridge.storage.store import Tx

OPEN_PER_SERVER = 200
"""More open complaints from one server are counted and not kept: a queue that cannot be read helps nobody."""
WORDS_MAX = 2000


def received(tx: Tx, activity: incoming.Flag, heard: Heard) -> str | None:
    """Keep a complaint for the operator, once for each account of ours that it names."""
    host = host_of(activity.actor)
    if blocks.rejects_reports(tx, Somebody(None, host).subjects()):
        return "reports are not taken from there"
    named: dict[int, list[str]] = {}
    for uri in activity.objects:
        account_id = heard.ids.account_id(uri)
        if account_id is not None and accounts.by_id(tx, account_id) is not None:
            named.setdefault(account_id, [])
            continue
        place = our_post(tx, heard.ids, uri) if heard.ids.is_ours(uri) else None
        if place is not None:
            named.setdefault(place[0], []).append(heard.ids.post(*place))
    if not named:
        return "complains about nobody here"
    if reports.open_from(tx, host) >= OPEN_PER_SERVER:
        return "too many open reports from there"
    for account_id, objects in named.items():
        _, new = reports.add(
            tx, "in", uri=activity.id, by=activity.actor, host=host, subject=heard.ids.actor(account_id),
            objects=objects, content=activity.content, account_id=account_id,
        )  # fmt: skip
        if new:
            # For the operator: the row bears no account, so no owner's page shows it.
            decisions.write(tx, "Flag", "a report arrived", subject=heard.ids.actor(account_id), host=host)
    return None


def complain(tx: Tx, ids: Ids, about: str, content: str, *, account_id: int | None = None) -> int:
    """Complain to a server about one of its people: `about` is an actor whom we have met, or a reply that we hold
    (with `account_id`: to a post of this account). Returns the report's number. Raises NotFound, Conflict when it is
    said already or nothing may be sent there, Invalid."""
    words = content.strip()
    if len(words) > WORDS_MAX:
        raise Invalid(
            f"A report has at most {WORDS_MAX} characters",
            detail=f"this one has {len(words)}",
            hint="Say the essential; the post itself is named in the report.",
        )
    author = reports.author_of_reply(tx, about, account_id)
    person = peers.by_uri(tx, author or about)
    if person is None:
        raise NotFound(
            "There is no such reply or person here", hint="Give the address of a reply, or of a person met here."
        )
    named = (about,) if author else ()
    host = host_of(person.uri)
    # To the shared inbox where there is one: a moderator reads it, not the person.
    inbox = person.shared_inbox or person.inbox
    if blocks.suspended_hosts(tx, [host_of(inbox)]):
        raise Conflict(
            f"{host} is suspended here, so nothing is sent there",
            hint="Nobody there is heard here. The operator can lift the rule: `threadbridge blocks remove`.",
        )
    number, new = reports.add(
        tx, "out", uri="", by=ids.instance, host=host, subject=person.uri, objects=named, content=words,
        account_id=account_id,
    )  # fmt: skip
    if not new:
        raise Conflict(
            "This has been reported already", hint="Its server decides; hide or suspend whom you do not want to hear."
        )
    said = outgoing.flag(ids, number, person.uri, named, words)
    server_word.ask(tx, said, inbox)
    decisions.write(tx, "Flag", "reported to its server", subject=about, host=host, account_id=account_id)
    return number
