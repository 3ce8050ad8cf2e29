"""What a Hugging Face directory says about a model: configuration, tokenizer, template, licence, variant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from terazi.errors import FormatError
from terazi.formats.huggingface.safetensors import parse_json
from terazi.model import Config, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.model.model import Variant

__all__ = ["chat_template", "read_config", "read_license", "read_tokenizer", "variant"]

_MAX_LAYERS = 1 << 16
_MAX_TEXT = 16_000_000
_INSTRUCT = re.compile(r"(?i)(^|[-_. ])(instruct|chat|it|conversational|assistant)($|[-_. ])")
_EMBEDDING = {"sentence-similarity", "feature-extraction", "sentence-transformers"}

# Families name the same number differently; the first one present counts.
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_FEED_FORWARD = ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_EXPERTS_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")

# GGUF's word for a kind of tokenizer.json model.
_TOKENIZERS = {"BPE": "gpt2", "WordPiece": "bert", "Unigram": "t5", "WordLevel": "none"}

# Phrases by which a licence text is recognised.
_LICENSE_TEXTS = (
    ("apache-2.0", "Apache License"),
    ("mit", "MIT License"),
    ("llama4", "LLAMA 4 COMMUNITY LICENSE"),
    ("llama3.3", "LLAMA 3.3 COMMUNITY LICENSE"),
    ("llama3.2", "LLAMA 3.2 COMMUNITY LICENSE"),
    ("llama3.1", "LLAMA 3.1 COMMUNITY LICENSE"),
    ("llama3", "META LLAMA 3 COMMUNITY LICENSE"),
    ("llama2", "LLAMA 2 COMMUNITY LICENSE"),
    ("gemma", "Gemma Terms of Use"),
)


def read_config(directory: Path, metadata: Mapping[str, Any]) -> Config:
    """Translate config.json to GGUF's terms; a multimodal model's text part counts. Raises `FormatError`."""
    text = metadata.get("text_config")
    values = {**metadata, **text} if isinstance(text, dict) else dict(metadata)
    numbers = _Numbers(directory / "config.json", values)
    kind = values.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise FormatError(directory / "config.json", "has no model_type")
    layers = numbers(*_LAYERS)
    if layers > _MAX_LAYERS:
        raise FormatError(directory / "config.json", f"claims {layers} layers: no model has so many")
    width, heads = numbers(*_WIDTH), numbers(*_HEADS)
    head_size = numbers("head_dim", default=width // heads if heads else 0)
    width_of_feed_forward = numbers(*_FEED_FORWARD, default=4 * width)
    return Config(
        architecture=kind,
        context_length=numbers(*_CONTEXT),
        embedding_length=width,
        block_count=layers,
        head_count=heads,
        head_counts_kv=_heads_kv(values, layers, numbers("num_key_value_heads", default=heads)),
        key_length=head_size,
        value_length=head_size,
        feed_forward_length=width_of_feed_forward,
        vocabulary_size=numbers("vocab_size"),
        expert_count=numbers(*_EXPERTS),
        experts_used=numbers(*_EXPERTS_USED),
        sliding_window=numbers("sliding_window") if values.get("use_sliding_window", True) else 0,
        values={},
    )


class _Numbers:
    """Whole numbers from a JSON object, checked."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def __call__(self, *keys: str, default: int = 0) -> int:
        key = next((key for key in keys if self.values.get(key) is not None), None)
        if key is None:
            return default
        value = self.values[key]
        if isinstance(value, list) and value and all(type(entry) is int for entry in value):
            value = max(value)  # one per layer
        if type(value) is not int or not 0 <= value < 1 << 53:
            raise FormatError(self.path, f"{key} is not a positive whole number: {str(value)[:40]}")
        return value


def _heads_kv(values: Mapping[str, Any], layers: int, heads: int) -> tuple[int, ...]:
    """Return key/value heads per layer: none where ``layer_types`` has no softmax attention."""
    kinds = values.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != layers:
        return (heads,) * layers
    return tuple(
        heads if str(kind).endswith("attention") and kind != "linear_attention" else 0 for kind in kinds
    )


