"""The one HTTP client: every request of ours leaves through here.

Two engines behind one door. httpcore2 (the transport of httpx2, used without its URL and redirect layer so that
only our parser decides where a request goes) fetches documents, media and the Graph API. aiohttp posts deliveries:
it is many times faster for small bodies. Both dial only addresses that the `Guard` has passed; neither follows
redirects, keeps cookies, inflates bodies or reads proxy settings from the environment.

Rules: a deadline covers the whole exchange (a read time-out is none: a server that drips a byte at a time keeps
those alive for ever, CVE-2023-36461); bodies are capped while they arrive; error texts name hosts and paths, never
a query, since that is where Graph API tokens travel.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import urlencode, urljoin

import aiohttp
import httpcore2
from yarl import URL

from threadbridge.errors import (
    AddressRefused,
    BadAnswer,
    DiskFull,
    NetworkError,
    NotSecure,
    OwnTrouble,
    TimedOut,
    Unavailable,
)
from threadbridge.net.answers import Answer, Download, Headers, chunks, is_encoded, whole
from threadbridge.net.dialing import delivery_session, document_pool, tls_context
from threadbridge.net.guard import Guard, Target, parse_url

Signer = Callable[[str], Awaitable[Mapping[str, str]]]
"""Given the canonical URL of a GET, its signature headers. Asked anew for every redirect hop."""

MAX_HEADERS = 32 * 1024
MAX_REPLY = 4 * 1024
_WRITE = 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN, errno.EADDRNOTAVAIL})
"""What the system says when the fault is here, whoever was to be reached."""
_PERSONAL = frozenset({"authorization", "cookie", "proxy-authorization", "signature", "signature-input"})


class Client:
    """Sends requests through `guard`. Belongs to one event loop; end it with `aclose` or use it as a context.

    `ca_file` adds trusted roots (PEM). `own_base_url` is never asked: a server that fetches from itself can be led
    to believe its own echo. Times are in seconds, sizes in bytes.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        user_agent: str,
        ca_file: Path | None = None,
        own_base_url: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        connections: int = 512,
        connections_per_host: int = 8,
    ) -> None:
        self.guard = guard
        self._user_agent = user_agent
        self._clock = clock
        own = parse_url(own_base_url) if own_base_url is not None else None
        self._own = (own.host, own.port) if own is not None else None
        self._skews: deque[float] = deque(maxlen=9)
        self._tls = tls_context(ca_file)
        self._pool = document_pool(guard, self._tls, 128)
        self._connections = connections
        self._connections_per_host = connections_per_host
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._pool.aclose()

    @property
    def skew_seconds(self) -> float | None:
        """How far other servers' clocks are ahead of ours (negative: behind): the median of the last nine answers
        that had a Date; None before the first. One peer with a bad clock does not move it."""
        return median(self._skews) if self._skews else None

    def canonical(self, url: str) -> str:
        """The spelling under which a URL is really asked for; what a signature for it has to cover."""
        return self.guard.check_url(url).url

    # ── documents, media, the Graph API ──────────────────────────────────────────────────────────────────────────

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        limit: int,
        deadline: float,
        hops: int = 3,
        resign: Signer | None = None,
    ) -> Answer:
        """GET, following at most `hops` redirects. The body of a 4xx or 5xx is cut, not refused, at 64 KiB.

        Raises AddressRefused, TimedOut, NetworkError; BadAnswer for redirect loops, bodies over `limit` and encoded
        bodies.
        """
        async with self._trouble(url, deadline), self._follow(url, headers or {}, hops, resign) as (target, response):
            answer_headers = self._seen(target, response.headers)
            return Answer(
                response.status,
                answer_headers,
                await whole(response, answer_headers, limit, _shown(target)),
                target.url,
            )

    async def download(
        self, url: str, *, into: BinaryIO, limit: int, deadline: float, headers: Mapping[str, str] | None = None
    ) -> Download:
        """GET into a file, in pieces, with the redirects and refusals of `get`. Only a 200 is written.

        Raises DiskFull (or Unavailable) when the file, rather than the network, is the trouble.
        """
        async with self._trouble(url, deadline), self._follow(url, headers or {}, 3, None) as (target, response):
            answer_headers = self._seen(target, response.headers)
            size = 0
            if response.status == 200:
                pending = bytearray()
                async with aclosing(chunks(response, answer_headers, limit, _shown(target))) as pieces:
                    async for chunk in pieces:
                        size += len(chunk)
                        pending += chunk
                        if len(pending) >= _WRITE:
                            await asyncio.to_thread(_write, into, bytes(pending))
                            pending.clear()
                await asyncio.to_thread(_write, into, bytes(pending))
            return Download(response.status, answer_headers.get("content-type", ""), size, target.url)

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = 8 * 1024 * 1024,
        deadline: float = 30.0,
    ) -> Answer:
        """One request of an API: `params` into the query, `form` as an urlencoded body. No redirects: a token is
        never carried elsewhere. Raises as `get` does."""
        if params:
            url += ("&" if "?" in url else "?") + urlencode(params)
        sent = dict(headers or {})
        content: bytes | None = None
        if form is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
            content = urlencode(form).encode()
        async with self._trouble(url, deadline):
            target = self._admit(url)
            async with self._exchange(method.upper(), target, sent, content) as response:
                answer_headers = self._seen(target, response.headers)
                body = await whole(response, answer_headers, limit, _shown(target))
                return Answer(response.status, answer_headers, body, target.url)

    @asynccontextmanager
    async def _follow(
        self, url: str, headers: Mapping[str, str], hops: int, resign: Signer | None
    ) -> AsyncIterator[tuple[Target, httpcore2.Response]]:
        """The answer at the end of the redirects. A signature is made for each hop's own URL; what identifies us
        otherwise stays with the origin it was meant for."""
        target = self._admit(url)
        visited = {target.url}
        given = dict(headers)
        for _ in range(hops + 1):
            signed = await resign(target.url) if resign is not None else {}
            async with self._exchange("GET", target, {**given, **signed}, None) as response:
                location = Headers(response.headers).get("location")
                if response.status not in _REDIRECTS or location is None:
                    yield target, response
                    return
            onward = self._admit(_resolve_location(target, location))
            if target.scheme == "https" and onward.scheme != "https":
                raise BadAnswer(f"{_shown(target)} redirects from https to http", status=response.status)
            if onward.url in visited:
                raise BadAnswer(f"{_shown(target)} redirects in a circle", status=response.status)
            visited.add(onward.url)
            if onward.origin != target.origin:
                given = {name: value for name, value in given.items() if name.lower() not in _PERSONAL}
            target = onward
        raise BadAnswer(f"{_shown(target)} was reached by more than {hops} redirects", status=response.status)

    @asynccontextmanager
    async def _exchange(
        self, method: str, target: Target, headers: Mapping[str, str], content: bytes | None
    ) -> AsyncIterator[httpcore2.Response]:
        sent = self._request_headers(target, headers)
        url = httpcore2.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path_and_query.encode(),
        )
        pairs = [(name.encode(), value.encode()) for name, value in sent.items()]
        async with self._pool.stream(method, url, headers=pairs, content=content) as response:
            yield response

    # ── deliveries ───────────────────────────────────────────────────────────────────────────────────────────────

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        """Deliver exactly these bytes with these (signed) headers; no redirects. Of the answer the first 4 KiB are
        kept, for the ledger; a longer one costs the peer its connection. Raises as `get` does."""
        async with self._trouble(url, deadline):
            target = self._admit(url)
            path, _, query = target.path_and_query.partition("?")
            address = URL.build(
                scheme=target.scheme,
                host=target.host,
                port=target.port,
                path=path,
                query_string=query,
                encoded=True,
            )
            async with self._deliveries().post(
                address, data=body, headers=self._request_headers(target, headers), allow_redirects=False
            ) as response:
                answer_headers = self._seen(target, response.raw_headers)
                reply = b""
                while len(reply) < MAX_REPLY and (chunk := await response.content.read(MAX_REPLY - len(reply))):
                    reply += chunk
                if is_encoded(answer_headers):
                    reply = b""
                return Answer(response.status, answer_headers, reply, target.url)

    def _deliveries(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = delivery_session(self.guard, self._tls, self._connections, self._connections_per_host)
        return self._session

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, url: str) -> Target:
        target = self.guard.check_url(url)
        if (target.host, target.port) == self._own:
            raise AddressRefused(f"{target.host} is our own address; nothing is fetched from or sent to it")
        return target

    def _request_headers(self, target: Target, given: Mapping[str, str]) -> dict[str, str]:
        """What is sent. A Host that a signature covers is sent as it was signed, if it names this target."""
        sent = {"Host": target.authority, "User-Agent": self._user_agent, "Accept-Encoding": "identity"}
        for name, value in given.items():
            if name.lower() != "host":
                sent[name] = value
            elif value != target.authority:
                if self.guard.check_url(f"{target.scheme}://{value}/").authority != target.authority:
                    raise AddressRefused(f"A request for {target.authority} was signed for another host")
                sent["Host"] = value
        return sent

    def _seen(self, target: Target, pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
        """The headers of an answer, after noting its Date; a cached answer's Date says nothing about clocks."""
        listed = list(pairs)
        if sum(len(name) + len(value) for name, value in listed) > MAX_HEADERS:
            raise BadAnswer(f"{_shown(target)} answered with more than {MAX_HEADERS} bytes of headers")
        headers = Headers(listed)
        if "date" in headers and "age" not in headers:
            try:
                date = parsedate_to_datetime(headers["date"])
            except (ValueError, TypeError, OverflowError):
                return headers
            if date.tzinfo is not None:
                self._skews.append((date - self._clock()).total_seconds())
        return headers

    @asynccontextmanager
    async def _trouble(self, url: str, deadline: float) -> AsyncIterator[None]:
        """The deadline over all of a call, and the engines' many exceptions in our few."""
        where = _without_query(url)
        try:
            async with asyncio.timeout(deadline):
                yield
        except (TimeoutError, httpcore2.TimeoutException) as error:
            raise TimedOut(
                f"{where} did not answer in time", detail=_detail(error) or f"deadline {deadline:g} s"
            ) from None
        except (httpcore2.NetworkError, aiohttp.ClientConnectionError, OSError) as error:
            if _is_tls(error):
                raise NotSecure(f"{where} could not be reached securely", detail=_detail(error)) from None
            if _errno(error) in _OURS:
                raise OwnTrouble("Nothing can be reached from here at present", detail=_detail(error)) from None
            raise NetworkError(f"{where} could not be reached", detail=_detail(error)) from None
        except (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, aiohttp.ClientError) as error:
            raise BadAnswer(f"{where} did not speak proper HTTP", detail=_detail(error)) from None


def _write(into: BinaryIO, piece: bytes) -> None:
    try:
        into.write(piece)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("There is no space left to store a download", detail=str(error)) from None
        raise Unavailable("A download cannot be written to disk", detail=str(error)) from None


def _resolve_location(target: Target, location: str) -> str:
    """The absolute URL that a Location means; judged by `check_url` afterwards like any other."""
    try:
        location = location.encode("latin-1").decode()
    except UnicodeError:
        raise BadAnswer(f"{_shown(target)} redirects to something that is no address") from None
    if any(character <= " " or character == "\\" for character in location):
        raise BadAnswer(f"{_shown(target)} redirects to something that is no address")
    try:
        return urljoin(target.url, location)
    except ValueError:
        raise BadAnswer(f"{_shown(target)} redirects to something that is no address") from None


def _is_tls(error: BaseException | None) -> bool:
    if isinstance(error, httpcore2.NetworkError):
        # It tells the cause only as what it came from.
        error = error.__cause__ or error.__context__
    return isinstance(error, aiohttp.ClientSSLError | ssl.SSLError)


def _errno(error: BaseException | None) -> int | None:
    """The system's number in an exception of the engines, or in what it came from."""
    for _ in range(5):
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = (error.__cause__ or error.__context__) if error is not None else None
    return None


def _without_query(url: str) -> str:
    return url.split("?", 1)[0].split("#", 1)[0][:200]


def _shown(target: Target) -> str:
    return _without_query(target.url)


def _detail(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}"[:300] if text else ""
