"""What a page means against what is held: pure decisions, in a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadbridge.bridge.compare import FRESH, LAST_REPLIES, OUTAGE, News, in_order, kept_out, plan
from threadbridge.domain.posts import fingerprint
from threadbridge.domain.source import PostKind, SourceMedia, SourcePage, SourcePoll, SourcePost, SourceReference
from threadbridge.storage.posts import Origin

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


def post(name: str, minute: int = 0, **more: Any) -> SourcePost:
    return SourcePost(name, NOW + timedelta(minutes=minute), more.pop("text", f"text {name}"), **more)


def page(posts: Iterable[SourcePost], kind: PostKind = "post", **more: Any) -> SourcePage:
    return SourcePage(tuple(posts), frozenset({kind}), NOW, NOW, **more)


def held(*posts: SourcePost) -> dict[str, Origin]:
    return {one.native_id: Origin(one.native_id, number, fingerprint(one)) for number, one in enumerate(posts)}


def names(posts: Iterable[SourcePost]) -> list[str]:
    return [one.native_id for one in posts]


def test_new_edited_unchanged_and_missing() -> None:
    known, edited, poll = post("known"), post("edited"), post("poll", poll=SourcePoll(("a", "b"), (1, 2)))
    gone = post("gone")
    before = held(known, replace(edited, text="as it was"), replace(poll, poll=SourcePoll(("a", "b"), (0, 0))), gone)
    found = plan(page([post("new", 2), known, edited, poll, post("newer", 1)]), before, list(before.values()))
    assert names(found.new) == ["newer", "new"]
    assert names(found.edited) == ["edited"]
    assert names(found.refreshed) == ["poll"]
    assert found.missing == ("gone",)


def test_the_same_page_again_means_nothing() -> None:
    posts = [post("a"), post("b")]
    found = plan(page(posts), held(*posts), list(held(*posts).values()))
    assert not found
    assert found.missing == ()


def test_rows_that_could_not_be_read_are_not_missing() -> None:
    one = post("strange")
    found = plan(page([], skipped=(("strange", "unknown"),)), {}, list(held(one).values()))
    assert found.missing == ()
    assert found.kept_out == (("strange", "unknown"),)


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (post("g", expires_at=NOW), "ghost"),
        (post("c", country_gated=True), "countries"),
        (post("e", text=""), "empty"),
        (post("m", text="", media=(SourceMedia("image", "k"),)), None),
        (post("q", text="", quoted=SourceReference("1")), None),
        (post("r", text="", kind="repost", reposted=SourceReference("1")), None),
    ],
)
def test_what_is_kept_out(kept: SourcePost, reason: str | None) -> None:
    assert (kept_out(kept) is None) == (reason is None)
    assert reason is None or reason in str(kept_out(kept))
    found = plan(page([kept]), {}, [])
    assert names(found.new) == ([] if reason else [kept.native_id])
    assert [name for name, _ in found.kept_out] == ([kept.native_id] if reason else [])


def test_a_held_post_that_is_kept_out_now_is_neither_missing_nor_edited() -> None:
    ghost = post("g", expires_at=NOW)
    found = plan(page([ghost]), held(post("g")), list(held(post("g")).values()))
    assert not found
    assert found.missing == ()


@pytest.mark.parametrize(
    "change",
    [
        {"text": "other"},
        {"media": (SourceMedia("image", "k", alt="better"),)},
        {"media": (SourceMedia("image", "other", alt="alt"),)},
        {"topic": "Trams"},
        {"spoilers": ((0, 2),)},
        {"spoiler_media": True},
        {"link": "https://example.org/"},
        {"poll": SourcePoll(("a", "b"))},
        {"quoted": SourceReference("9", "https://example.org/9")},
        {"location": "Lisboa"},
        {"long_text": "more"},
    ],
)
def test_what_readers_see_makes_an_edit(change: dict[str, Any]) -> None:
    before = post("a", media=(SourceMedia("image", "k", "https://cdn/1", alt="alt"),))
    assert names(plan(page([replace(before, **change)]), held(before), []).edited) == ["a"]


def test_addresses_and_counts_that_move_by_themselves_make_none() -> None:
    before = post("a", media=(SourceMedia("image", "k", "https://cdn/1"),), poll=SourcePoll(("a", "b"), (0, 1)))
    after = replace(
        before,
        media=(SourceMedia("image", "k", "https://cdn/2?oh=3"),),
        poll=SourcePoll(("a", "b"), (5, 5)),
        permalink="https://www.threads.com/@renamed/post/x",
        audience="followers_only",
    )
    assert plan(page([after]), held(before), []).edited == ()


def test_an_empty_list_of_replies_is_believed_for_a_few() -> None:
    replies = [post(str(n), kind="reply") for n in range(LAST_REPLIES + 1)]
    window = list(held(*replies).values())
    assert plan(page([], "reply"), {}, window).missing == ()
    assert len(plan(page([], "reply"), {}, window[1:]).missing) == LAST_REPLIES
    assert len(plan(page([replies[0]], "reply"), held(replies[0]), window).missing) == LAST_REPLIES
    assert len(plan(page([], "post"), {}, window).missing) == LAST_REPLIES + 1


def test_a_thread_of_one_second_is_put_in_order() -> None:
    chain = [post("0"), *(post(str(n), kind="reply", parent=SourceReference(str(n - 1))) for n in range(1, 6))]
    for listed in (chain, chain[::-1], [chain[3], chain[0], chain[5], chain[1], chain[4], chain[2]]):
        assert names(in_order(listed)) == ["0", "1", "2", "3", "4", "5"]


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 11)), max_size=12))
def test_order_loses_nothing_and_ends_on_circles(drawn: list[tuple[int, int | None]]) -> None:
    posts = [
        post(str(number), minute, parent=SourceReference(str(parent)) if parent is not None else None)
        for number, (minute, parent) in enumerate(drawn)
    ]
    assert sorted(names(in_order(posts))) == sorted(names(posts))


def test_news_is_what_was_published_since_and_not_listed_before() -> None:
    since = NOW.replace(microsecond=700_000)
    news = News(since, frozenset({"listed"}))
    assert news.covers(post("same second"), NOW)
    assert not news.covers(post("listed"), NOW)
    assert not news.covers(post("older", -1), NOW)
    assert news.covers(post("later", 5), NOW + timedelta(minutes=6))
    assert not news.covers(post("late", 5), NOW + timedelta(minutes=5) + FRESH)


def test_an_outage_of_ours_takes_nothing_from_the_followers() -> None:
    """Whatever was posted since the last look that succeeded is news, and a day before it; never what is old."""
    looked_at = NOW + timedelta(days=10)
    back = looked_at + timedelta(days=3)
    news = News(NOW, looked_at=looked_at)
    in_minutes = {
        "in the outage": timedelta(days=11),
        "just before": timedelta(days=9, hours=1),
        "long before": timedelta(days=8),
    }
    told = {
        name: news.covers(post(name, int(after / timedelta(minutes=1))), back) for name, after in in_minutes.items()
    }
    assert told == {"in the outage": True, "just before": True, "long before": False}
    # Without a look before this one, a day counts, as if we had looked just now.
    assert not News(NOW).covers(post("x", 11 * 24 * 60), back)
    # Away for months: only the last week is told, or followers would get it all at once.
    away = looked_at + timedelta(days=90)
    young, old = (away - OUTAGE + timedelta(hours=hours) - NOW for hours in (1, -1))
    assert news.covers(post("young", int(young / timedelta(minutes=1))), away)
    assert not news.covers(post("old", int(old / timedelta(minutes=1))), away)
    # What was there before the connection stays history, whenever it is found.
    assert not News(back, looked_at=looked_at).covers(post("x", 11 * 24 * 60), back + timedelta(minutes=1))


def test_who_may_answer_changes_without_an_edit() -> None:
    before, after = post("1"), replace(post("1"), audience="followers_only")
    known = held(before)
    assert plan(page([before]), known, [], {known["1"].post_id: None}).refreshed == ()
    assert plan(page([after]), known, [], {known["1"].post_id: None}).refreshed == (after,)
    assert plan(page([after]), known, [], {known["1"].post_id: "followers_only"}).refreshed == ()
    assert plan(page([before]), known, [], {known["1"].post_id: "followers_only"}).refreshed == (before,)
