"""Vision and audio classifiers as ONNX: the logits of transformers, at other batch sizes and lengths too."""

import numpy as np
import pytest

from terazi import api
from terazi.convert.onnx import convert
from terazi.errors import UnsupportedError
from terazi.formats import open_model
from terazi.runtime.onnxruntime import open_engine

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def vision():
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8, num_labels=5)
    return transformers.ViTForImageClassification(config), torch.randn(3, 3, 32, 32)


def speech():
    config = transformers.Wav2Vec2Config(
        **SMALL,
        conv_dim=(16, 16),
        conv_kernel=(10, 4),
        conv_stride=(5, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=16,
        num_labels=5,
    )
    return transformers.Wav2Vec2ForSequenceClassification(config), torch.randn(2, 4000)


def spectrogram():
    config = transformers.ASTConfig(**SMALL, max_length=64, num_mel_bins=16, num_labels=5)
    return transformers.ASTForAudioClassification(config), torch.randn(2, 64, 16)


@pytest.mark.parametrize("build", [vision, speech, spectrogram])
def test_logits_are_those_of_transformers(build, tmp_path):
    torch.manual_seed(0)
    network, inputs = build()
    network.eval().save_pretrained(tmp_path / "hf")
    convert(open_model(tmp_path / "hf"), tmp_path / "onnx")
    with torch.inference_mode():
        expected = network(inputs).logits.numpy()
    source = open_model(tmp_path / "onnx")
    (name,) = source.metadata["inputs"]
    feeds = {name: inputs.numpy()}
    with open_engine(tmp_path / "onnx", threads=1) as engine:
        (seen,) = engine.run(feeds)
    assert np.abs(seen - expected).max() < 1e-4
    # and quantized, observed on real inputs
    api.quantize(source, "int8-static", output=tmp_path / "int8", data=[feeds], threads=1)
    with open_engine(tmp_path / "int8", threads=1) as engine:
        (quantized,) = engine.run(feeds)
    assert np.abs(quantized - expected).max() < 0.3 * np.abs(expected).max()
    assert open_model(tmp_path / "int8").metadata["operators"]["DequantizeLinear"] > 4


def test_other_types_are_refused_for_classifiers(tmp_path):
    network, _ = vision()
    network.save_pretrained(tmp_path / "hf")
    with pytest.raises(UnsupportedError, match="exported in F32") as caught:
        convert(open_model(tmp_path / "hf"), tmp_path / "onnx", type="INT4")
    assert "quantize" in (caught.value.hint or "")
