"""Tables in wide and narrow terminals."""

import click
import pytest

from terazi.cli.output import write_table

COLUMNS = ("name", "size", "for")
ROWS = [
    ("smollm2:135m-q4_k_m", "98.4 MB", "a sentence that says at some length what this one is good for"),
    ("b", "", "x"),
]


@pytest.fixture
def shown(monkeypatch, capsys):
    """What a terminal of so many columns shows."""

    def show(width):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("rich.console.Console.is_terminal", True)
        write_table(COLUMNS, ROWS, numeric=("size",))
        return click.unstyle(capsys.readouterr().out)

    return show


@pytest.mark.parametrize("width", [60, 80, 200])
def test_columns_where_words_fit(shown, width):
    lines = shown(width).splitlines()
    assert any(line.split() == ["name", "size", "for"] for line in lines)
    assert any("smollm2:135m-q4_k_m" in line and "98.4 MB" in line for line in lines)
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [30, 40, 50])
def test_blocks_where_they_do_not(shown, width):
    said = shown(width)
    assert "smollm2:135m-q4_k_m\n  size: 98.4 MB\n  for: a sentence" in said
    assert "\nb\n  for: x\n" in said


@pytest.mark.parametrize("command", ["devices", "types", "use-cases", "list", "catalog"])
def test_no_word_is_broken_in_forty_columns(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    done = run(command)
    assert done.code == 0
    assert not any(line.count("  ") > 3 for line in done.out.splitlines())


def test_piped_tables_are_wide(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert any("raspberry-pi-5" in line and "GB/s" in line for line in run("devices").out.splitlines())
