"""llama.cpp's pre-tokenizers, and which of them splits text as a given Hugging Face tokenizer does.

llama.cpp names the way byte-level BPE splits text into words (``tokenizer.ggml.pre``) and has the regular
expressions built in (``src/llama-vocab.cpp``). A tokenizer.json spells its own out. Here both split a probe
text that tells every known one from the others, and the name whose pieces agree is the answer: no list of
known models or hashes is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from terazi.errors import UnsupportedError

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

__all__ = ["ALIASES", "PROBE", "TABLE", "Splitter", "build", "find", "split", "splitter"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_MARKED = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
)
_EAST_ASIAN = r"[一-龥\u3040-ゟ゠-ヿ]+"
_SENTENCE_MARKS = r" ?[^(\s|.,!?…。，、।۔،)]+"


def _cased(end: str, digits: str) -> str:
    """Words that also end where small letters turn to capitals, with ``end`` attached."""
    word = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{word}{_UPPER}*{_LOWER}+{end}|{word}{_UPPER}+{_LOWER}*{end}|"
        rf"\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
    )


@dataclass(frozen=True, slots=True)
class Splitter:
    """One pre-tokenizer of llama.cpp: expressions applied one after the other to what is left unsplit.

    ``whole_words`` says that a word in the vocabulary is taken without looking at the merges.
    """

    name: str
    expressions: tuple[str, ...]
    whole_words: bool = False


TABLE = (
    Splitter("gpt-2", (_GPT2,)),
    Splitter("llama-bpe", (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}|{_SPACES}",), True),
    Splitter("smaug-bpe", (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}|{_SPACES}",)),
    Splitter("qwen2", (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_SYMBOLS}|{_SPACES}",)),
    Splitter(
        "qwen35",
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|"
            rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
        ),
    ),
    Splitter("smollm", (r"\p{N}", _GPT2)),
    Splitter("gpt-4o", (_cased(_CONTRACTIONS + "?", "{1,3}"),)),
    Splitter("tekken", (_cased("", ""),), True),
    Splitter("deepseek-v3", (r"\p{N}{1,3}", _EAST_ASIAN, rf"{_MARKED}[\r\n]*|{_SPACES}")),
    Splitter("deepseek-coder", (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    Splitter("falcon", (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    Splitter("poro-chat", (_SENTENCE_MARKS,)),
    Splitter("viking", (_SENTENCE_MARKS, r"\p{N}")),
    Splitter(
        "seed-coder",
        (rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",),
    ),
    Splitter("ufakzeka", (rf"{_WORD}|\p{{N}}|{_SYMBOLS}|{_SPACES}",)),
    Splitter("minicpm5", (r"\p{N}{1,3}", rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}+|{_SYMBOLS}|{_SPACES}"), True),
    Splitter(
        "exaone-moe",
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}|"
            r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
    ),
    Splitter(
        "tiny_aya",
        (r"\d{1,3}(?=(?:\d{3})*\b)", _cased(_CONTRACTIONS + "?", "{1,3}")),
    ),
)
"""The usual name of each distinct splitting; llama.cpp has more names for some of them."""

ALIASES = {
    "gpt-2": "phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe gigachat "
    "a.x-4.0 mellum modern-bert mpt olmo jais trillion granite-docling exaone4",
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano glm4",
    "smaug-bpe": "dbrx chatglm-bpe",
    "qwen2": "deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan megrez solar-open grok-2 bailingmoe "
    "bailingmoe2 llada-moe",
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b mellum2",
    "gpt-4o": "llama4 kanana2 talkie minimax-m2",
    "deepseek-v3": "hunyuan-dense joyai-llm hy_v4",
    "poro-chat": "bloom gpt3-finnish",
    "tiny_aya": "cohere2moe",
}
"""llama.cpp's other names for the same splitting."""

PROBE = (
    "It's what I'D've said: we'll, WE'LL, they'Re don'T o'clock 'tis ’s\n"
    "Plain words  two   three    spaces\ttab\t\ttabs \n one\n\n two\r\n\r\n three \n \n four   \n\n\n"
    "1 12 123 1234 12345 123456 1234567 3.14 1,234,567.89  12   7\n  8 2nd v10b x2y ٣٤٥٦ Ⅻ ½²\n"
    "camelCase PascalCase HTTPServer XMLHttpRequest snake_case kebab-case iPhone ǅungla ẞA\n"
    "if (x == 42) { y->z += a[0]; } // path/to/file.txt\nprint('hi',\"%s\") <tag/>!\n/etc\n#include <a.h>\n"
    "...!!!??? ---=== `code` ~tilde^ $5 a|b $ + (brackets) … — «» § © €5\n"
    "中文和日本語のカナ，。 한국어 abc中文def 12中34\n"
    "café cafe\u0301 na\u0308ive हिन्दी ไทย العربيّة עברית Русский Ελληνικά Türkiye'nin İstanbul'da\n"
    "🚀 😶\u200d🌫\ufe0f🦙🦙 ✅!\u00a0nbsp\u3000wide\u2009thin\n end. \n"
)
"""Text on which no two entries of `TABLE` split alike, but for ``whole_words``."""


def splitter(name: str) -> Splitter | None:
    """Return the splitting that llama.cpp calls ``name``, if it is in `TABLE`."""
    usual = next((key for key, others in ALIASES.items() if name in others.split()), name)
    return next((entry for entry in TABLE if entry.name == usual), None)


@cache
def _known() -> tuple[tuple[Splitter, list[str], set[int]], ...]:
    return tuple((entry, *split(build(entry))) for entry in TABLE)


def build(entry: Splitter) -> PreTokenizer:
    """Make a pre-tokenizer of the tokenizers library that splits as llama.cpp does."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    steps = [Split(Regex(expression), "isolated") for expression in entry.expressions]
    return Sequence([*steps, ByteLevel(add_prefix_space=False, use_regex=False)])


def split(pre_tokenizer: PreTokenizer) -> tuple[list[str], set[int]]:
    """Split `PROBE`; returns the pieces and where they end."""
    pieces = pre_tokenizer.pre_tokenize_str(PROBE)
    return [piece for piece, _ in pieces], {end for _, (_, end) in pieces}


def find(pre_tokenizer: PreTokenizer | None, *, whole_words: bool) -> str:
    """Return llama.cpp's name for the way ``pre_tokenizer`` splits text.

    Of splittings that exist with and without ``whole_words``, the one that agrees is taken. Raises
    `UnsupportedError` naming the closest one when no splitting agrees on all of `PROBE`.
    """
    pieces, ends = split(pre_tokenizer) if pre_tokenizer is not None else ([PROBE], {len(PROBE)})
    same = [entry for entry, known, _ in _known() if known == pieces]
    if same:
        return next((entry for entry in same if entry.whole_words == whole_words), same[0]).name
    near, _, known = max(_known(), key=lambda entry: _agreement(ends, entry[2]))
    raise UnsupportedError(
        f"llama.cpp has no pre-tokenizer that splits text as this tokenizer.json does; the closest, "
        f"{near.name}, agrees on {_agreement(ends, known):.1%} of the places where a probe text is split",
        hint=f"to accept the difference: --pre-tokenizer {near.name}",
    )


def _agreement(first: set[int], second: set[int]) -> float:
    return len(first & second) / max(len(first | second), 1)
