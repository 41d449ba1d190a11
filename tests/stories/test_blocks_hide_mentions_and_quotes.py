"""What somebody suspended has said about us, or quoted of ours, is hidden, and comes back when the rule is lifted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from tests.rig import Bridge, Stranger
from tests.stories.neighbours import domain, lift, rule, strangers

from threadbridge.domain.accounts import Account
from threadbridge.federation import enforcement
from threadbridge.storage import mentions, quotes, schema
from threadbridge.storage.store import Tx


def name_and_quote(bridge: Bridge, speaker: Stranger, account: Account, post: str, words: str) -> dict[str, Any]:
    """Somebody names the account in one post and quotes its post in another."""
    me, inbox = bridge.ground.ids.actor(account.id), f"{bridge.base}/ap/inbox"
    tag = [{"type": "Mention", "href": me, "name": f"@{account.handle}"}]
    naming = speaker.note(None, f"<p>{words}</p>") | {"cc": [me], "tag": tag}
    quoting = speaker.note(None, f"<p>{words}</p>", quoteUri=post)
    for note in (naming, quoting):
        assert speaker.post(inbox, speaker.activity("Create", note)).status_code == 202
    return {"mention": naming, "quote": quoting}


def seen(bridge: Bridge, account: Account, post: str) -> tuple[int, int, int]:
    """What the owner sees of mentions and quotes, and the figure that everybody sees."""

    def read(tx: Tx) -> tuple[int, int, int]:
        number, p = int(post.rpartition("/")[2]), schema.posts
        figure = tx.execute(select(p.c.quotes_count).where(p.c.id == number)).scalar_one()
        held = quotes.page(tx, account.id, limit=9)
        assert len(quotes.of_post(tx, number)) == len(held)
        return len(mentions.page(tx, account.id, limit=9)), len(held), figure

    return bridge.ground.store.read_now(read)


def test_a_rule_hides_mentions_and_quotes_and_gives_them_back(bridge: Bridge) -> None:
    account = bridge.account()
    post = bridge.post(account)
    inbox = f"{bridge.base}/ap/inbox"
    with strangers(bridge, "bob", "mallory") as (bob, mallory):
        name_and_quote(bridge, bob, account, post, "Hello")
        said = name_and_quote(bridge, mallory, account, post, "Casino")
        assert seen(bridge, account, post) == (2, 2, 2)

        rule(bridge, "suspend", domain(mallory))
        assert seen(bridge, account, post) == (1, 1, 1)
        rule(bridge, "limit", domain(mallory))
        # Limited: kept from the public; the owner still reads who names them.
        assert seen(bridge, account, post) == (2, 1, 1)
        lift(bridge, domain(mallory))
        assert seen(bridge, account, post) == (2, 2, 2)

        # By words, and in steps of one: every text is looked at.
        chunk, enforcement.CHUNK = enforcement.CHUNK, 1
        try:
            rule(bridge, "suspend", "casino", "keyword", owner=account.id)
            assert seen(bridge, account, post) == (1, 1, 1)
            lift(bridge, "casino", "keyword", owner=account.id)
            assert seen(bridge, account, post) == (2, 2, 2)
        finally:
            enforcement.CHUNK = chunk

        # What its author deletes meanwhile does not come back.
        rule(bridge, "suspend", mallory.uri, "actor", owner=account.id)
        assert seen(bridge, account, post) == (1, 1, 1)
        for note in said.values():
            gone = {"id": note["id"], "type": "Tombstone"}
            assert mallory.post(inbox, mallory.activity("Delete", gone)).status_code == 202
        lift(bridge, mallory.uri, "actor", owner=account.id)
        assert seen(bridge, account, post) == (1, 1, 1)
