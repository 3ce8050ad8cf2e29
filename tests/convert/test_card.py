"""Model cards: the licence and its text stay with converted weights."""

import shutil

import pytest

from terazi import api
from terazi.convert.card import model_papers
from terazi.formats import open_model


@pytest.fixture
def licensed(minilm, tmp_path):
    """MiniLM with a licence that no table knows."""
    directory = shutil.copytree(minilm, tmp_path / "licensed", symlinks=True)
    (directory / "README.md").write_text("---\nlicense: other\nlicense_name: tiny-1.0\n---\n# A model\n")
    (directory / "LICENSE.md").write_text("Do as you like.")
    return directory


@pytest.mark.parametrize("target", ["mlx", "safetensors"])
def test_the_licence_stays(target, licensed, tmp_path):
    options = {"bits": 8} if target == "mlx" else {"type": "F16"}
    made = api.convert(licensed, target, output=tmp_path / "made", **options)
    assert made.license == open_model(tmp_path / "made").license == "tiny-1.0"
    assert (tmp_path / "made" / "LICENSE.md").read_text() == "Do as you like."
    assert api.inspect(tmp_path / "made").variant == "embedding"


def test_a_gguf_files_licence_goes_into_the_card(smollm2, tmp_path):
    papers = model_papers(open_model(smollm2), format="mlx", label="4 bits", output=tmp_path / "small-mlx")
    assert list(papers) == ["README.md"]
    card = papers["README.md"]
    assert card.startswith("---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n")
    assert 'load("small-mlx")' in card
    assert 'URL(filePath: "small-mlx")' in card
