"""Every way in which threadbridge says no, in words.

Errors carry two texts: `public`, which may be shown to a stranger, and `detail`, which goes to the log and to the
operator's terminal. Neither ever holds a secret. Numbers (HTTP status, exit codes) belong to the doors: the only
map to status codes is in `web/app.py`, the only map to exit codes in `cli/`.

    ThreadbridgeError
    ├── BadConfiguration          a setting is missing, unknown or contradicts the data
    ├── Invalid                   input that breaks a format's rules (border: JSON, forms, archives)
    │   ├── TooLarge              … by being bigger than we read
    │   └── BadDownload           a data download that cannot be imported
    ├── NotFound                  nothing here by that name
    │   └── Gone                  there was, and it has been deleted for good
    ├── Conflict                  the request contradicts the present state
    ├── Forbidden                 known, but not allowed
    │   └── SignInNeeded          … until signed in
    ├── TooMany                   asked too often; the same request later is right
    ├── SignatureRefused          a request that does not prove who sent it
    │   └── SignatureMalformed    … because it cannot be read, or in more than one way
    ├── MediaRefused              a file that is not a picture or video we serve
    ├── NetworkError              something outside could not be reached or did not behave
    │   ├── AddressRefused        the address guard said no (private, reserved, odd port)
    │   ├── TimedOut              a deadline passed
    │   ├── NameUnknown           the host's name does not resolve
    │   ├── NotSecure             TLS failed: a bad certificate, or no handshake
    │   ├── OwnTrouble            the fault is here: no name resolution, no route, no descriptor left
    │   └── BadAnswer             it answered, but not with what was asked for
    ├── SourceError               the Threads API said no
    │   ├── SignInAgain           the token is dead; only the owner can mend it (code 190)
    │   ├── RateLimited           wait (codes 4, 17, 32, 613)
    │   ├── NoSuchObject          it is not there (code 100, subcode 33)
    │   └── SourceUnavailable     temporary trouble over there
    └── Unavailable               we cannot do it now; asking again later is right
        ├── DiskFull
        └── DatabaseBusy
"""

from __future__ import annotations


class ThreadbridgeError(Exception):
    """Base of the tree. `public` is safe to show to anyone; `detail` adds what an operator needs."""

    def __init__(self, public: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.public]
        if self.detail:
            if self.detail[0].islower() and not self.public.endswith((".", "!", "?")):
                parts = [f"{self.public}: {self.detail}"]
            else:
                parts.append(self.detail)
        if self.hint:
            parts.append(self.hint)
        return " ".join(part if part.endswith((".", "!", "?")) else part + "." for part in parts)


class BadConfiguration(ThreadbridgeError):
    """A setting is missing, unknown, or contradicts the data it is used with."""


class Invalid(ThreadbridgeError):
    """Input that breaks the rules of its format."""


class TooLarge(Invalid):
    """Input larger than we are willing to read."""


class BadDownload(Invalid):
    """A file or folder that is not a Threads data download, or one we refuse to open."""


class NotFound(ThreadbridgeError):
    """Nothing here by that name."""


class Gone(NotFound):
    """It existed and has been deleted for good."""


class Conflict(ThreadbridgeError):
    """The request contradicts the present state."""


class Forbidden(ThreadbridgeError):
    """Known, but not allowed."""


class SignInNeeded(Forbidden):
    """Only for a signed-in owner."""


class TooMany(ThreadbridgeError):
    """Asked too often."""


class SignatureRefused(ThreadbridgeError):
    """A request that does not prove who sent it. `refetch` says a newer key might verify it."""

    def __init__(self, public: str, *, detail: str | None = None, refetch: bool = False) -> None:
        super().__init__(public, detail=detail)
        self.refetch = refetch


class SignatureMalformed(SignatureRefused):
    """A signature that cannot be read, or in more than one way."""


class MediaRefused(ThreadbridgeError):
    """A file that is not a picture or video we are willing to serve."""


class NetworkError(ThreadbridgeError):
    """Something outside could not be reached or did not behave."""


class AddressRefused(NetworkError):
    """The address guard said no."""


class TimedOut(NetworkError):
    """A deadline passed."""


class NameUnknown(NetworkError):
    """A host name does not resolve."""


class NotSecure(NetworkError):
    """TLS failed: a bad certificate, or no handshake."""


class OwnTrouble(NetworkError):
    """Nobody could be reached from here: no name is resolved, no route leads anywhere, no descriptor is left. It says
    nothing of whoever was asked for; asking again later is right."""


class BadAnswer(NetworkError):
    """An answer came, but not what was asked for. `status` is the HTTP status, if there was one."""

    def __init__(self, public: str, *, detail: str | None = None, status: int | None = None) -> None:
        super().__init__(public, detail=detail)
        self.status = status


class SourceError(ThreadbridgeError):
    """The centralized network refused or failed. `code` and `subcode` are its own numbers."""

    def __init__(
        self,
        public: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        code: int | None = None,
        subcode: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(public, detail=detail, hint=hint)
        self.code = code
        self.subcode = subcode
        self.retry_after = retry_after


class SignInAgain(SourceError):
    """The token is dead; nothing is asked again until the owner signs in."""


class RateLimited(SourceError):
    """Asked too often. `retry_after` is in seconds when the source named a time."""


class NoSuchObject(SourceError):
    """The object asked for does not exist (any more). Not retried."""


class SourceUnavailable(SourceError):
    """Temporary trouble at the source."""


class Unavailable(ThreadbridgeError):
    """We cannot do it now; the same request later is right. Nothing was stored."""


class DiskFull(Unavailable):
    """No space left where data must be written."""


class DatabaseBusy(Unavailable):
    """The database did not answer in time."""
