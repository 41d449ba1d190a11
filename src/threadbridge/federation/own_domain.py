"""Being found as `@handle@example.org` while living here: looking whether example.org really sends people to us.

Rule: a name under another domain counts only when both sides say so: the owner here, and that domain by answering
WebFinger with our actor (Akkoma had to be mended twice for believing one side). It is looked after daily; when it has
been broken for long, the account goes back to this server's name by itself and its owner is told why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import structlog

from threadbridge.activitypub import document, incoming
from threadbridge.activitypub.content_types import JRD, media_type
from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.errors import Invalid, NetworkError
from threadbridge.net.answers import Answer
from threadbridge.net.client import Client
from threadbridge.storage import accounts, decisions, jobs, profiles
from threadbridge.storage.jobs import Job
from threadbridge.storage.profiles import OwnDomain
from threadbridge.storage.store import Store, Tx

log = structlog.get_logger(__name__)

AGAIN = timedelta(days=1)
AGAIN_WHILE_BROKEN = timedelta(hours=1)
BROKEN_FOR_LONG = timedelta(days=3)
DEADLINE = 10.0
_JRD_MAX = 256 * 1024

Finding = tuple[str, str]
"""('ok' | 'warning' | 'error', words)."""


@dataclass(frozen=True, slots=True)
class Snippets:
    """What the other domain's web server needs, ready to be copied."""

    caddy: str
    nginx: str
    static: str


def snippets(ids: Ids, account: Account, domain: str) -> Snippets:
    """For redirects (for everybody of ours under that domain), or a file for this account alone."""
    base = ids.base
    jrd = (
        f'{{"subject": "acct:{account.handle}@{domain}",\n'
        f' "aliases": ["{ids.profile(account.handle)}", "{ids.actor(account.id)}"],\n'
        f' "links": [{{"rel": "self", "type": "application/activity+json", "href": "{ids.actor(account.id)}"}}]}}'
    )
    return Snippets(
        caddy=f"{domain} {{\n"
        f"    redir /.well-known/webfinger {base}{{uri}} 301\n"
        f"    redir /.well-known/host-meta {base}{{uri}} 301\n"
        f"    header /.well-known/* Access-Control-Allow-Origin *\n}}",
        nginx=f"location = /.well-known/webfinger {{\n"
        f"    add_header Access-Control-Allow-Origin * always;\n"
        f"    return 301 {base}$request_uri;\n}}\n"
        f"location = /.well-known/host-meta {{\n    return 301 {base}$request_uri;\n}}",
        static=f"/.well-known/webfinger, served as application/jrd+json:\n{jrd}",
    )


async def look(client: Client, ids: Ids, account: Account, domain: str) -> list[Finding]:
    """Ask the other domain as other servers would. `client` must be one that may ask ourselves."""
    scheme = urlsplit(ids.base).scheme if client.guard.allowed else "https"
    found = await _webfinger(client, ids, account, scheme, domain)
    if not any(level == "error" for level, _ in found):
        found.append(await _host_meta(client, scheme, domain))
    return found


async def _webfinger(client: Client, ids: Ids, account: Account, scheme: str, domain: str) -> list[Finding]:
    name = f"acct:{account.handle}@{domain}"
    url = f"{scheme}://{domain}/.well-known/webfinger?{urlencode({'resource': name})}"
    try:
        answer = await client.get(
            url, headers={"Accept": "application/jrd+json, application/json"}, limit=_JRD_MAX, deadline=DEADLINE
        )
    except NetworkError as error:
        return [("error", f"WebFinger at {domain} cannot be asked: {error.public}")]
    end = urlsplit(answer.url)
    where = f"{domain}{'' if end.netloc == domain else f' (which sends on to {end.netloc})'}"
    if end.netloc != domain and parse_qs(end.query).get("resource") != [name]:
        return [("error", f"{domain} redirects to {end.netloc}{end.path} without the query: keep ?resource=…")]
    if answer.status != 200:
        return [("error", f"WebFinger at {where} answers {answer.status} for {name}")]
    found: list[Finding] = []
    kind = media_type(answer.headers.get("content-type", ""))[0]
    if kind not in JRD:
        found.append(("error", f"{where} serves {kind or 'no type'}; it must be application/jrd+json"))
    found += _jrd(answer, ids, account, name, where)
    if answer.headers.get("access-control-allow-origin") != "*":
        found.append(("warning", f"{where} sends no Access-Control-Allow-Origin: *; web clients cannot look it up"))
    if not any(level == "error" for level, _ in found):
        found.insert(0, ("ok", f"WebFinger at {where} leads to this account"))
    return found


