"""Chat messages to prompt text, by the Jinja template that a model carries.

Templates come with models, so they are untrusted: they run in Jinja's immutable sandbox, and engines render
them in a child process with a time limit. The names offered to templates are those Hugging Face transformers
offers, which is what models are written for.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from terazi.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["render"]

_LIMIT = 1 << 22  # characters of a prompt


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    bos: str = "",
    eos: str = "",
    values: Mapping[str, Any] | None = None,
) -> str:
    """Return the prompt that asks for the assistant's next message; raises `EngineError` with the reason.

    ``values`` are further variables, such as ``enable_thinking``.
    """
    from jinja2 import TemplateError
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """Refuses powers and long repetitions too, which could fill the memory in one expression."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, int | float) and isinstance(right, int | float)
            if operator == "**" or not (numbers or _length(left) * _length(right) <= _LIMIT):
                raise SecurityError(f"{operator} makes something too large")
            return super().call_binop(context, operator, left, right)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    pieces, length = [], 0
    try:
        known = {"add_generation_prompt": True, "bos_token": bos, "eos_token": eos}
        stream = environment.from_string(template).generate(
            {**(values or {}), **known, "messages": [dict(message) for message in messages]}
        )
        for piece in stream:
            pieces.append(piece)
            length += len(piece)
            if length > _LIMIT:
                raise EngineError("the model's chat template writes without end")
    except TemplateError as error:
        raise EngineError(f"the model's chat template failed: {error}") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise EngineError(f"the model's chat template failed: {type(error).__name__}: {error}") from None
    return "".join(pieces)


def _length(operand: Any) -> int:
    return len(operand) if hasattr(operand, "__len__") else abs(int(operand))
