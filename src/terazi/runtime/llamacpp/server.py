"""llama.cpp's own HTTP server in a child process: ``python -m terazi.runtime.llamacpp.server``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from terazi.runtime import server
from terazi.runtime.llamacpp.devices import look

__all__ = ["NGRAM", "ServerOptions"]

NGRAM = "ngram"  # in place of a draft model: guess from what the conversation already says
# Four tokens that were there before let the eight that followed them be tried. llama.cpp's own 12 and 48 are
# for long documents; in benchmarks/speculative.py these were faster.
_NGRAM_SEEN, _NGRAM_TRIED = 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions(server.ServerOptions):
    """What llama.cpp's server is started with besides.

    ``parallel`` is its slots. ``pooled`` says that the file itself names how token vectors are pooled.
    ``draft`` is a smaller model whose guesses this one checks several at a time, or `NGRAM`. ``gpu_layers``
    -1 lets llama.cpp put as many layers on GPUs as their free memory holds.
    """

    pooled: bool = False
    adapters: tuple[str, ...] = ()
    projector: str = ""
    draft: str = ""
    gpu_layers: int = -1


def _start(options: ServerOptions) -> Any:
    """Return a running `xllamacpp.Server` on a free port of this machine."""
    xllamacpp: Any = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [options.key]
    params.n_ctx = options.context * options.parallel
    params.n_parallel = options.parallel
    params.cpuparams.n_threads = options.threads
    params.cpuparams.poll = 0  # spinning threads starve whatever else runs here
    params.cpuparams_batch.poll = 0
    params.ui = False
    params.endpoint_slots = True  # numbers only, for whoever has the key
    params.n_gpu_layers = options.gpu_layers
    # Fitting loads a model's outline first, a third of a small one's loading time.
    params.fit_params = any(device.kind == "gpu" for device in look())
    if options.template:
        params.chat_template = options.template
    if options.adapters:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in options.adapters]
    if options.projector:
        params.mmproj.path = options.projector
    if options.embedding:
        params.embedding = True
        params.n_ubatch = params.n_batch = max(params.n_ubatch, options.context)
        if not options.pooled:
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    if options.draft:
        _speculate(xllamacpp, params.speculative, options)
    return xllamacpp.Server(params)


def _speculate(xllamacpp: Any, speculative: Any, options: ServerOptions) -> None:
    kinds = xllamacpp.common_speculative_type
    if options.draft == NGRAM:
        speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        speculative.ngram_simple.size_n = _NGRAM_SEEN
        speculative.ngram_simple.size_m = _NGRAM_TRIED
        return
    speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
    draft = speculative.draft
    draft.mparams.path = options.draft
    draft.n_gpu_layers = options.gpu_layers
    for processors in (draft.cpuparams, draft.cpuparams_batch):
        processors.n_threads = options.threads
        processors.poll = 0


if __name__ == "__main__":
    server.serve(ServerOptions, _start)
