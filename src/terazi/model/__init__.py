"""What a model is, whatever file it came from: configuration, tokenizer, lazily read tensors, artifacts."""

from terazi.model.artifact import Artifact
from terazi.model.memory import MemoryNeed, kv_cache_bytes, memory_needed
from terazi.model.model import Config, Model, Tokenizer
from terazi.model.tensor import Tensor

__all__ = [
    "Artifact",
    "Config",
    "MemoryNeed",
    "Model",
    "Tensor",
    "Tokenizer",
    "kv_cache_bytes",
    "memory_needed",
]