def _jrd(answer: Answer, ids: Ids, account: Account, name: str, where: str) -> list[Finding]:
    try:
        read = incoming.read_jrd(document.decode(answer.body))
    except Invalid as error:
        return [("error", f"The WebFinger answer of {where} is no JSON object: {error.public}")]
    found: list[Finding] = []
    if read.subject != name:
        found.append(("error", f"The subject at {where} is {read.subject[:200]!r}; it must be {name!r}"))
    actor = ids.actor(account.id)
    if not read.actors:
        found.append(("error", f"{where} names no `self` link of the type application/activity+json"))
    elif read.actors != (actor,):
        found.append(("error", f"The `self` link at {where} is {read.actors[0][:200]!r}; it must be {actor!r} alone"))
    return found


async def _host_meta(client: Client, scheme: str, domain: str) -> Finding:
    """Akkoma and Takahē ask here before WebFinger. Looked through as bytes: no XML is parsed anywhere."""
    try:
        answer = await client.get(f"{scheme}://{domain}/.well-known/host-meta", limit=_JRD_MAX, deadline=DEADLINE)
    except NetworkError as error:
        return "warning", f"host-meta at {domain} cannot be asked: {error.public}"
    if answer.status == 404:
        return "ok", f"{domain} has no host-meta; everybody goes on to WebFinger then"
    if answer.status != 200 or b"/.well-known/webfinger?resource={uri}" not in answer.body:
        return (
            "warning",
            f"host-meta at {domain} ({answer.status}) does not lead to WebFinger; Akkoma asks there first",
        )
    return "ok", f"host-meta at {domain} leads to WebFinger"


# ── writing it down ──────────────────────────────────────────────────────────────────────────────────────────────


async def check(store: Store, client: Client, ids: Ids, job: Job) -> None:
    """Look at the domain of one account, and decide."""
    account_id = int(job.arguments["account"])
    held = await store.read(wanted, account_id)
    if held is None:
        await store.transact(jobs.finish, job)
        return
    account, domain = held
    found = await look(client, ids, account, domain.domain)
    await store.transact(_decided, job, account_id, domain.domain, found)


async def check_now(store: Store, client: Client, ids: Ids, account_id: int) -> Sequence[Finding]:
    """The same, because somebody waits for the answer."""
    held = await store.read(wanted, account_id)
    if held is None:
        return []
    account, domain = held
    found = await look(client, ids, account, domain.domain)
    await store.transact(decide, account_id, domain.domain, found)
    return found


def wanted(tx: Tx, account_id: int) -> tuple[Account, OwnDomain] | None:
    """An account that is not gone, and the domain its owner wants."""
    account, domain = accounts.by_id(tx, account_id), profiles.own_domain(tx, account_id)
    if account is None or domain is None or account.state is AccountState.GONE:
        return None
    return account, domain


def decide(tx: Tx, account_id: int, domain: str, found: Sequence[Finding]) -> str | None:
    """What the findings mean: the new state, written down; None when the owner chose another domain meanwhile."""
    held = profiles.own_domain(tx, account_id)
    if held is None or held.domain != domain:
        return None
    errors = [words for level, words in found if level == "error"]
    state = held.state
    if not errors:
        state = "confirmed"
    elif held.state == "confirmed" and held.broken_since and tx.now - held.broken_since > BROKEN_FOR_LONG:
        state = "broken"
    profiles.domain_checked(tx, account_id, state, found)
    if state != held.state:
        words = f"{domain} {'leads here' if state == 'confirmed' else 'does not lead here any more'}"
        if errors:
            words += f": {errors[0]}"
        log.info("an own domain", account=account_id, domain=domain, state=state, reason=words)
        decisions.write(tx, "domain", words, subject=domain, host=domain, account_id=account_id)
    return state


def _decided(tx: Tx, job: Job, account_id: int, domain: str, found: Sequence[Finding]) -> None:
    if decide(tx, account_id, domain, found) is None:
        jobs.again(tx, job, tx.now)
        return
    broken = any(level == "error" for level, _ in found)
    jobs.again(tx, job, tx.now + (AGAIN_WHILE_BROKEN if broken else AGAIN))


def look_at_all(store: Store) -> list[tuple[Account, OwnDomain]]:
    """Every account with a domain, for `threadbridge doctor`."""
    return store.read_now(profiles.with_own_domain)
