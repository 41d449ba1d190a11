"""A database and its secret key, put into a new folder, are the same accounts: same keys, same signatures."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig import Bridge, a_key, running_bridge

from threadbridge.config import fixed
from threadbridge.errors import BadConfiguration
from threadbridge.federation import rotation
from threadbridge.services import open_ground
from threadbridge.signatures.keys import proof_key, signing_key
from threadbridge.storage import keys
from threadbridge.storage.vault import open_vault

BASE = "https://bridge.example"


@pytest.fixture
def backed_up(tmp_path: Path) -> Iterator[tuple[Bridge, Path, Path]]:
    """A running bridge, and the two things that its owner keeps: a copy made while it ran, and the secret key."""
    with running_bridge(tmp_path / "old", base_url=BASE, worker=False) as bridge:
        account = bridge.account()
        bridge.ground.store.transact_now(rotation.begin, bridge.ground.vault, account, a_key(5))
        copy, secret = tmp_path / "copy.sqlite3", tmp_path / "kept apart.key"
        with sqlite3.connect(bridge.ground.config.data_dir / "threadbridge.sqlite3") as live:
            into = sqlite3.connect(copy)
            live.backup(into)
            into.close()
        live.close()
        shutil.copy(bridge.ground.config.data_dir / "secret.key", secret)
        yield bridge, copy, secret


def signatures(bridge: Bridge) -> list[tuple[str, bytes]]:
    """What every key there signs: (fragment, signature), in a fixed order."""
    made = []
    for owner in (None, 1):
        for own in bridge.ground.store.read_now(keys.every, owner):
            key, pem = bridge.ground.store.read_now(keys.private_key, bridge.ground.vault, owner, number=own.id)
            key_id = f"{BASE}/{owner}#{key.fragment}"
            signer = signing_key(key_id, pem) if key.kind == "rsa" else proof_key(key_id, pem)
            made.append((key.fragment, signer.sign(b"the same words")))
    return made


def test_what_is_restored_signs_the_same(backed_up: tuple[Bridge, Path, Path], tmp_path: Path) -> None:
    before, copy, secret = backed_up
    folder = tmp_path / "new"
    folder.mkdir()
    shutil.copy(copy, folder / "threadbridge.sqlite3")
    shutil.copy(secret, folder / "secret.key")
    documents = [before.get(path, Host="bridge.example").content for path in ("/ap/users/1", "/actor")]
    with running_bridge(folder, base_url=BASE, worker=False) as after:
        assert signatures(after) == signatures(before)
        assert len(signatures(after)) == 5
        # The proofs in them included.
        assert [after.get(path, Host="bridge.example").content for path in ("/ap/users/1", "/actor")] == documents


@pytest.mark.parametrize("lying", ["another", "none", "damaged"])
def test_without_the_right_secret_key_nothing_starts_and_nothing_is_written(
    backed_up: tuple[Bridge, Path, Path], tmp_path: Path, lying: str
) -> None:
    _, copy, _ = backed_up
    folder = tmp_path / "new"
    folder.mkdir()
    shutil.copy(copy, folder / "threadbridge.sqlite3")
    if lying == "another":
        open_vault(folder / "secret.key")
    elif lying == "damaged":
        (folder / "secret.key").write_text("not a key")
    with pytest.raises(BadConfiguration) as caught:
        open_ground(fixed(base_url=BASE, data_dir=folder))
    said = str(caught.value)
    assert {
        "another": "cannot be opened with this secret key" in said and "THREADBRIDGE_SECRET_KEY_FILE" in said,
        "none": "secret.key is missing" in said and "THREADBRIDGE_SECRET_KEY_FILE" in said,
        "damaged": "cannot be used" in said or "is damaged" in said,
    }[lying]
    assert (folder / "secret.key").exists() == (lying != "none")  # no new one in its place
    kept = sqlite3.connect(folder / "threadbridge.sqlite3")
    assert kept.execute("SELECT count(*) FROM account_keys").fetchone() == (5,)
    kept.close()
    # The command line says the same, and ends as after any wrong configuration.
    ended = subprocess.run(
        [sys.executable, "-m", "threadbridge", "keys", "list", "alice"],
        env={"PATH": "", "THREADBRIDGE_DATA_DIR": str(folder), "THREADBRIDGE_BASE_URL": BASE,
             "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "secret" in ended.stderr
    assert "Traceback" not in ended.stderr
