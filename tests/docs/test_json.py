"""Every key that docs/reference/json.md names is printed, and every printed one is named."""

import contextlib
import io
import json
import re
from pathlib import Path

import click
import pytest

from terazi import cli

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
SMALL = ("--tokens", "64", "--threads", "1")

# Document -> the command that prints it, run in this order in one directory. `REFERENCE` is a checkpoint.
RUNS = {
    "types": ("types",),
    "devices": ("devices",),
    "use-cases": ("use-cases",),
    "doctor": ("doctor",),
    "catalog": ("catalog",),
    "convert --dry-run": ("convert", "REFERENCE", "model.gguf", "--dry-run"),
    "convert": ("convert", "REFERENCE", "model.gguf"),
    "inspect": ("inspect", "model.gguf", "--tensors"),
    "pull": ("pull", "model.gguf", "--name", "model:1"),
    "list": ("list",),
    "show": ("show", "model:1"),
    "create": ("create", "made"),
    "tag": ("tag", "model:1", "model:2"),
    "remove": ("remove", "model:2"),
    "verify": ("verify", "--store"),
    "quantize --dry-run": ("quantize", "model.gguf", "--dry-run"),
    "quantize --list-types": ("quantize", "--list-types"),
    "quantize": ("quantize", "model.gguf", "small.gguf", "--type", "Q8_0"),
    "quantize --collection": ("quantize", "model.gguf", "series", "--collection", "--type", "Q8_0"),
    "calibrate": (
        "calibrate",
        "model.gguf",
        "matrix.gguf",
        "--chunks",
        "1",
        "--threads",
        "1",
        "--statistics",
    ),
    "run": ("run", "model.gguf", "In the", "--max-tokens", "2", "--threads", "1", "--context", "64"),
    "evaluate": ("evaluate", "model.gguf", "--context", "32", *SMALL),
    "compare": ("compare", "model.gguf", "small.gguf", *SMALL),
    "optimize --dry-run": ("optimize", "model.gguf", "--types", "Q8_0", "--dry-run"),
    "optimize": ("optimize", "model.gguf", "--types", "Q8_0", "--output", "report", *SMALL),
}
NOT_RUN = {"push"}  # needs a registry: tests/registry/test_oci.py


def documented():
    """Where in which document -> its keys: ``("inspect", ".types[]") -> {"type", ...}``."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            where, keys = line.strip("|").split(" | ")
            named = set(re.findall(r"`([a-z0-9_]+)`", keys))
            for path in re.findall(r"`([^`]+)`", where):
                document = re.split(r"[.\[]", path)[0]
                found[document, path.removeprefix(document)] = named
    return found


def parts(value, path):
    """The objects at a path such as ``.variants[].types[]``."""
    found = [value]
    for step in re.findall(r"\.\w+|\[\]", path):
        found = [inner for one in found for inner in one] if step == "[]" else [o[step[1:]] for o in found]
    return found


@pytest.fixture(scope="module")
def printed(tmp_path_factory, reference_9m):
    """Every document, printed once."""
    directory = tmp_path_factory.mktemp("json")
    (directory / "Modelfile").write_text("FROM ./model.gguf\n")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("TERAZI_HOME", str(directory / "home"))
        for name, arguments in RUNS.items():
            words = [str(reference_9m) if word == "REFERENCE" else word for word in arguments]
            found[name] = json.loads(_stdout([*words, "--json"]))
    return found


def _stdout(words):
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert not ended.value.code, words
    return out.getvalue()


def test_every_command_with_json_is_documented():
    having = set()
    for name in cli.terazi.list_commands(context := click.Context(cli.terazi)):
        command = cli.terazi.get_command(context, name)
        assert command
        if any("--json" in option.opts for option in command.params):
            having.add(name)
    assert having == {document.split()[0] for document, _ in documented()}
    assert {document for document, _ in documented()} == set(RUNS) | NOT_RUN


@pytest.mark.parametrize(("document", "path"), [key for key in documented() if key[0] not in NOT_RUN])
def test_documented_keys_are_the_printed_ones(printed, document, path):
    value = printed[document]
    if isinstance(value, dict) and path == "[]":
        pytest.fail("is no list")
    if isinstance(value, list) and not path:
        path = "[]"
    objects = parts(value, path)
    assert objects
    for found in objects:
        assert set(found) == documented()[document, path] - {"--tensors", "--statistics"}
