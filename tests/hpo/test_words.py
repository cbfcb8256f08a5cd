"""Seconds as a person says them."""

import pytest

from hpo.words import duration, spread


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.04 seconds"),
        (1.26, "1.3 seconds"),
        (35.2, "35 seconds"),
        (130, "2 minutes"),
        (9000, "2 hours"),
        (2e5, "2 days"),
    ],
)
def test_a_duration_has_one_unit(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("least", "most", "words"),
    [(720, 2400, "12 to 40 minutes"), (50, 300, "50 seconds to 5 minutes"), (601, 610, "10 minutes")],
)
def test_a_range_says_no_more_than_it_must(least, most, words):
    assert spread(least, most) == words
