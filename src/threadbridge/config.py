"""Configuration: read once, at the door, into one frozen object.

Sources, strongest first: environment variables (`THREADBRIDGE_…`), then `threadbridge.toml` in the working
directory (or the file that `THREADBRIDGE_CONFIG` names), then the defaults here. Unknown keys in the file are
refused. Every setting is described in README.md, chapter "Settings"; a test keeps the two lists equal.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from threadbridge.errors import BadConfiguration

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ENV_PREFIX = "THREADBRIDGE_"
CONFIG_FILE = "threadbridge.toml"


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "threadbridge"


class Config(BaseSettings):
    """All settings. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    base_url: str | None = Field(
        default=None,
        description="The public address, https://host. Every id is made from it; it never changes afterwards. "
        "http and a port are allowed only together with allowed_private_networks.",
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Folder for the database, media, exports and the secret key.",
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL; default is SQLite in data_dir. PostgreSQL: postgresql+psycopg://user@host/db "
        "(needs the extra `postgres`).",
    )
    database_connections: int = Field(
        default=20, ge=3, description="PostgreSQL: the most connections that one process opens at a time."
    )
    database_pooled: bool = Field(
        default=False,
        description="A pooler in transaction mode (PgBouncer) stands before PostgreSQL: no LISTEN, no prepared "
        "statements; work is looked for five times a second instead.",
    )
    media_url: str | None = Field(
        default=None,
        description="Where media and archives are kept when not in data_dir: s3://bucket/prefix (needs the extra "
        "`s3`; credentials, region and endpoint from the AWS_ variables), or file:///folder.",
    )
    secret_key_file: Path | None = Field(
        default=None,
        description="File with the key that seals tokens and private keys; made on first start "
        "(default: secret.key in data_dir). Back it up, apart from the database.",
    )
    allowed_private_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated CIDRs that may be reached although they are private (development, tests).",
    )
    ca_file: Path | None = Field(default=None, description="PEM file with extra trusted root certificates.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    graph_url: str = Field(
        default="https://graph.threads.net",
        description="Where the Threads API lives; requests go to <url>/v1.0/…",
    )
    poll_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Shortest time between two reads of one account. A quiet account is read at least every ten "
        "times that.",
    )
    secure_mode: bool = Field(
        default=False,
        description="Answer ActivityPub requests for profiles, posts and collections only when they are signed by "
        'somebody who is not blocked ("authorized fetch"). Pages for people stay open.',
    )
    log_format: str = Field(default="auto", pattern="^(auto|json|text)$", description="auto, json or text.")
    allow_list: bool = Field(
        default=False,
        description="Allow-list mode: only servers that the operator allowed (`blocks add --severity allow`) may "
        "write, read in secure mode, and receive.",
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        description="Comma-separated CIDRs of proxies whose X-Forwarded-For is believed.",
    )
    refusals_per_minute: int = Field(
        default=120,
        ge=1,
        description="Requests to an inbox from one address that may be refused within a minute before unknown "
        "senders from there are answered 429; as many of what one server brings of others.",
    )
    requests_per_minute_per_server: int = Field(
        default=30_000, ge=1, description="Verified requests that one server may make within a minute, then 429."
    )
    operator_contact: str = Field(default="", description="Mail address or URL shown to other servers' people.")
    quiet: bool = Field(
        default=False,
        description="The brake: nothing is sent to other servers and nothing is asked of them by ourselves; all that "
        "would be is written down and shown by `threadbridge queue`. What arrives is accepted, its answers wait.",
    )
    metrics: str = Field(
        default="loopback",
        pattern="^(off|loopback|token|open)$",
        description="Who may read /metrics: nobody (off), whoever asks 127.0.0.1 itself and through no proxy "
        "(loopback), whoever sends metrics_token as Bearer (token), everybody (open).",
    )
    metrics_token: SecretStr | None = Field(
        default=None, description="The token for metrics=token, of at least 16 characters."
    )
    probe_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port on which `work`, which has no web side, answers /livez, /readyz and /metrics; 0 for none.",
    )
    ready_backlog_seconds: float = Field(
        default=900.0,
        ge=0,
        description="/readyz fails while an answer or a new post has waited longer for its turn; 0: it never does.",
    )
    ready_free_bytes: int = Field(
        default=200_000_000, ge=0, description="/readyz fails while less is free in the data folder."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="Where OpenTelemetry traces go (OTLP over HTTP, http://collector:4318); needs the extra `otel`.",
    )
    log_lines_per_minute: int = Field(
        default=600,
        ge=1,
        description="Lines of one kind (event and reason) that are written within a minute; the rest are counted. "
        "Warnings and errors are never left out.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _config_file()))

    @field_validator(
        "base_url",
        "database_url",
        "secret_key_file",
        "ca_file",
        "media_url",
        "metrics_token",
        "otlp_endpoint",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("data_dir", "secret_key_file", "ca_file")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        # The shell does this for a command line, nobody does it for a file or for systemd.
        try:
            return value.expanduser() if value is not None else None
        except RuntimeError as error:
            raise ValueError(str(error)) from None

    @field_validator("data_dir")
    @classmethod
    def _fits_a_database_url(cls, value: Path) -> Path:
        if "?" in str(value):
            raise ValueError("a folder with a question mark in its path cannot hold the database")
        return value

    @field_validator("allowed_private_networks", "trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            raise ValueError("networks are written as CIDRs, for example 127.0.0.0/8")
        return tuple(ipaddress.ip_network(part, strict=False) for part in value)

    @field_validator("base_url", "graph_url", mode="before")
    @classmethod
    def _no_trailing_slash(cls, value: Any) -> Any:
        return value.rstrip("/") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_urls(self) -> Config:
        if self.base_url is not None:
            try:
                check_base_url(self.base_url, private_allowed=bool(self.allowed_private_networks))
            except ValueError as error:
                raise ValueError(f"{ENV_PREFIX}BASE_URL: {error}") from None
        if self.media_url is not None:
            parts = urlsplit(self.media_url)
            if not (parts.scheme == "s3" and parts.netloc) and not (parts.scheme == "file" and parts.path[:1] == "/"):
                raise ValueError(f"{ENV_PREFIX}MEDIA_URL: s3://bucket/prefix or file:///folder is needed")
            if parts.query or parts.fragment or parts.username or (parts.scheme == "file" and parts.netloc):
                # A secret in an address ends up in logs; credentials come from the AWS_ variables.
                raise ValueError(f"{ENV_PREFIX}MEDIA_URL: no user, host of a file, query or fragment is understood")
        try:
            check_graph_url(self.graph_url)
        except ValueError as error:
            raise ValueError(f"{ENV_PREFIX}GRAPH_URL: {error}") from None
        if self.otlp_endpoint is not None and urlsplit(self.otlp_endpoint).scheme not in ("http", "https"):
            raise ValueError(f"{ENV_PREFIX}OTLP_ENDPOINT: an address such as http://collector:4318 is needed")
        token = self.metrics_token.get_secret_value() if self.metrics_token else ""
        if self.metrics == "token" and len(token) < 16:
            raise ValueError(f"{ENV_PREFIX}METRICS=token needs {ENV_PREFIX}METRICS_TOKEN of at least 16 characters")
        return self

    @property
    def database(self) -> str:
        """The database URL with its default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'threadbridge.sqlite3'}"

    @property
    def secret_key_path(self) -> Path:
        """The secret key file with its default filled in."""
        return self.secret_key_file or self.data_dir / "secret.key"


class _Fixed(Config):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def fixed(**values: Any) -> Config:
    """Exactly these values and the defaults: neither the environment nor a file is looked at (the demo must not write
    into somebody's real database)."""
    return _Fixed(**values)


def check_base_url(base_url: str, *, private_allowed: bool) -> None:
    """Raise ValueError unless `base_url` can be the root of ids that never change.

    Peers compare ids byte by byte, so: no path, no user info, lower case; https without a port unless the operator
    works on private networks (Lemmy refuses any explicit port; Mastodon refuses plain http).
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not base_url.isascii() or " " in base_url:
        raise ValueError(f"base_url must look like https://bridge.example (in ASCII), not {base_url!r}")
    if parts.path or parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(f"base_url must be scheme and host only, not {base_url!r}")
    if base_url != base_url.lower():
        raise ValueError(f"base_url must be lower case: {base_url.lower()}")
    port = parts.port  # raises ValueError when it is no port
    if not private_allowed and (parts.scheme != "https" or port is not None):
        raise ValueError(
            f"base_url {base_url!r} must be https:// and without a port; http and ports are only for private "
            "networks (set THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS, for example to 127.0.0.0/8)"
        )


def check_graph_url(graph_url: str) -> None:
    """Raise ValueError unless `graph_url` can have `/v1.0/…` behind it."""
    parts = urlsplit(graph_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"an http(s) address such as https://graph.threads.net is needed, not {graph_url!r}")


def _config_file() -> Path:
    return Path(os.environ.get(ENV_PREFIX + "CONFIG") or CONFIG_FILE)


def load(**overrides: Any) -> Config:
    """Read the configuration; raises BadConfiguration with every problem named by its setting."""
    given = {key: value for key, value in overrides.items() if value is not None}
    file = _config_file()
    if os.environ.get(ENV_PREFIX + "CONFIG") and not file.is_file():
        raise BadConfiguration(f"{ENV_PREFIX}CONFIG names {file}, which is no file")
    try:
        return Config(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = str(problem["loc"][0]) if problem["loc"] else ""
            message = _in_words(where, problem)
            if problem["type"] == "extra_forbidden":
                lines.append(f"{file}: {where}: no such setting")
            else:
                lines.append(f"{ENV_PREFIX}{where.upper()}: {message}" if where else message)
        raise BadConfiguration("The configuration is not usable", detail="; ".join(lines)) from None
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"The configuration file {file} could not be read", detail=str(error)) from None


_WANTED = {
    "int_parsing": "a whole number", "int_from_float": "a whole number", "int_type": "a whole number",
    "float_parsing": "a number", "float_type": "a number", "finite_number": "a number",
    "bool_parsing": "yes or no (1 or 0)", "bool_type": "yes or no (1 or 0)",
    "url_parsing": "an address such as https://bridge.example", "path_type": "a path", "string_type": "text",
}  # fmt: skip
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"), "less_than": ("less than", "lt"),
    "multiple_of": ("a multiple of", "multiple_of"),
    "string_too_short": ("at least so many characters:", "min_length"),
    "string_too_long": ("at most so many characters:", "max_length"),
}  # fmt: skip


def _in_words(name: str, problem: ErrorDetails) -> str:
    """What is wrong with a setting: what was given, and what is allowed. A secret is not repeated."""
    field = Config.model_fields.get(name)
    secret = field is not None and "Secret" in str(field.annotation)
    value = "what is given" if secret else f"{str(problem['input'])[:100]!r}"
    context = problem.get("ctx", {})
    if problem["type"] in _WANTED:
        return f"{value} is not {_WANTED[problem['type']]}"
    if problem["type"] in _BOUNDS:
        words, which = _BOUNDS[problem["type"]]
        return f"{value} is not allowed: {words} {context[which]}"
    if problem["type"] == "literal_error":
        return f"{value} is none of {context['expected']}"
    return str(problem["msg"]).removeprefix("Value error, ")


def unknown_environment() -> list[str]:
    """Names of THREADBRIDGE_… variables that mean nothing (likely typing errors), for a warning at the door."""
    known = {ENV_PREFIX + name.upper() for name in Config.model_fields} | {ENV_PREFIX + "CONFIG"}
    return sorted(
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX) and name not in known and not name.startswith(ENV_PREFIX + "TEST_")
    )
