"""An owner's archive holds every column of every table that is about the account, or says here why not.

Every column is changed by itself: the archive must change with it, or not at all when the column is left out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, Table, delete, insert, update
from tests.stories.archived_account import (
    IDS,
    START,
    Place,
    document,
    opened,
    peer,
    place,
    put_file,
    quiet,
    relisted,
    repacked,
)

from threadbridge.portability.archive import write_archive
from threadbridge.portability.verify import verify
from threadbridge.storage import accounts, peers, schema
from threadbridge.storage.schema import Moment
from threadbridge.storage.store import Tx

WORKING = "how the server works on it, not what it is"
LEFT_OUT = {
    "account_keys": "the private half never leaves the house; the public one is in actor.json",
    "key_rotations": "a procedure; what it comes to are the keys in actor.json",
    "account_states.id": "the order of the list",
    "farewells": "a deletion under way; states.json tells of it",
    "sign_in_links": "a secret", "sessions": "a secret",
    "exports": "the list of these very archives",
    "accounts.revision": WORKING, "accounts.announced": WORKING, "accounts.announced_at": WORKING,
    "profile_fields.position": "the order of the list",
    "connections.graph_url": WORKING, "connections.sealed_token": "a secret",
    "connections.history_done_at": WORKING, "connections.last_read_at": WORKING, "connections.last_new_at": WORKING,
    "connections.profile_read_at": WORKING, "connections.failures": WORKING, "connections.trouble": WORKING,
    "connections.trouble_text": WORKING,
    "origins.fingerprint": "made from the post",
    "origins.account_id": "the post's, written twice",
    "post_tags.tag": "made from `shown`", "post_tags.account_id": "the post's, written twice",
    "attachments.source_key": "an address at the source that expires",
    "replies.html": "made from `original`", "mentions.html": "made from `original`",
    "replies.looked_at": WORKING,
    "quotes.by_post_id": "`uri` is its address",
    "blocks.held_by": "the account, written twice", "blocks.list_id": "never set in an owner's rule",
    "reports.digest": "made from the rest", "reports.by": "the account, or this server",
    "activities.order_key": WORKING, "activities.post_id": "in the activity's id",
    "activities.body": "made from the post, which is there", "activities.created_at": "the deliveries tell",
    "activities.fanned_out_at": WORKING,
    "deliveries.account_id": "the activity's, written twice", "deliveries.post_id": "in the activity's id",
    "deliveries.inbox": "an address of somebody else's server: `host` says which",
    "deliveries.order_key": WORKING, "deliveries.lane": WORKING, "deliveries.due_at": WORKING,
    "deliveries.leased_until": WORKING, "deliveries.lease": WORKING,
    "followers.inbox_host": "made from `inbox`", "activities.replaced_by": WORKING, "activities.trail": WORKING,
    "activities.rolled_up_at": WORKING, "activities.digest": "made from the post, which is there",
    "account_holders": "addresses of other servers; `holders.json` says which hold what",
    "certificates": "a signed document of its own",
    "held_posts.fingerprint": "made from the post",
    "held_files": "of posts that have not left, which are in profile.json",
}  # fmt: skip
"""What is not in the archive, by table or by column, with the reason."""

SUBJECT, OTHER = 1, 2
# (before, after) where any text will not do.
VALUES: dict[str, tuple[Any, Any]] = {
    "accounts.state": ("active", "paused"), "accounts.handle": ("anna", "hanna"),
    "accounts.credit_domains": ("a.example", "b.example"),
    "account_states.state": ("active", "paused"),
    "account_domains.state": ("asked", "confirmed"), "account_domains.findings": ("[]", '[["ok","yes"]]'),
    "posts.kind": ("post", "reply"), "posts.language": ("de", "en"), "posts.deleted_at": (None, START),
    "posts.audience": ("everyone", "mentioned_only"), "posts.reply_rule": ("everyone", "nobody"),
    "posts.quote_rule": ("everyone", "nobody"), "posts.spoilers": ("[[0,1]]", "[[0,2]]"),
    "posts.poll": ('{"options":["a","b"],"votes":[1,2],"closes_at":null}',
                   '{"options":["a","b"],"votes":[1,3],"closes_at":null}'),
    "posts.quoted_id": (12, 13), "posts.parent_id": (12, 13), "posts.thread_id": (12, 13),
    "post_rules.replies": ("source", "nobody"), "post_rules.quotes": ("everyone", "nobody"),
    "followers.ended_at": (None, START), "followers.ended_by": (None, "suspended"),
    "followers.carried_to": (None, "https://other.example/users/moved"),
    "reactions.kind": ("like", "announce"), "reactions.undone_at": (None, START),
    "reactions.parked": (None, "limited"),
    "replies.deleted_at": (None, START), "replies.original": ('{"id":"x"}', '{"id":"y"}'),
    "mentions.deleted_at": (None, START), "mentions.original": ('{"id":"x"}', '{"id":"y"}'),
    "quotes.ended_at": (None, START), "quotes.state": ("accepted", "revoked"), "quotes.by_post_id": (None, 12),
    "blocks.kind": ("domain", "actor"), "blocks.severity": ("suspend", "limit"), "blocks.list_id": (None, 1),
    "blocks.subject": ("bad.example", "worse.example"),
    "activities.replaced_by": (None, 22),
    "held_files.held_id": (5, 5), "held_posts.state": ("held", "unshared"),
    "held_posts.told": ('{"text":"a"}', '{"text":"b"}'),
    "reports.direction": ("out", "in"), "reports.objects": ("[]", '["x"]'),
    "contacts.relation": ("follower", "following"),
    "deliveries.state": ("delivered", "refused"), "attachments.kind": ("image", "video"),
    "attachments.missing": (None, "gone"),
}  # fmt: skip


def concerned() -> list[Table]:
    """The tables that are about an account or its posts."""
    return [
        t
        for t in schema.metadata.sorted_tables
        if t.name == "accounts" or {"account_id", "post_id"} & set(t.c.keys())
    ]


def value(column: Column[Any], hashes: tuple[str, str], *, changed: bool) -> Any:
    """What stands in a column, before and after."""
    name = f"{column.table.name}.{column.name}"
    if name in VALUES:
        return VALUES[name][changed]
    if column.name == "account_id" or name == "accounts.id":
        return OTHER if changed else SUBJECT
    if column.name == "post_id":
        return 12 if changed else 11
    if column.name == "activity_id":
        return 22 if changed else 21
    if column.name == "id":
        return 22 if changed else {"posts": 11, "activities": 21}.get(column.table.name, 5)
    if column.name in ("peer_uri", "person"):
        return peer(2 if changed else 1).uri
    if column.name in ("sha256", "avatar", "header"):
        return hashes[changed]
    kind = column.type
    if isinstance(kind, Moment):
        return START + timedelta(hours=1 if changed else 0)
    if isinstance(kind, Boolean):
        return changed
    if isinstance(kind, Integer | Float) or str(kind) == "BIGINT":
        return 4 if changed else 3
    if isinstance(kind, LargeBinary):
        return b"after" if changed else b"before"
    end = "after" if changed else "before"
    if column.name.endswith(("uri", "url", "link", "stamp", "author", "subject", "value")):
        return f"https://social.example/{column.table.name}/{column.name}/{end}"
    return f"{column.name[:4]}{end}"[: getattr(kind, "length", None) or 99]


def row_of(table: Table, hashes: tuple[str, str], **other: Any) -> dict[str, Any]:
    return {column.name: value(column, hashes, changed=False) for column in table.columns} | other


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("complete")) as found:
        yield found


@pytest.fixture(scope="module")
def hashes(here: Place) -> tuple[str, str]:
    """Two files; and one row in every table that is about the account, with something in every column."""
    made = put_file(here, b"\xff\xd8\xff one"), put_file(here, b"\xff\xd8\xff two")

    def fill(tx: Tx) -> None:
        tx.connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        for number in (1, 2):
            peers.save(tx, peer(number), "social.example")
        tx.execute(update(schema.accounts).values(row_of(schema.accounts, made)))
        tx.execute(insert(schema.accounts).values(row_of(schema.accounts, made, id=OTHER, handle="other")))
        plain = dict.fromkeys(("parent_id", "thread_id", "quoted_id"))
        for number in (12, 13):
            tx.execute(insert(schema.posts).values(row_of(schema.posts, made, id=number, deleted_at=START, **plain)))
        for number, host in ((3, "here.example"), (4, "there.example")):
            inbox = {"id": number, "address": f"https://{host}/inbox", "host": host}
            tx.execute(insert(schema.inboxes).values(inbox))
        totals = schema.delivery_totals
        tx.execute(insert(totals).values(row_of(totals, made)))
        for table in concerned():
            if table.name in ("account_keys", "key_rotations", "farewells"):
                continue
            if table.name != "accounts":
                # What making the account has written is not what is looked at here.
                if table.name in ("account_states", "consents"):
                    tx.execute(delete(table))
                tx.execute(insert(table).values(row_of(table, made)))
        again = row_of(schema.activities, made, id=22, uri="https://bridge.example/22")
        tx.execute(insert(schema.activities).values(again))

    here.store.transact_now(fill)
    return made


def archived(tx: Tx, here: Place) -> bytes:
    out = io.BytesIO()
    account = accounts.by_id(tx, SUBJECT)
    assert account is not None
    write_archive(tx, IDS, here.media, account, out, quiet)
    return out.getvalue()


def changed(here: Place, column: Column[Any], after: Any) -> bytes:
    """The archive as it would be with another value in one column."""
    table = column.table
    with here.store.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin() as under_way:
                tx = Tx(connection, datetime.now().astimezone())
                which = (
                    table.c.account_id == SUBJECT
                    if "account_id" in table.c
                    else table.c[_key(table)] == value(table.c[_key(table)], ("", ""), changed=False)
                )
                if table.name in ("posts", "activities"):
                    which = table.c.id == value(table.c.id, ("", ""), changed=False)
                done = connection.execute(update(table).where(which).values({column.name: after}))
                assert done.rowcount == 1, column
                made = archived(tx, here)
                under_way.rollback()
                return made
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _key(table: Table) -> str:
    return "id" if table.name == "accounts" else "post_id"


def test_every_column_is_in_the_archive_or_left_out_with_a_reason(here: Place, hashes: tuple[str, str]) -> None:
    with here.store.snapshot() as tx:
        before = archived(tx, here)
    wrong = []
    for table in concerned():
        if table.name in LEFT_OUT:
            continue
        for column in table.columns:
            name = f"{table.name}.{column.name}"
            if column.name == "id":
                continue
            differs = changed(here, column, value(column, hashes, changed=True)) != before
            if differs == (name in LEFT_OUT):
                wrong.append(f"{name} {'is in the archive after all' if differs else 'is not in the archive'}")
    assert not wrong, wrong


def test_nothing_is_left_out_that_is_not_there() -> None:
    there = {t.name for t in concerned()} | {f"{t.name}.{c.name}" for t in concerned() for c in t.columns}
    assert set(LEFT_OUT) <= there


def test_what_is_told_of_it_is_counted_and_checked(here: Place, hashes: tuple[str, str], tmp_path: Path) -> None:
    with here.store.snapshot() as tx:
        whole = archived(tx, here)
    (tmp_path / "a.zip").write_bytes(whole)
    report = verify(tmp_path / "a.zip")
    assert report.ok, report.problems
    with opened(whole) as zip_:
        names = set(zip_.namelist())
    assert {"header.jpg", "profile.json", "received/quotes.json"} <= names
    # One row in every table, so one in every list; the profile's pictures count as none of the posts' files.
    ones = {"omissions": 0, "received_boosts": 0, "source_following": 0, "blocked_accounts": 0}
    recounted = {name: ones.get(name, 1) for name in report.counts}
    assert report.counts == recounted
    said = document(whole, "manifest.json")["counts"]
    assert {name: said[name] for name in report.counts} == report.counts
    assert set(said) - set(report.counts) == {"own_posts", "own_replies", "own_reposts"}


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("posts.json", "posts"), ("followers.json", "follows"), ("follow_requests.json", "follow_requests"),
        ("blocks.json", "blocks"), ("decisions.json", "decisions"), ("reports.json", "reports"),
        ("received/mentions.json", "received_mentions"), ("received/quotes.json", "received_quotes"),
        ("received/votes.json", "received_votes"), ("received/approvals.json", "approvals"),
        ("csv/blocked_domains.csv", "blocked_domains"), ("source/followers.csv", "source_followers"),
        ("profile.json", "aliases"),
    ],
)  # fmt: skip
def test_a_row_that_was_taken_out_is_missed(
    here: Place, hashes: tuple[str, str], tmp_path: Path, name: str, figure: str
) -> None:
    with here.store.snapshot() as tx:
        whole = archived(tx, here)

    def shorten(members: dict[str, bytes]) -> None:
        if name.endswith(".csv"):
            members[name] = b"".join(members[name].splitlines(keepends=True)[:-1])
        else:
            said = json.loads(members[name])
            which = figure if name == "profile.json" else name.rpartition("/")[2].removesuffix(".json")
            key = which if which in said else "orderedItems"
            said[key], said["totalItems"] = [], 0
            members[name] = json.dumps(said).encode()
        relisted(members)

    (tmp_path / "a.zip").write_bytes(repacked(whole, shorten))
    report = verify(tmp_path / "a.zip")
    assert any(figure in problem.what or name in problem.where for problem in report.problems), report.problems
