"""Numbers as people read them: no exponents, no 1000 of a unit."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi.figures import count, size, three_digits


@pytest.mark.parametrize(
    ("nbytes", "tenths", "digits"),
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (999.6, "1.0 kB", "1 kB"),
        (98_362_432, "98.4 MB", "98.4 MB"),
        (999_600_000, "999.6 MB", "1 GB"),
        (999_960_000, "1.0 GB", "1 GB"),
        (1_234_000_000, "1.2 GB", "1.23 GB"),
        (2_500_000_000_000_000, "2,500 TB", "2,500 TB"),
    ],
)
def test_sizes(nbytes, tenths, digits):
    assert size(nbytes) == tenths
    assert size(nbytes, three_digits) == digits


def test_counts():
    assert [count(number) for number in (7, 999.7, 134_515_008, 999_700_000, 3e12)] == [
        "7", "1 k", "135 M", "1 B", "3 T",
    ]  # fmt: skip


@given(st.floats(0, 9e14))
def test_what_is_read_is_near_what_was_meant(nbytes):
    for text in (size(nbytes), size(nbytes, three_digits)):
        number, unit = re.fullmatch(r"(\d{1,3}(?:\.\d+)?) ([kMGT]?B)", text).groups()
        read = float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
        assert read == pytest.approx(nbytes, rel=0.06, abs=0.5)


def test_sizes_in_sentences():
    from terazi.search.limits import megabytes

    sizes = (98_362_432, 999_400_000, 999_600_000, 1_900_000_000)
    assert [megabytes(nbytes) for nbytes in sizes] == ["98 MB", "999 MB", "999.6 MB", "1.9 GB"]
    assert megabytes(999_999_999) == "1.0 GB"
