"""A model's server in a process of its own: what it is started with, and how its parent starts and ends it.

The child reads one JSON line from stdin (the fields of its options), answers with one JSON line on stdout
(``address`` or ``error``), and serves until stdin closes, so that it never outlives its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from terazi.errors import TeraziError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ServerOptions", "serve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What every server is started with.

    ``model`` is a path, ``alias`` its name. ``key`` is the password that every request must bring.
    ``context`` is tokens per conversation; ``parallel`` conversations are answered at the same time.
    ``embedding`` asks for vectors instead of text. ``template`` is a Jinja chat template that replaces the
    model's own.
    """

    model: str
    alias: str
    key: str
    context: int
    parallel: int
    threads: int
    embedding: bool = False
    template: str = ""


def serve(options: type[ServerOptions], start: Callable[[Any], Any]) -> None:
    """Be the child: read the options, start, tell the address, and end with stdin.

    ``start`` returns an object with ``listening_address`` that serves in threads of its own. What it raises
    becomes the answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed goes to the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = None
    try:
        server = start(options(**json.loads(sys.stdin.readline())))
        answer = {"address": server.listening_address}
    except TeraziError as error:
        answer = {"error": f"{error} ({error.hint})" if error.hint else str(error)}
    except (ImportError, OSError, RuntimeError, ValueError, MemoryError) as error:
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer), file=answers, flush=True)
    sys.stdin.read()
    os._exit(0 if server else 1)