def chat_template(directory: Path) -> str | None:
    """Return the Jinja chat template, wherever the checkpoint keeps it."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return _text(file) or None
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _json(directory / name).get("chat_template")
        if isinstance(template, list):
            named = [entry for entry in template if isinstance(entry, dict)]
            named.sort(key=lambda entry: entry.get("name") != "default")
            template = named[0].get("template") if named else None
        if isinstance(template, str) and template:
            return template
    return None


def read_tokenizer(directory: Path, template: str | None) -> Tokenizer | None:
    """Describe the tokenizer from tokenizer.json (or say ``llama`` for a lone SentencePiece file)."""
    description = _json(directory / "tokenizer.json")
    model = description.get("model")
    if not isinstance(model, dict):
        if (directory / "tokenizer.model").is_file():
            return Tokenizer(kind="llama", vocabulary_size=0, chat_template=template)
        if (directory / "vocab.txt").is_file():
            words = _text(directory / "vocab.txt").count("\n")
            return Tokenizer(kind="bert", vocabulary_size=words, chat_template=template)
        return None
    kind = "llama" if model.get("byte_fallback") is True else _TOKENIZERS.get(str(model.get("type")), "gpt2")
    vocabulary = model.get("vocab")
    size = len(vocabulary) if isinstance(vocabulary, dict | list) else 0
    known = vocabulary if isinstance(vocabulary, dict) else {}
    added = _added_tokens(description)
    return Tokenizer(
        kind=kind,
        vocabulary_size=size + sum(token not in known for token in added),
        chat_template=template,
        special=_special(directory, {**known, **added}),
    )


def _added_tokens(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return token -> id of the tokens that come beside the vocabulary."""
    entries = description.get("added_tokens")
    return {
        entry["content"]: entry.get("id")
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("content"), str)
    }


def _special(directory: Path, ids: Mapping[str, Any]) -> dict[str, int]:
    """Return role (``bos``, ``eos``, ...) -> id of the tokens that tokenizer_config.json names."""
    special = {}
    for key, value in _json(directory / "tokenizer_config.json").items():
        token = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(token, str) and type(ids.get(token)) is int:
            special[key.removesuffix("_token")] = ids[token]
    return special


def read_license(directory: Path, metadata: Mapping[str, Any]) -> str | None:
    """Return the licence's identifier: from the model card, else a licence file, else config.json."""
    card = _front_matter(directory)
    name = _field(card, "license")
    if name == "other":
        name = _field(card, "license_name") or name
    if name:
        return name.lower()
    for pattern in ("LICENSE*", "LICENCE*", "license*"):
        for file in sorted(directory.glob(pattern)):
            beginning = _text(file)[:4000].lower() if file.is_file() else ""
            for identifier, phrase in _LICENSE_TEXTS:
                if phrase.lower() in beginning:
                    return identifier
    stated = metadata.get("license")
    return stated.lower() if isinstance(stated, str) else None


def variant(directory: Path, metadata: Mapping[str, Any], template: str | None) -> Variant:
    """Judge by sentence-transformers files, chat template, the card's tags and the name."""
    card = _front_matter(directory)
    architectures = metadata.get("architectures")
    heads = " ".join(map(str, architectures)) if isinstance(architectures, list) else ""
    causal = "CausalLM" in heads or "ConditionalGeneration" in heads or "LMHead" in heads
    if (directory / "modules.json").is_file() or (not causal and _tags(card) & _EMBEDDING):
        return "embedding"
    if template or _tags(card) & {"conversational"} or _INSTRUCT.search(directory.resolve().name):
        return "instruct"
    return "base" if causal else "unknown"


def _front_matter(directory: Path) -> str:
    """Return the YAML lines at the top of the model card."""
    found = re.match(r"---\r?\n(.*?)\r?\n---", _text(directory / "README.md")[:100_000], re.DOTALL)
    return found[1] if found else ""


def _field(front_matter: str, name: str) -> str | None:
    found = re.search(rf"^{name}:[ \t]*['\"]?([\w.+-]+)", front_matter, re.MULTILINE)
    return found[1] if found else None


def _tags(front_matter: str) -> set[str]:
    found = re.search(r"^tags:[ \t]*\r?\n((?:[ \t]*-.*\r?\n?)*)", front_matter, re.MULTILINE)
    tags = set(re.findall(r"-[ \t]*['\"]?([\w.-]+)", found[1])) if found else set()
    return tags | {_field(front_matter, "pipeline_tag") or ""}


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_MAX_TEXT).decode(errors="replace")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > 16 * _MAX_TEXT:
        raise FormatError(path, f"is larger than {16 * _MAX_TEXT} bytes, too much for JSON")
    return parse_json(path, path.read_bytes(), "the file")
