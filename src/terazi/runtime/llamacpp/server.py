"""llama.cpp's own HTTP server in a child process: ``python -m terazi.runtime.llamacpp.server``.

Reads one JSON line from stdin (the fields of `ServerOptions`), answers with one JSON line on stdout
(``address`` or ``error``), and serves until stdin closes, so that it never outlives its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["ServerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What llama.cpp's server is started with.

    ``context`` is tokens per slot; ``parallel`` slots answer at the same time. ``template`` is a Jinja chat
    template that replaces the file's own. ``key`` is the password that every request must bring.
    """

    model: str
    alias: str
    key: str
    context: int
    parallel: int
    threads: int
    embedding: bool = False
    pooled: bool = False
    template: str = ""
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


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed goes to the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = None
    try:
        values = json.loads(sys.stdin.readline())
        values["adapters"] = tuple(values["adapters"])
        server = _start(ServerOptions(**values))
        answer = {"address": server.listening_address}
    except (RuntimeError, ValueError, MemoryError) as error:
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer), file=answers, flush=True)
    sys.stdin.read()
    os._exit(0 if server else 1)


if __name__ == "__main__":
    _main()
