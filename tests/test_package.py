"""The promises the package makes as a whole: exports, lazy imports, help."""

import re
import subprocess
import sys
import time

import click
import pytest

import terazi
from terazi import cli

NAMES = [name for section in cli.COMMANDS.values() for name in section]


def test_exports_are_sorted_and_resolve():
    assert terazi.__all__ == sorted(terazi.__all__)
    assert dir(terazi) == terazi.__all__
    for name in terazi.__all__:
        assert getattr(terazi, name) is not None


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        terazi.nonsense  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(name):
    command = cli.terazi.get_command(click.Context(cli.terazi), name)
    assert isinstance(command, click.Command)
    text = (command.help or "") + (command.epilog or "")
    assert "Example" in text, f"terazi {name} --help shows no example"
    assert f"terazi {name}" in text


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom terazi.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"numpy", "torch", "transformers", "xllamacpp", "rich", "jinja2", "pydantic"}
    assert all(re.search(rf"^  {name} ", done.stdout, re.MULTILINE) for name in NAMES)


def test_help_is_fast():
    """Below 0.3 s of processor time, best of five: other work on the machine must not decide."""
    code = (
        "import time, contextlib\nstart = time.process_time()\nfrom terazi.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "import sys; print(time.process_time(), file=sys.stderr)"
    )
    times = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        times.append(float(done.stderr))
        time.sleep(0.05)
    assert min(times) < 0.3


def test_usage_error_exits_with_2():
    done = subprocess.run(
        [sys.executable, "-m", "terazi", "no-such-command"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
