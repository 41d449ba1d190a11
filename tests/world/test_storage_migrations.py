"""Bringing a database to the newest form: the migrations make what the tables say, and nothing is said to anybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from tests.rig import BackgroundLoop, Served, Stranger, a_key, eventually, free_socket, running_bridge
from tests.stories.command_line import PROCESSES

from threadbridge.config import fixed
from threadbridge.delivery import outbox
from threadbridge.errors import BadConfiguration
from threadbridge.services import open_ground
from threadbridge.storage import accounts, keys, migrate, schema
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import open_vault


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Store]:
    opened = Store.open(empty_database_url)
    yield opened
    opened.close()


def revision(store: Store) -> str | None:
    return store.read_now(lambda tx: tx.execute(text("SELECT version_num FROM alembic_version")).scalar())


def form(store: Store) -> dict[str, Any]:
    """Everything that can be told of the tables: columns, types, keys, indexes with their conditions."""
    with store.connected() as connection:
        looked = inspect(connection)
        return {
            name: (
                sorted((c["name"], str(c["type"]), c["nullable"], c.get("default"))
                       for c in looked.get_columns(name)),
                sorted((i["name"] or "", i["column_names"], i["unique"], _words(i.get("dialect_options", {})))
                       for i in looked.get_indexes(name)),
                sorted((u["name"] or "", tuple(u["column_names"])) for u in looked.get_unique_constraints(name)),
                sorted((f["name"] or "", f["referred_table"]) for f in looked.get_foreign_keys(name)),
                sorted((k["name"] or "", k["sqltext"]) for k in looked.get_check_constraints(name)),
                looked.get_pk_constraint(name)["constrained_columns"],
            )
            for name in looked.get_table_names()
            if name != "alembic_version"
        }  # fmt: skip


def _words(options: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in options.items()}


# ── form ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_migrations_make_exactly_what_the_tables_say(empty: Store) -> None:
    migrate.to_newest(empty)
    with empty.connected() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []


def test_a_database_made_at_once_and_one_made_step_by_step_are_the_same(
    empty: Store, empty_database_url: str, tmp_path: Path
) -> None:
    # Alembic's own comparison does not look at conditions of indexes.
    migrate.to_newest(empty)
    by_steps = form(empty)
    with empty.connected() as connection, connection.begin():
        schema.metadata.drop_all(connection)
    with empty.connected() as connection, connection.begin():
        schema.metadata.create_all(connection)
    assert form(empty) == by_steps


def test_numbers_of_deleted_rows_are_never_used_again(empty: Store) -> None:
    migrate.to_newest(empty)

    def add(tx: Tx) -> int:
        number: int = tx.execute(
            schema.accounts.insert()
            .values(handle=f"h{time.monotonic_ns()}", name="", bio="", state="active", discoverable=True,
                    created_at=tx.now, changed_at=tx.now)
            .returning(schema.accounts.c.id)
        ).scalar_one()  # fmt: skip
        return number

    first = empty.transact_now(add)
    empty.transact_now(lambda tx: tx.execute(schema.accounts.delete()))
    assert empty.transact_now(add) > first


# ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_form_is_the_last_of_the_migrations() -> None:
    scripts = ScriptDirectory.from_config(migrate._config())
    assert migrate._newest() == scripts.get_current_head()
    assert migrate._revisions() == {script.revision for script in scripts.walk_revisions()}


def test_a_start_migrates_once(empty: Store) -> None:
    assert migrate.to_newest(empty) is True
    newest = revision(empty)
    assert migrate.to_newest(empty) is False
    migrate.to_revision(empty, "head")
    assert revision(empty) == newest


def test_a_start_on_a_database_that_is_up_to_date_writes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite3'}"
    store = Store.open(url)
    migrate.to_newest(store)
    other = Store.open(url)
    with other.engine.begin():  # somebody writes just now
        started = time.monotonic()
        assert migrate.to_newest(store) is False
        assert time.monotonic() - started < 2
    store.close()
    other.close()


def test_a_database_from_the_future_is_refused_and_left_alone(empty: Store) -> None:
    migrate.to_newest(empty)
    empty.transact_now(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(BadConfiguration, match="newer version") as caught:
        migrate.to_newest(empty)
    assert "9999" in str(caught.value)
    assert "backup" in str(caught.value)
    assert revision(empty) == "9999"


def test_a_migration_that_fails_half_way_leaves_the_database_as_it_was(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.to_revision(empty, "0001")
    before = form(empty)

    # The table that the next revision wants to add a column to has it already: it fails in the middle of its work.
    def in_the_way(tx: Tx) -> None:
        tx.execute(text("CREATE INDEX ix_replies_peer ON replies (id)"))

    empty.transact_now(in_the_way)
    with pytest.raises(Exception, match="ix_replies_peer"):
        migrate.to_newest(empty)
    assert revision(empty) == "0001"
    empty.transact_now(lambda tx: tx.execute(text("DROP INDEX ix_replies_peer")))
    assert form(empty) == before
    assert migrate.to_newest(empty) is True


def start(folder: Path, url: str, begin: Any, said: Any) -> None:
    """In a process of its own: what a first start does, together with the others."""
    begin.wait(60)
    ground = open_ground(fixed(base_url="https://bridge.example", data_dir=folder, database_url=url))
    said.put((ground.store.read_now(keys.public_key, None)[:500], ground.vault.derive("p").hex()))
    ground.close()


@pytest.mark.parametrize("revision_before", [None, "0001"])
def test_several_that_start_together_make_one_database(
    empty: Store, empty_database_url: str, tmp_path: Path, revision_before: str | None
) -> None:
    if revision_before:
        migrate.to_revision(empty, revision_before)
    begin, said = PROCESSES.Barrier(3), PROCESSES.Queue()
    given = (tmp_path / "data", empty_database_url, begin, said)
    processes = [PROCESSES.Process(target=start, args=given) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [said.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(set(answers)) == 1
    assert migrate.to_newest(empty) is False


# ── silence ──────────────────────────────────────────────────────────────────────────────────────────────────────

THEN = int(datetime(2025, 6, 1, tzinfo=UTC).timestamp() * 1_000_000)


def populate(store: Store, vault_folder: Path, base: str, stranger: Stranger) -> None:
    """An account with followers, posts delivered and historical, at the revision before this one: written in SQL,
    since the program of today knows only the tables of today."""
    vault = open_vault(vault_folder / "secret.key")
    key = a_key()

    def fill(tx: Tx) -> None:
        def put(table: str, **values: Any) -> None:
            names = ", ".join(values)
            places = ", ".join(f":{name}" for name in values)
            tx.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)

        put("facts", name="base_url", value=base)
        put("accounts", id=1, handle="alice", name="Alice", bio="", state="active", discoverable=True,
            created_at=THEN, followers_count=2, posts_count=4, changed_at=THEN)  # fmt: skip
        for number, purpose in ((None, "instance"), (1, "1")):
            sealed = vault.seal(key.private_pem, purpose=f"account_keys/{purpose}/private")
            put("account_keys", account_id=number, public_pem=key.public_pem, sealed_private=sealed, created_at=THEN)
        put("account_states", account_id=1, state="active", cause="consent: download", at=THEN)
        for name in ("bob", "carol"):
            uri = f"{stranger.base}/users/{name}"
            put("peers", uri=uri, host=stranger.base[7:], kind="Person", handle=f"{name}@x", name=name,
                inbox=f"{uri}/inbox", shared_inbox=f"{stranger.base}/inbox", key_id=f"{uri}#main-key",
                key_pem=stranger.key.public_pem, fetched_at=THEN)  # fmt: skip
            put("followers", account_id=1, peer_uri=uri, follow_uri=f"{uri}/f", inbox=f"{stranger.base}/inbox",
                since=THEN)  # fmt: skip
        for number in range(1, 5):
            silent = number > 2  # two were bridged, two are history
            deleted_at = THEN if number == 2 else None
            put("posts", id=number, account_id=1, kind="post", text="Hello", published=THEN + number, sensitive=False,
                silent=silent, created_at=THEN, deleted_at=deleted_at)  # fmt: skip
            put("origins", account_id=1, source="download", native_id=str(number), post_id=number,
                fingerprint="f", seen_at=THEN)  # fmt: skip
        ends = [
            ("Create", 1, "delivered"),
            ("Create", 2, "delivered"),
            ("Update", 1, "refused"),
            ("Delete", 2, "gone"),
            ("Update", 1, "given_up"),
        ]
        for number, (kind, about, state) in enumerate(ends, 1):
            note = f"{base}/ap/users/1/posts/{about}"
            put("activities", id=number, account_id=1, uri=f"{note}#{number}", kind=kind, order_key=note,
                post_id=about, body=b"{}", created_at=THEN, fanned_out_at=THEN)  # fmt: skip
            put("deliveries", activity_id=number, account_id=1, post_id=about, inbox=f"{stranger.base}/inbox",
                host=stranger.base[7:], order_key=note, lane=1, state=state,
                attempts=1, due_at=THEN, created_at=THEN, ended_at=THEN, status=202)  # fmt: skip
        put("hosts", host=stranger.base[7:], failures=3, failing_since=THEN, held_until=THEN, last_trouble="500")
        put("jobs", kind="prune", key="all", arguments="{}", due_at=THEN, created_at=THEN)

    store.transact_now(fill)
    if store.dialect == "postgresql":
        for table in ("accounts", "posts", "activities"):
            set_next = text(f"SELECT setval('{table}_id_seq', 1000)")
            store.transact_now(Tx.execute, set_next)


def test_a_populated_database_of_the_revision_before_is_migrated_and_sends_nothing_by_itself(
    empty_database_url: str, tmp_path: Path
) -> None:
    loop = BackgroundLoop()
    sock = free_socket()
    stranger = Stranger(f"http://127.0.0.1:{sock.getsockname()[1]}", key=a_key(1))
    served = Served(loop, stranger.create_app(), sock)
    base = "http://127.0.0.1:1"
    old = Store.open(empty_database_url)
    migrate.to_revision(old, "0001")
    populate(old, tmp_path / "data", base, stranger)
    before = counted(old)
    old.close()
    with running_bridge(tmp_path / "data", database_url=empty_database_url, base_url=base) as bridge:
        assert revision(bridge.ground.store) != "0001"
        time.sleep(2.5)
        assert (stranger.requests, stranger.fetched) == ([], [])
        after = counted(bridge.ground.store)
        # Nothing comes and nothing goes but the Ed25519 keys that accounts of that time did not have.
        before["account_keys"] *= 2
        # What ended long ago has become figures, and a worker remembers the latest time at which anybody worked.
        before["deliveries"], before["facts"] = 0, before["facts"] + 1
        assert {table: after[table] for table in before} == before
        assert bridge.count("deliveries", state="waiting") == 0
        # The test can hear: one new post does arrive.
        account = bridge.ground.store.read_now(accounts.by_id, 1)
        assert account is not None
        post_id = int(bridge.post(account).rsplit("/", 1)[1])
        bridge.ground.store.transact_now(outbox.publish, bridge.ground.ids, account, post_id)
        eventually(lambda: stranger.received)
        assert [activity["type"] for activity in stranger.received] == ["Create"]
    served.stop()
    loop.close()


def counted(store: Store) -> dict[str, int]:
    """{table: rows}, of whatever revision the database is."""

    def count(tx: Tx) -> dict[str, int]:
        return {n: tx.execute(text(f"SELECT count(*) FROM {n}")).scalar_one() for n in tables}

    tables = list(form(store))
    return store.read_now(count)
