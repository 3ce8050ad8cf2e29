"""Chat templates of Modelfiles: the Go templates that Ollama uses, rewritten in Jinja for llama.cpp.

Language: https://pkg.go.dev/text/template; fields: https://github.com/ollama/ollama/blob/main/docs/template.md.
Two kinds exist: older ones describe one turn (``.System``, ``.Prompt``, ``.Response``), newer ones walk over
``.Messages``. What cannot be rewritten is refused, never guessed. Text is emitted as string expressions, so
that Jinja's own rules for white space do not apply.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from terazi.errors import UnsupportedError

__all__ = ["is_go", "to_jinja"]

_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_GO = re.compile(
    r"\{\{(?:[^}]*[\s(-])?\$?\.[A-Z]\w*|\{\{-?\s*(?:if|else|end|range|with|template|define|block)\b"
)
_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\(|\)|[^\s()]+)')
_LAST = re.compile(r"\$last\s*:=\s*eq\s+\(len\s+\(slice\s+\$?\.Messages\s+\$\w+\)\)\s+1")
_RANGE = re.compile(r"range\s+(?:\$(\w+)\s*,\s*\$(\w+)\s*:=\s*)?(\$?(?:\.\w+)+)")
_COMPARISONS = {"eq": "==", "ne": "!=", "gt": ">", "lt": "<", "ge": ">=", "le": "<="}
_FIELDS = {
    "Messages": "messages", "Tools": "tools", "System": "ns.system", "Prompt": "ns.prompt",
    "Response": "ns.response", "Role": "role", "Content": "content", "ToolCalls": "tool_calls",
    "Function": "function", "Name": "name", "Arguments": "arguments", "Description": "description",
    "Parameters": "parameters", "Thinking": "reasoning_content",
}  # fmt: skip
_ROOT = ("Messages", "Tools", "System", "Prompt", "Response")
_AS_JSON = ("Tools", "Function", "Arguments", "Parameters", "ToolCalls")
_MARK = "\0response\0"


def is_go(template: str) -> bool:
    """Whether a template is written in Go's language."""
    return "{%" not in template and _GO.search(template) is not None


def to_jinja(template: str) -> str:
    """Return a template as Jinja; Jinja passes unchanged. Raises `UnsupportedError` for what has no equal."""
    if not is_go(template):
        return template
    body = _Rewriter().rewrite(template)
    if ".Messages" in template:
        return _SYSTEM + body.replace(_MARK, "")
    before, found, _ = body.partition(_MARK)
    if not found:
        body, before = body + _MARK, body
    if before.count("{% if ") != before.count("{% endif %}"):
        raise _refused("{{ .Response }} inside a condition")
    whole = body.replace(_MARK, "{{ ns.response }}")
    return _TURNS.replace("TURN", whole).replace("START", before)


# The system prompt, wherever it is in the conversation.
_SYSTEM = (
    "{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.system = message.content %}{% endif %}{% endfor %}"
)
# One turn after another: the template as a whole for each, and its start for the answer to come.
_TURNS = (
    "{% set ns = namespace(system='', prompt='', response='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% set ns.system = message.content %}"
    "{% elif message.role == 'assistant' %}{% set ns.response = message.content %}TURN"
    "{% set ns.system = '' %}{% set ns.prompt = '' %}{% set ns.response = '' %}"
    "{% else %}{% if ns.prompt %}{% set ns.prompt = ns.prompt + '\\n\\n' + message.content %}"
    "{% else %}{% set ns.prompt = message.content %}{% endif %}{% endif %}{% endfor %}START"
)


def _refused(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"the TEMPLATE uses {what!r}"[:200] + ", which has no equal in Jinja",
        hint="leave TEMPLATE out to use the model's own, or write it in Jinja",
    )


@dataclass(slots=True)
class _Block:
    end: str
    dot: str
    is_else: bool = False


