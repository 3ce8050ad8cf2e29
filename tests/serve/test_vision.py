"""Pictures: a projector with random weights, made here, beside a real language model."""

import base64
import struct
import zlib

import numpy as np
import ollama
import openai
import pytest

from terazi.errors import UnsupportedError
from terazi.formats import gguf, open_model
from terazi.model import Tensor
from terazi.registry import Store
from terazi.serve.create import create
from terazi.serve.modelfile import Modelfile, parse

MODEL = "smollm2:135m"
SIDE, PATCH = 56, 14
IMAGE_TOKENS = (SIDE // PATCH) ** 2


@pytest.fixture(scope="module")
def openai_client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def ollama_client(server):
    client = ollama.Client(server.url)
    yield client
    client._client.close()


@pytest.fixture(scope="module")
def seeing(home, tmp_path_factory):
    """The language model with a projector in LLaVA's form: it takes pictures in, and understands none."""
    projector = write_projector(tmp_path_factory.mktemp("projector") / "mmproj.gguf", hidden=576)
    entry = create(parse(f"FROM {MODEL}\nFROM {projector}"), "seeing", store=Store(home))
    assert [file.role for file in entry.manifest.files] == ["weights", "projector"]
    yield "seeing:latest"
    Store(home).remove("seeing")


def write_projector(path, *, hidden, width=64, layers=2):
    """A CLIP encoder (tensor names of llama.cpp's tools/mtmd/clip-impl.h) with random weights."""
    rng = np.random.default_rng(0)

    def weights(*shape):
        return rng.normal(0, 0.05, shape).astype(np.float32)

    def linear(name, rows, columns):
        return {f"{name}.weight": weights(rows, columns), f"{name}.bias": weights(rows)}

    def norm(name):
        return {f"{name}.weight": np.ones(width, np.float32), f"{name}.bias": weights(width)}

    tensors = {
        "v.class_embd": weights(width),
        "v.patch_embd.weight": weights(width, 3, PATCH, PATCH),
        "v.position_embd.weight": weights(IMAGE_TOKENS + 1, width),
        **norm("v.pre_ln"),
        **linear("mm.0", 2 * width, width),
        **linear("mm.2", hidden, 2 * width),
    }
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors |= linear(f"v.blk.{layer}.{name}", width, width)
        tensors |= norm(f"v.blk.{layer}.ln1") | norm(f"v.blk.{layer}.ln2")
        tensors |= linear(f"v.blk.{layer}.ffn_up", 2 * width, width)
        tensors |= linear(f"v.blk.{layer}.ffn_down", width, 2 * width)
    metadata = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": SIDE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": width,
        "clip.vision.feed_forward_length": 2 * width,
        "clip.vision.projection_dim": hidden,
        "clip.vision.block_count": layers,
        "clip.vision.attention.head_count": 4,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": np.full(3, 0.5, np.float32),
        "clip.vision.image_std": np.full(3, 0.25, np.float32),
    }
    return gguf.write(path, metadata, [Tensor.from_array(name, array) for name, array in tensors.items()])


def png(seed):
    """64x64 pixels of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_a_damaged_projector_harms_nobody_else(openai_client, server, home, tmp_path):
    """llama.cpp trusts a projector's tensors: without its second layer this one ends the engine."""
    whole = open_model(write_projector(tmp_path / "whole.gguf", hidden=576))
    kept = [tensor for name, tensor in whole.tensors.items() if not name.startswith("mm.2")]
    damaged = gguf.write(tmp_path / "damaged.gguf", whole.metadata, kept)
    create(parse(f"FROM {MODEL}\nFROM {damaged}"), "damaged", store=Store(home))
    ask = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    with pytest.raises(openai.APIStatusError, match="damaged:latest does not load") as refused:
        openai_client.chat.completions.create(model="damaged", **ask)
    assert refused.value.status_code == 503
    assert openai_client.chat.completions.create(model=MODEL, **ask).choices
    Store(home).remove("damaged")


def test_an_uploaded_projector_is_known_by_its_content(smollm2, tmp_path):
    store = Store(tmp_path / "store")
    projector = write_projector(tmp_path / "p.gguf", hidden=576)
    files = {"model.gguf": store.put(smollm2), "eyes.gguf": store.put(projector)}
    entry = create(Modelfile(files=files), "seeing", store=store, local_files=False)
    assert [(file.name, file.role) for file in entry.manifest.files] == [
        ("model.gguf", "weights"),
        ("eyes.gguf", "projector"),
    ]
    with pytest.raises(UnsupportedError, match="no weights"):
        create(Modelfile(files={"eyes.gguf": files["eyes.gguf"]}), "blind", store=store, local_files=False)


def address_of(picture):
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def test_openai_pictures(openai_client, seeing):
    def ask(*pictures):
        parts = [{"type": "text", "text": "What is it?"}]
        parts += [{"type": "image_url", "image_url": {"url": address_of(picture)}} for picture in pictures]
        answer = openai_client.chat.completions.create(
            model=seeing, messages=[{"role": "user", "content": parts}], max_tokens=8, temperature=0
        )
        return answer.choices[0].message.content, answer.usage.prompt_tokens

    (blind, none), (first, one), (second, two) = ask(), ask(png(0)), ask(png(1), png(2))
    assert one - none >= IMAGE_TOKENS
    assert two - none == 2 * (one - none)
    assert len({blind, first, second}) == 3  # what it says depends on what it is shown
    with pytest.raises(openai.BadRequestError, match="image"):
        ask(b"\x89PNG no picture")


def test_ollama_pictures(ollama_client, seeing):
    assert "vision" in ollama_client.show(seeing).capabilities
    assert "vision" not in ollama_client.show(MODEL).capabilities
    options = {"num_predict": 4, "temperature": 0}
    blind = ollama_client.generate(seeing, "What is it?", options=options)
    shown = ollama_client.generate(seeing, "What is it?", images=[png(0)], options=options)
    assert shown.prompt_eval_count - blind.prompt_eval_count >= IMAGE_TOKENS
    message = {"role": "user", "content": "What is it?", "images": [png(0)]}
    assert ollama_client.chat(seeing, [message], options=options).prompt_eval_count == shown.prompt_eval_count


def test_a_model_without_projector_refuses(openai_client, ollama_client):
    part = {"type": "image_url", "image_url": {"url": address_of(png(0))}}
    with pytest.raises(openai.BadRequestError, match="without a projector"):
        openai_client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [part]}])
    with pytest.raises(ollama.ResponseError, match="without a projector") as refused:
        ollama_client.generate(MODEL, "What is it?", images=[png(0)])
    assert refused.value.status_code == 400


@pytest.mark.parametrize("address", ["http://127.0.0.1:22/x.png", "file:///etc/passwd"])
def test_nothing_is_fetched_for_responses_either(openai_client, seeing, address):
    parts = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": address}]
    with pytest.raises(openai.BadRequestError, match="must be sent in the request"):
        openai_client.responses.create(model=seeing, input=[{"role": "user", "content": parts}])
