"""The composition root: the only place that names concrete classes and puts them together.

Rule: use cases get the plain things they need from here; none of them ever gets all of `Services`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

import structlog

from threadbridge import __version__
from threadbridge.activitypub.ids import Ids
from threadbridge.bridge.reading import Reader
from threadbridge.config import Config, check_base_url
from threadbridge.delivery.carrier import Carrier
from threadbridge.delivery.proving import Prover
from threadbridge.delivery.send import Sender
from threadbridge.errors import BadConfiguration, ThreadbridgeError
from threadbridge.federation.own_inbox import OwnInbox
from threadbridge.media.shelves import FolderShelf, Shelf, open_shelf
from threadbridge.media.store import MediaStore
from threadbridge.net.client import Client
from threadbridge.net.guard import Guard
from threadbridge.net.manners import Memory
from threadbridge.net.peers import Peers
from threadbridge.signatures import knocking, schemes
from threadbridge.signatures.keys import SigningKey, signing_key
from threadbridge.signatures.knocking import Manner
from threadbridge.sources.threads_api import ThreadsApi, fetching
from threadbridge.storage import accounts, hosts, keys, migrate
from threadbridge.storage.hosts import Taken
from threadbridge.storage.store import Store, prepare_folder
from threadbridge.storage.vault import Vault, new_rsa_key, open_vault

log = structlog.get_logger(__name__)

# A post that travels brings hundreds of new people of one large server in a minute, each with a key to fetch.
PEER_REQUESTS_PER_MINUTE = 600
SOURCES_KEPT = 1000
SOURCE_API = "threads"
"""What posts read from the Threads API are filed under."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Ground:
    """What commands need that never touch the network: the database, the vault, the media, our addresses."""

    config: Config
    store: Store
    vault: Vault
    media: MediaStore
    archives: Shelf
    ids: Ids

    def close(self) -> None:
        self.media.close()
        self.store.close()


def open_ground(config: Config, *, needs_base_url: bool = True) -> Ground:
    """Open (and on a first start make) everything that lies on disk. Raises BadConfiguration with what to do."""
    prepare_folder(config.data_dir)
    store = Store.open(config.database, connections=config.database_connections, pooled=config.database_pooled)
    try:
        migrate.to_newest(store)
        base_url = store.read_now(accounts.fact, "base_url")
        if base_url is None and config.base_url is None and needs_base_url:
            raise BadConfiguration(
                "The public address is not set",
                hint="Set THREADBRIDGE_BASE_URL, for example https://bridge.example; every id is made from it.",
            )
        if base_url is not None and config.base_url is not None and base_url != config.base_url:
            raise BadConfiguration(
                f"This data belongs to {base_url}, not to {config.base_url}",
                hint="Ids never change: set THREADBRIDGE_BASE_URL to the address above, or use another data folder.",
            )
        sealed = store.read_now(keys.has_instance_key)
        vault = open_vault(config.secret_key_path, make=not sealed)
        if sealed:
            # With another key nothing could be signed and no source read: said now, not at the first delivery.
            store.read_now(keys.private_key, vault, None)
        if base_url is None and config.base_url is not None:
            store.transact_now(accounts.set_fact, "base_url", config.base_url)
        if not sealed:
            store.transact_now(keys.ensure_instance_key, vault, new_rsa_key())
        if store.read_now(keys.without_proof_key, 1):
            while store.transact_now(keys.add_missing, vault):
                pass
        chosen = config.base_url or base_url or "http://localhost"
        if needs_base_url:
            _check_base_url(chosen, config)
        return Ground(config, store, vault, _media(config), _archives(config), Ids(chosen))
    except BaseException:
        store.close()
        raise


def _media(config: Config) -> MediaStore:
    shelf = open_shelf(config.media_url, config.data_dir, "media")
    # What arrives is written beside where it will lie, so that it can be moved there; for a store, in our own folder.
    folder = shelf.folder if isinstance(shelf, FolderShelf) else config.data_dir / "media"
    return MediaStore(folder, shelf=shelf)


def _archives(config: Config) -> Shelf:
    return open_shelf(config.media_url, config.data_dir, "exports")


def _check_base_url(base_url: str, config: Config) -> None:
    try:
        check_base_url(base_url, private_allowed=bool(config.allowed_private_networks))
    except ValueError as error:
        raise BadConfiguration("The public address is not usable", detail=str(error)) from None


