"""llama.cpp's own HTTP server in a child process: ``python -m terazi.runtime.llamacpp.server``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from terazi.runtime import server

__all__ = ["ServerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions(server.ServerOptions):
    """What llama.cpp's server is started with besides.

    ``parallel`` is its slots. ``pooled`` says that the file itself names how token vectors are pooled.
    """

    pooled: bool = False
    adapters: tuple[str, ...] = ()
    projector: str = ""


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
    params.endpoint_slots = False
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
    return xllamacpp.Server(params)


if __name__ == "__main__":
    server.serve(ServerOptions, _start)
