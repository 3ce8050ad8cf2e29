"""Licences: what the table says, and that it never guesses."""

import pytest

from terazi.model.license import USES, _table, check_license


def test_every_entry_is_complete():
    for name, entry in _table().items():
        assert name == name.lower()
        assert {"title", "commercial", "redistribution", "note"} == set(entry)
        assert entry["commercial"] in ("yes", "conditions", "no")
        assert entry["redistribution"] in ("yes", "conditions", "no")


@pytest.mark.parametrize(
    ("license", "use", "verdict"),
    [
        ("apache-2.0", "commercial", "yes"),
        ("Apache-2.0", "redistribution", "yes"),
        ("gemma", "commercial", "conditions"),
        ("cc-by-nc-4.0", "commercial", "no"),
        ("cc-by-nc-4.0", "research", "yes"),
        ("gpl-3.0-only", "redistribution", "conditions"),
        ("other", "commercial", "unknown"),
        (None, "commercial", "unknown"),
        ("my-own-terms", "personal", "unknown"),
    ],
)
def test_verdicts(license, use, verdict):
    assert use in USES
    check = check_license(license, use)
    assert check.verdict == verdict
    assert check.reason
