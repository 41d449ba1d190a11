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

from pydantic import Field, ValidationError, field_validator, model_validator
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
    log_format: str = Field(default="auto", pattern="^(auto|json|text)$", description="auto, json or text.")
    operator_contact: str = Field(default="", description="Mail address or URL shown to other servers' people.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, Path(os.environ.get(ENV_PREFIX + "CONFIG", CONFIG_FILE)))
        return (init_settings, env_settings, toml)

    @field_validator("allowed_private_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        return tuple(ipaddress.ip_network(part, strict=False) for part in value)

    @field_validator("base_url", "graph_url", mode="before")
    @classmethod
    def _no_trailing_slash(cls, value: Any) -> Any:
        return value.rstrip("/") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_urls(self) -> Config:
        if self.base_url is not None:
            check_base_url(self.base_url, private_allowed=bool(self.allowed_private_networks))
        parts = urlsplit(self.graph_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"graph_url must be an http(s) address, not {self.graph_url!r}")
        return self

    @property
    def database(self) -> str:
        """The database URL with its default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'threadbridge.sqlite3'}"

    @property
    def secret_key_path(self) -> Path:
        """The secret key file with its default filled in."""
        return self.secret_key_file or self.data_dir / "secret.key"


def check_base_url(base_url: str, *, private_allowed: bool) -> None:
    """Raise ValueError unless `base_url` can be the root of ids that never change.

    Peers compare ids byte by byte, so: no path, no user info, lower case; https without a port unless the operator
    works on private networks (Lemmy refuses any explicit port; Mastodon refuses plain http).
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url must look like https://bridge.example, not {base_url!r}")
    if parts.path or parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(f"base_url must be scheme and host only, not {base_url!r}")
    if base_url != base_url.lower():
        raise ValueError(f"base_url must be lower case: {base_url.lower()}")
    if not private_allowed and (parts.scheme != "https" or parts.port is not None):
        raise ValueError(
            f"base_url {base_url!r} must be https:// and without a port; http and ports are only for private "
            "networks (set THREADBRIDGE_ALLOWED_PRIVATE_NETWORKS, for example to 127.0.0.0/8)"
        )


def load(**overrides: Any) -> Config:
    """Read the configuration; raises BadConfiguration with every problem named by its setting."""
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return Config(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "configuration"
            message = str(problem["msg"]).removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                message = "no such setting"
            name = where if where == "configuration" else f"{ENV_PREFIX}{where.upper()}"
            lines.append(f"{name}: {message}")
        raise BadConfiguration("The configuration is not usable", detail="; ".join(lines)) from None
    except (OSError, ValueError) as error:
        raise BadConfiguration("The configuration could not be read", detail=str(error)) from None


def unknown_environment() -> list[str]:
    """Names of THREADBRIDGE_… variables that mean nothing (likely typing errors), for a warning at the door."""
    known = {ENV_PREFIX + name.upper() for name in Config.model_fields} | {ENV_PREFIX + "CONFIG"}
    return sorted(
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX) and name not in known and not name.startswith(ENV_PREFIX + "TEST_")
    )
