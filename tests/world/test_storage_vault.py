"""The vault: what is sealed opens only with its key and in its place, and there is one key however many start."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from threadbridge.errors import BadConfiguration, Conflict
from threadbridge.storage import accounts, connections, keys, schema
from threadbridge.storage.store import Store, Tx
from threadbridge.storage.vault import NewKey, Vault, new_rsa_key, new_token, open_vault, token_hash

VAULT = Vault(bytes(range(32)))


def account(tx: Tx, handle: str, secret: bytes) -> int:
    return accounts.create(
        tx, VAULT, NewKey("public", secret), handle=handle, name="", bio="", source_url=None, joined_at=None,
        consent_kind="download", consent_wording="",
    ).id  # fmt: skip


@pytest.mark.parametrize("secret", [b"", b"a", b"token" * 1000, bytes(range(256))])
def test_what_is_sealed_opens_again(secret: bytes) -> None:
    sealed = VAULT.seal(secret, purpose="here")
    assert VAULT.open(sealed, purpose="here") == secret
    assert VAULT.seal(secret, purpose="here") != sealed  # another nonce each time
    assert not secret or secret not in sealed


def test_what_is_moved_changed_or_cut_does_not_open() -> None:
    sealed = VAULT.seal(b"secret", purpose="here")
    for bent, purpose in (
        (sealed, "there"),
        (sealed[:-1], "here"),
        (bytes([sealed[0] ^ 1]) + sealed[1:], "here"),
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), "here"),
        (b"", "here"),
        (sealed[:12], "here"),
    ):
        with pytest.raises(BadConfiguration, match="cannot be opened"):
            VAULT.open(bent, purpose=purpose)


def test_a_sealed_row_moved_to_another_account_does_not_open(store: Store) -> None:
    alice = store.transact_now(account, "alice", b"alice's key")
    bob = store.transact_now(account, "bob", b"bob's key")
    assert store.read_now(keys.private_key, VAULT, alice)[1] == b"alice's key"
    k = schema.account_keys

    def move(tx: Tx) -> None:
        sealed = tx.execute(k.select().where(k.c.account_id == alice, k.c.kind == "rsa")).one().sealed_private
        tx.execute(k.update().where(k.c.account_id == bob).values(sealed_private=sealed))

    store.transact_now(move)
    with pytest.raises(BadConfiguration):
        store.read_now(keys.private_key, VAULT, bob)
    assert store.read_now(keys.private_key, VAULT, alice)[1] == b"alice's key"


def test_another_key_file_is_said_with_what_to_do(store: Store) -> None:
    number = store.transact_now(account, "alice", b"secret")
    with pytest.raises(BadConfiguration) as caught:
        store.read_now(keys.private_key, Vault(bytes(32)), number)
    assert "THREADBRIDGE_SECRET_KEY_FILE" in str(caught.value)
    assert "secret key" in caught.value.public


def test_nothing_in_the_database_is_readable_without_the_key(store: Store) -> None:
    number = store.transact_now(account, "alice", b"-----BEGIN PRIVATE KEY-----")
    given = {"source": "threads", "native_id": "1", "graph_url": "http://graph", "access_token": "THAA-secret"}
    store.transact_now(lambda tx: connections.connect(tx, VAULT, number, since=tx.now, **given))

    def everything(tx: Tx) -> bytes:
        return b"".join(
            repr(tuple(row)).encode() for table in schema.metadata.sorted_tables for row in tx.execute(table.select())
        )

    held = store.read_now(everything)
    assert b"PRIVATE KEY" not in held
    assert b"THAA-secret" not in held
    assert store.read_now(connections.token, VAULT, number) == "THAA-secret"


def test_derived_keys_differ_by_purpose_and_by_vault() -> None:
    keys = {VAULT.derive("one"), VAULT.derive("two"), Vault(bytes(32)).derive("one")}
    assert len(keys) == 3
    assert all(len(key) == 32 for key in keys)
    assert VAULT.derive("one") == Vault(bytes(range(32))).derive("one")


# ── the key file ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_first_start_makes_the_key_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "not yet" / "secret.key"
    sealed = open_vault(path).seal(b"x", purpose="p")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_vault(path).open(sealed, purpose="p") == b"x"
    assert os.listdir(path.parent) == ["secret.key"]


@pytest.mark.parametrize("content", [b"", b"short", base64.b64encode(bytes(31)), b"\xff" * 44, b"!!!!"])
def test_a_damaged_key_file_is_said_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    with pytest.raises(BadConfiguration, match=r"secret\.key"):
        open_vault(path)
    assert path.read_bytes() == content


def test_a_key_file_that_is_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="cannot be used"):
        open_vault(tmp_path)


def test_a_missing_key_is_not_made_anew_when_something_is_sealed_with_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="missing"):
        open_vault(tmp_path / "secret.key", make=False)
    assert os.listdir(tmp_path) == []


def test_first_starts_at_the_same_moment_agree_on_one_key(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from threadbridge.storage.vault import open_vault
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(" ".join(open_vault(folder / f"{n}.key").derive("p").hex() for n in range(40)), flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(answers[0].split()) == 40
    assert len(set(answers)) == 1


# ── keys and tokens ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_instance_has_one_key_whoever_makes_it_first(store: Store) -> None:
    first, second = new_rsa_key(), NewKey("other", b"other")
    store.transact_now(keys.ensure_instance_key, VAULT, first)
    store.transact_now(keys.ensure_instance_key, VAULT, second)
    assert store.read_now(keys.public_key, None) == first.public_pem
    assert store.read_now(keys.private_key, VAULT, None)[1] == first.private_pem


def test_the_instance_key_is_made_once_by_two_that_start_together(store: Store, database_url: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    others = [Store.open(database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda pair: pair[1].transact_now(
                    keys.ensure_instance_key, VAULT, NewKey(f"public {pair[0]}", b"private")
                ),
                enumerate(others),
            )
        )
    rows = store.read_now(lambda tx: tx.execute(schema.account_keys.select()).all())
    assert sorted(row.kind for row in rows) == ["ed25519", "rsa"]
    for other in others:
        other.close()


def test_a_taken_handle_is_a_conflict_and_leaves_nothing(store: Store) -> None:
    store.transact_now(account, "alice", b"x")
    with pytest.raises(Conflict):
        store.transact_now(account, "alice", b"y")
    assert len(store.read_now(lambda tx: tx.execute(schema.account_keys.select()).all())) == 2


def test_tokens_are_long_and_only_their_hash_says_nothing() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(len(token) for token in tokens) >= 43
    assert len({token_hash(token) for token in tokens}) == 100
    assert token_hash("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