class _Rewriter:
    """Walks through a template once."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.variables: dict[str, str] = {}
        self.out: list[str] = []

    @property
    def dot(self) -> str:
        """What ``.`` means here: empty at the top, else the loop's variable."""
        return next((block.dot for block in reversed(self.blocks) if block.dot), "")

    def rewrite(self, template: str) -> str:
        position, strip_next = 0, False
        for action in _ACTION.finditer(template):
            self._text(template[position : action.start()], strip_next, action[1] is not None)
            strip_next = action[3] is not None
            self._action(action[2])
            position = action.end()
        self._text(template[position:], strip_next, False)
        if self.blocks:
            raise _refused("a block without {{ end }}")
        return "".join(self.out)

    def _text(self, text: str, strip_left: bool, strip_right: bool) -> None:
        text = text.lstrip() if strip_left else text
        text = text.rstrip() if strip_right else text
        if text:
            self.out.append(f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}")

    def _action(self, action: str) -> None:
        word, _, rest = action.partition(" ")
        if action.startswith("/*"):
            return
        if word == "if":
            self.blocks.append(_Block("{% endif %}", ""))
            self.out.append(f"{{% if {self._expression(rest)} %}}")
        elif word == "else":
            condition = rest.removeprefix("if").strip() if rest.startswith("if") else ""
            if not self.blocks or (condition and self.blocks[-1].is_else):
                raise _refused(action)
            self.blocks[-1].is_else = not condition
            self.out.append(f"{{% elif {self._expression(condition)} %}}" if condition else "{% else %}")
        elif word == "end":
            if not self.blocks:
                raise _refused("an {{ end }} too many")
            self.out.append(self.blocks.pop().end)
        elif word == "range":
            self._range(action)
        elif _LAST.fullmatch(action):
            self.variables["last"] = "loop.last"
        elif action.startswith("$") and ":=" in action:
            raise _refused(action)
        elif action == ".Response" and not self.dot:
            self.out.append(_MARK)
        else:
            self._print(action)

    def _range(self, action: str) -> None:
        match = _RANGE.fullmatch(action)
        if match is None:
            raise _refused(action)
        over = self._field(match[3])
        name = f"item{len(self.blocks)}"
        if match[1]:
            self.variables |= {match[1]: "loop.index0", match[2]: name}
        self.out.append(f"{{% for {name} in {over} %}}")
        self.blocks.append(_Block("{% endfor %}", name))

    def _print(self, action: str) -> None:
        as_json = action.startswith("json ")
        value = self._expression(action.removeprefix("json "))
        last = action.rpartition(".")[2]
        self.out.append(f"{{{{ {value}{' | tojson' if as_json or last in _AS_JSON else ''} }}}}")

    def _field(self, text: str) -> str:
        names = text.removeprefix("$").lstrip(".").split(".")
        if any(name not in _FIELDS for name in names):
            raise _refused(text)
        at_root = text.startswith("$") or (not self.dot or names[0] in _ROOT)
        if at_root != (names[0] in _ROOT):
            raise _refused(text)
        path = [_FIELDS[name] for name in names]
        return ".".join(path if at_root else [self.dot, *path])

    def _expression(self, text: str) -> str:
        words = _WORD.findall(text)
        value, left = self._call(words)
        if left or not text:
            raise _refused(text)
        return value

    def _call(self, words: list[str]) -> tuple[str, list[str]]:
        """Read one function with its arguments, or one value; returns what is left."""
        if not words:
            raise _refused("an empty expression")
        name = words[0]
        if name not in (*_COMPARISONS, "and", "or", "not", "len"):
            return self._value(words)
        words, values = words[1:], []
        while words and words[0] != ")":
            value, words = self._value(words)
            values.append(value)
        if name in _COMPARISONS and len(values) == 2:
            return f"({values[0]} {_COMPARISONS[name]} {values[1]})", words
        if name == "eq" and len(values) > 2:
            return f"({values[0]} in [{', '.join(values[1:])}])", words
        if name in ("and", "or") and len(values) >= 2:
            return f"({f' {name} '.join(values)})", words
        if name in ("not", "len") and len(values) == 1:
            return (f"(not {values[0]})" if name == "not" else f"({values[0]} | length)"), words
        raise _refused(name)

    def _value(self, words: list[str]) -> tuple[str, list[str]]:
        word, rest = words[0], words[1:]
        if word == "(":
            value, rest = self._call(rest)
            if not rest or rest[0] != ")":
                raise _refused("a parenthesis that does not close")
            return value, rest[1:]
        if word[0] in '"`':
            return json.dumps(word[1:-1] if word[0] == "`" else json.loads(word), ensure_ascii=False), rest
        if re.fullmatch(r"-?\d+(\.\d+)?|true|false", word):
            return word, rest
        if word.startswith("$") and (name := word[1:].split(".")[0]) in self.variables:
            fields = [_FIELDS.get(part, "") for part in word.split(".")[1:]]
            if not all(fields):
                raise _refused(word)
            return ".".join([self.variables[name], *fields]), rest
        if word == "." and self.dot:
            return self.dot, rest
        if re.fullmatch(r"\$?(\.\w+)+", word):
            return self._field(word), rest
        raise _refused(word)
