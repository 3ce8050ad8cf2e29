"""Every command that the documentation shows in a ``console`` block runs, in order, page by page.

Lines that begin with ``$ `` are run in an empty directory that holds ``smollm2.gguf``, with a store that
already has ``smollm2:135m``. A block fenced as ``sh`` is for the reader only (hardware or a network).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    joined = "\n".join(BLOCK.findall(page.read_text())).replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


@pytest.fixture
def workplace(tmp_path, smollm2):
    """A directory with a model, and an environment whose store knows it by name."""
    shutil.copy(smollm2, tmp_path / "smollm2.gguf")
    environment = os.environ | {
        "TERAZI_HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "120",
    }
    subprocess.run(
        ["terazi", "pull", "smollm2.gguf", "--name", "smollm2:135m"],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    return tmp_path, environment


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_of_a_page(page, workplace):
    directory, environment = workplace
    for command in commands(page):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page}: {target}"