@dataclass(frozen=True, slots=True)
class Services:
    """Everything put together, for one event loop."""

    ground: Ground
    client: Client
    peers: Peers
    reader: Reader
    prover: Prover
    carrier: Carrier
    _sources: OrderedDict[tuple[str, str], ThreadsApi] = field(default_factory=OrderedDict)

    @property
    def config(self) -> Config:
        return self.ground.config

    @property
    def store(self) -> Store:
        return self.ground.store

    @property
    def vault(self) -> Vault:
        return self.ground.vault

    @property
    def ids(self) -> Ids:
        return self.ground.ids

    @property
    def media(self) -> MediaStore:
        return self.ground.media

    @property
    def archives(self) -> Shelf:
        return self.ground.archives

    def sender(self) -> Sender:
        """A new engine that carries deliveries."""
        home = OwnInbox(self.store, self.ids, clock=utc_now)
        return Sender(self.store, self.vault, self.carrier, self.ids, self.prover, home.hand_over)

    def source_for(self, token: str, graph_url: str) -> ThreadsApi:
        """The Threads API with a token, connected to an account or not yet. The same one for the same token: it
        remembers addresses of quoted posts, and which fields it was refused."""
        known = self._sources.get((token, graph_url))
        if known is None:
            known = self._sources[token, graph_url] = ThreadsApi(fetching(self.client), graph_url, token, now=utc_now)
            while len(self._sources) > SOURCES_KEPT:
                self._sources.popitem(last=False)
        else:
            self._sources.move_to_end((token, graph_url))
        return known

    def echo_client(self) -> Client:
        """A client that may ask this very server, through whatever stands in front of it, as others do. Only for
        looking whether we can be found: what it brings is believed by nobody. Close it after use."""
        return Client(
            Guard(self.config.allowed_private_networks),
            user_agent=f"threadbridge/{__version__} (+{self.ids.base}/)",
            ca_file=self.config.ca_file,
            clock=utc_now,
            connections=4,
        )

    async def aclose(self) -> None:
        """Close what `open_services` opened; the ground stays."""
        self.carrier.close()
        await self.client.aclose()


def open_services(ground: Ground) -> Services:
    """Put the network parts on the ground. Call it inside the event loop that will use them."""
    config, ids = ground.config, ground.ids
    client = Client(
        Guard(config.allowed_private_networks, well_known=urlsplit(config.graph_url).hostname),
        user_agent=f"threadbridge/{__version__} (+{ids.base}/)",
        ca_file=config.ca_file,
        own_base_url=ids.base,
        clock=utc_now,
    )
    key: list[SigningKey] = []

    async def sign_get(url: str, manner: Manner) -> dict[str, str]:
        if not key:
            own, pem = await ground.store.read(keys.private_key, ground.vault, None)
            key.append(signing_key(f"{ids.instance}#{own.fragment}", pem))
        return schemes.sign(
            manner.scheme,
            key[0],
            method="GET",
            url=url,
            body=None,
            date=utc_now(),
            content_type=None,
            demand=manner.demand,
            with_query=manner.with_query,
        )

    peers = Peers(
        client,
        sign_get,
        key_id=ids.instance_key,
        requests_per_minute=PEER_REQUESTS_PER_MINUTE,
        memory=_memory_of_manners(ground.store),
    )
    reader = Reader(ground.store, client, ground.media, ids)
    return Services(
        ground, client, peers, reader, Prover(ground.vault, ids), Carrier(client, clock=utc_now, quiet=config.quiet)
    )


def _memory_of_manners(store: Store) -> Memory:
    """Which signatures hosts take for documents, in the table of hosts. Without the database a document is asked for
    in the usual manner."""

    async def recall(host: str) -> Manner | None:
        try:
            taken = await store.read(hosts.taken_of_documents, host)
        except ThreadbridgeError as error:
            log.warning("it could not be looked up which signature a host takes", host=host, error=str(error))
            return None
        return knocking.remembered(taken.scheme, taken.asked) if taken else None

    async def remember(host: str, manner: Manner, evidence: str) -> None:
        try:
            await store.transact(hosts.remember_for_documents, host, Taken(*manner.kept, evidence))
        except ThreadbridgeError as error:
            log.warning("it could not be written down which signature a host takes", host=host, error=str(error))

    return Memory(recall, remember)
