"""The map of the documentation and of the folders is complete."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_page_is_in_the_index():
    linked = {DOCS / target for target in re.findall(r"\]\(([^)#:]+)", (DOCS / "index.md").read_text())}
    assert set(DOCS.rglob("*.md")) - {DOCS / "index.md"} <= linked


def test_the_readme_leads_to_the_index():
    assert "(docs/index.md)" in (ROOT / "README.md").read_text()


def test_the_architecture_lists_the_folders_that_exist():
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    listed = {name.removesuffix(".py") for row in rows for name in re.findall(r"`(\w+(?:\.py)?)`", row)}
    package = ROOT / "src" / "terazi"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    modules = {path.stem for path in package.glob("*.py") if not path.stem.startswith("_")}
    assert listed == folders | modules
