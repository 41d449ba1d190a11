"""Who is at the owner's door: the cookie, its session, and whether a form is really theirs.

Rules: the cookie holds 256 random bits, the database only their hash; a session is a row, so it can be ended. No GET
changes anything. A POST has an effect only with the session's own form token, and never when the browser says that
another site sent it (`Sec-Fetch-Site`, `Origin`). Requests with neither header come from no browser that is in use
and stand on the form token alone.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from threadbridge.activitypub.ids import Ids
from threadbridge.domain.accounts import Account, AccountState
from threadbridge.errors import Forbidden, Invalid, SignInNeeded, TooLarge
from threadbridge.storage import accounts, views
from threadbridge.storage.store import Store
from threadbridge.storage.vault import new_token, token_hash

FORM_BYTES = 16 * 1024
FORM_TOKEN = "form_token"  # noqa: S105 (a field's name)
# A session's last use is written down at most this often: looking at pages should not write.
_SEEN_EVERY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in owner."""

    hash: str
    account: Account
    form_token: str


def cookie_name(ids: Ids) -> str:
    """`__Host-` makes browsers refuse the cookie from other hosts, paths and plain http."""
    return "__Host-threadbridge" if _secure(ids) else "threadbridge"


def _secure(ids: Ids) -> bool:
    return ids.base.startswith("https://")


async def present(store: Store, ids: Ids, request: Request) -> Session | None:
    """The session of a request, if it has a live one of an account that is not gone."""
    token = request.cookies.get(cookie_name(ids))
    if not token or len(token) > 256:
        return None
    hashed = token_hash(token)
    found = await store.read(accounts.session, hashed)
    if found is None or found[0].state is AccountState.GONE:
        return None
    seen_at = await store.read(views.session_seen_at, hashed)
    if seen_at is not None and store.clock() - seen_at > _SEEN_EVERY:
        await store.transact(accounts.session_seen, hashed)
    return Session(hashed, *found)


async def needed(store: Store, ids: Ids, request: Request) -> Session:
    """The session of a request; raises SignInNeeded."""
    session = await present(store, ids, request)
    if session is None:
        raise SignInNeeded("Please sign in first")
    return session


async def sign_in(store: Store, ids: Ids, request: Request, link_token: str) -> str | None:
    """Use a one-time link up; returns the new cookie's token, None if the link can not be used (any more). The
    session with which the browser came ends, so that no cookie outlives a change of who is signed in."""
    token = new_token()
    account = await store.transact(
        accounts.use_sign_in_link,
        token_hash(link_token),
        session_hash=token_hash(token),
        form_token=secrets.token_urlsafe(24),
    )
    if account is None:
        return None
    former = request.cookies.get(cookie_name(ids))
    if former:
        await store.transact(accounts.end_session, token_hash(former))
    return token


def give_cookie(response: Response, ids: Ids, token: str) -> None:
    """Set the session's cookie."""
    response.set_cookie(
        cookie_name(ids),
        token,
        max_age=int(accounts.SESSION_LIFE.total_seconds()),
        path="/",
        secure=_secure(ids),
        httponly=True,
        samesite="lax",
    )


def take_cookie(response: Response, ids: Ids) -> None:
    """Remove the session's cookie."""
    response.delete_cookie(cookie_name(ids), path="/", secure=_secure(ids), httponly=True, samesite="lax")


def check_sender(request: Request, ids: Ids) -> None:
    """Raise Forbidden if the browser says that this request does not come from a page of ours."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        raise Forbidden("This form was not sent from a page of this server", hint="Open the page and send it again.")
    origin = request.headers.get("origin")
    if origin is not None and origin != ids.base:
        raise Forbidden("This form was not sent from a page of this server", hint="Open the page and send it again.")


async def form(request: Request) -> dict[str, str]:
    """The fields of a form, each once. Raises Invalid or TooLarge."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise TooLarge("This form is too large")
    if body and media_type != "application/x-www-form-urlencoded":
        raise Invalid("This is not a form", hint="Open the page and send its form.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=False, max_num_fields=32)
    except ValueError:
        raise Invalid("This form could not be read", hint="Open the page and send it again.") from None
    return {name: values[0] for name, values in fields.items()}


async def allowed(store: Store, ids: Ids, request: Request) -> tuple[Session, dict[str, str]]:
    """The session and fields of a form that may have its effect. Raises Forbidden, SignInNeeded, Invalid."""
    check_sender(request, ids)
    session = await needed(store, ids, request)
    fields = await form(request)
    if not secrets.compare_digest(fields.get(FORM_TOKEN, "").encode(), session.form_token.encode()):
        raise Forbidden("This form is from an older page", hint="Go back, load the page anew and send it again.")
    return session, fields
