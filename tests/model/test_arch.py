"""The list of architectures, and settings that say null."""

import subprocess
import sys

import numpy as np

from terazi.model.arch import architecture_table, architectures
from terazi.model.arch.table import real


def test_the_page_shows_the_table(request):
    page = request.config.rootpath / "docs" / "formats" / "architectures.md"
    assert architecture_table() in page.read_text("utf-8")


def test_the_command_prints_the_table():
    done = subprocess.run(
        [sys.executable, "-m", "terazi.model.arch"], capture_output=True, text=True, check=True
    )
    assert done.stdout == architecture_table() + "\n"


def test_no_class_has_two_tables_at_once():
    tables = list(architectures())
    for settings in ({}, {"num_local_experts": 4}, {"use_bidirectional_attention": True}):
        names = [name for table in tables if table.when(settings) for name in table.classes]
        assert len(names) == len(set(names))


def test_null_and_nothing_are_two_things():
    cap = real("cap", default=50.0, null=2.0**20)
    assert (cap({}), cap({"cap": None}), cap({"cap": 30})) == (50, 2**20, 30)
    assert isinstance(cap({"cap": None}), np.float32)
    assert real("cap")({"cap": None}) is None
