import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi.devices import parse_bytes
from terazi.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("400MB", 400_000_000),
        ("1.5 GiB", 3 << 29),
        ("2g", 2_000_000_000),
        ("12 kb", 12_000),
        ("512KiB", 1 << 19),
        ("7", 7),
        (1024, 1024),
    ],
)
def test_sizes_as_people_write_them(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text", ["", "MB", "-3MB", "1e9", "3 apples", "0", "0.0GB", "nan", "1iB", "9" * 400, "٣MB", "4 GB/s"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError):
        parse_bytes(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_clear_error(text):
    with contextlib.suppress(UsageError):
        assert parse_bytes(text) > 0
