"""The page about scale says what its script computes, and the script computes what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.benchmarks import scale


def test_the_page_has_the_tables_of_the_script() -> None:
    page = scale.PAGE.read_text()
    assert page == scale.written(page), "run: python -m tests.benchmarks.scale --write"


def test_all_accounts_are_counted_once() -> None:
    assert sum(part for _, part in scale.quantiles(scale.ASSUMED)) == pytest.approx(1)
    assert sum(size * count for size, count in scale.shares(scale.ASSUMED)) == pytest.approx(1)
    assert sum(count for _, count in scale.shares(scale.ASSUMED)) == scale.ASSUMED.servers


def test_the_mean_of_followers_is_that_of_a_lognormal() -> None:
    assumed = replace(scale.ASSUMED, fediverse=1e12, spread=1.0)
    mean = sum(followers * part for followers, part in scale.quantiles(assumed))
    assert mean == pytest.approx(assumed.median_followers * 2.718281828**0.5, rel=0.03)


def test_reach_is_never_more_than_followers_nor_servers() -> None:
    sizes = scale.shares(scale.ASSUMED)
    assert scale.reach(1, sizes) == pytest.approx(1, rel=1e-3)
    assert scale.reach(50, sizes) < 50
    assert scale.reach(1e9, sizes) == pytest.approx(scale.ASSUMED.servers, rel=1e-3)


def test_ten_times_the_people_are_ten_times_the_load() -> None:
    one, ten = scale.day(0.01), scale.day(0.10)
    assert ten.deliveries == pytest.approx(10 * one.deliveries)
    assert ten.writes == pytest.approx(10 * one.writes)
    assert ten.machines * scale.ASSUMED.cores >= ten.cores > one.cores


def test_a_page_that_says_something_else_is_noticed() -> None:
    page = scale.PAGE.read_text()
    forged = page.replace("| accounts that share | 1,500,000 |", "| accounts that share | 2,500,000 |")
    assert forged != page
    assert scale.written(forged) == page
