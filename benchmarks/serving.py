"""What the gateway costs: the same file asked through `terazi serve` and directly, turn by turn in one run.

    python benchmarks/serving.py [MODEL.gguf] [--clients 1,4,16,64]

Both sides are the same engine process with the same options; only the gateway lies between. Throughput is
tokens per second over all clients; the time to the first token is of a cached prompt, so that it shows the
way there and back rather than the engine's work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from terazi.registry import Store
from terazi.serve.engine import Engine

NAME = "bench:1"
TOKENS, CONTEXT, PARALLEL = 24, 256, 4
ASK = {
    "messages": [{"role": "user", "content": "Count as far as you can."}],
    "temperature": 0,
    "ignore_eos": True,
}


async def answer(http: httpx2.AsyncClient, tokens: int) -> tuple[float, int]:
    """Ask once; seconds to the first piece of text, and tokens that came."""
    body = ASK | {"model": NAME, "max_tokens": tokens, "stream": True}
    started, first, count = time.perf_counter(), 0.0, 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, (response.status_code, await response.aread())
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                first = first or time.perf_counter() - started
                count = json.loads(line[6:]).get("timings", {}).get("predicted_n", count)
    return first, count


async def throughput(http: httpx2.AsyncClient, clients: int) -> float:
    started = time.perf_counter()
    done = await asyncio.gather(*(answer(http, TOKENS) for _ in range(clients)))
    return sum(count for _, count in done) / (time.perf_counter() - started)


def client(address: str, key: str = "") -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx2.Limits(max_keepalive_connections=0, max_connections=None)
    return httpx2.AsyncClient(base_url=address, headers=headers, timeout=None, limits=limits, trust_env=False)


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used (Linux), its children left out."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def gateway(home: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `terazi serve` for the block; its process and address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "terazi", "serve", "--port", "0", "--threads", "1", "--quiet", "--queue", "128",
        "--context", str(CONTEXT), "--parallel", str(PARALLEL),
        stderr=asyncio.subprocess.PIPE, env=os.environ | {"TERAZI_HOME": home},
    )  # fmt: skip
    assert process.stderr
    try:
        match = re.search(r"http://\S+", (await process.stderr.readline()).decode())
        assert match
        yield process, match[0]
    finally:
        process.terminate()
        await process.wait()


async def measure(model: Path, counts: list[int], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        Store(home).add(model, NAME, share="link")
        async with gateway(home) as (process, address):
            await compare(model, process, address, counts, rounds)


async def compare(
    model: Path, process: asyncio.subprocess.Process, address: str, counts: list[int], rounds: int
) -> None:
    options = {"model": str(model), "alias": NAME, "context": CONTEXT, "parallel": PARALLEL, "threads": 1}
    through = client(address)
    for _ in range(100):
        try:
            await through.get("/health")
            break
        except httpx2.TransportError:
            await asyncio.sleep(0.05)
    cold_through = (await answer(through, 1))[0]
    started = time.perf_counter()
    engine = await Engine.start("gguf", **options)
    direct = client("http://{}:{}".format(*engine.address), engine.options.key)
    cold_direct = (await answer(direct, 1))[0] + time.perf_counter() - started
    print(f"cold start to first token: engine {cold_direct:.2f} s, gateway {cold_through:.2f} s")
    firsts: dict[str, list[float]] = {"direct": [], "through": []}
    for _ in range(60):
        firsts["direct"].append((await answer(direct, 1))[0])
        firsts["through"].append((await answer(through, 1))[0])
    middle = {side: statistics.median(values) * 1000 for side, values in firsts.items()}
    added = statistics.median(
        (b - a) * 1000 for a, b in zip(firsts["direct"], firsts["through"], strict=True)
    )
    print(
        f"time to first token, median of 60: engine {middle['direct']:.1f} ms, "
        f"gateway {middle['through']:.1f} ms, median difference {added:.1f} ms"
    )
    costs = []
    for tokens in (1, 65):
        used = processor_time(process.pid)
        for _ in range(20):
            await answer(through, tokens)
        costs.append((processor_time(process.pid) - used) / 20 * 1000)
    per_token = (costs[1] - costs[0]) / 64
    print(f"gateway's processor time: {costs[0]:.1f} ms a request, {per_token:.3f} ms a streamed token")
    print("| clients | engine tokens/s | gateway tokens/s | ratio |\n|--:|--:|--:|--:|")
    for count in counts:
        rows = []
        for turn in range(rounds):
            sides = [direct, through] if turn % 2 == 0 else [through, direct]
            speeds = {id(side): await throughput(side, count) for side in sides}
            rows.append((speeds[id(direct)], speeds[id(through)]))
        a, b = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(through / direct for direct, through in rows)
        print(f"| {count} | {a:.1f} | {b:.1f} | {ratio:.3f} |")
    await direct.aclose()
    await engine.close()
    await through.aclose()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = options.model
    if model is None:
        from terazi.registry import resolve_model

        model = resolve_model("smollm2:135m")
    print(f"{platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {model.name}")
    asyncio.run(measure(model, [int(count) for count in options.clients.split(",")], options.rounds))


if __name__ == "__main__":
    main()
