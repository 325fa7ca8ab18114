"""Asking a teacher over HTTP: speed, limits, memory, and what is lost when things go wrong.

Every server is local (`benchmarks.servers`) and runs in a process of its own; so does every client
(`benchmarks.peers`), one at a time. Ratios are taken between clients that ran one after the other.

    speed    requests a second and processor time, against a bare loop and other tools
    limits   what is used of so many requests and tokens a minute, and how often it was too much
    memory   the client's peak, from 5,000 to 500,000 requests
    rerun    100,000 finished requests, asked once more
    kill     kill -9 at a random moment, then again: replies that were asked for twice
    faults   429, 500, resets and cut JSON: completeness, repeats, time
    budget   random prices, sizes and mishaps: what is billed never passes the budget

`make bench-peers` builds the environments of the other tools; without them they are left out.

    python -m benchmarks.teachers [--part speed limits ...] [--quick]

Parts that are run alone replace their figures in the result; each names the commit it ran on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result import FOLDER, commit, finish
from benchmarks.servers import Running, running

ROOT = Path(__file__).parents[1]
PEERS = ("openai", "curator", "distilabel")
RESULT = FOLDER / "teachers.json"
COMMIT_S = 0.05  # a reply may wait so long for its commit; what is younger may be lost
CLIENT_S = 1200  # no client takes so long, unless it hangs
FAULTS = {
    "throttled": 0.05,
    "throttled_wait": 0.05,  # Retry-After: 1
    "error_500": 0.05,
    "reset_before": 0.01,
    "reset_middle": 0.01,
    "cut_json": 0.01,
}
Figures = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int = 3
    requests: int = 5000
    concurrency: int = 256
    latency_ms: float = 50
    limit_minutes: float = 3.4
    requests_per_minute: int = 600
    tokens_per_minute: int = 300_000
    limit_latency_s: tuple[float, float] = (1, 30)
    memory: tuple[int, ...] = (5_000, 50_000, 500_000)
    rerun: int = 100_000
    kills: int = 20
    kill_requests: int = 6000
    budgets: int = 1000


QUICK = Sizes(
    rounds=1,
    requests=300,
    concurrency=32,
    latency_ms=10,
    limit_minutes=0.1,
    requests_per_minute=1200,
    tokens_per_minute=600_000,
    limit_latency_s=(0.05, 0.5),
    memory=(300, 2000),
    rerun=1000,
    kills=1,
    kill_requests=1500,
    budgets=12,
)


def main() -> None:
    """Run the parts and print their figures."""
    parts: dict[str, Callable[[Sizes, Path], tuple[Figures, Any]]] = {
        "speed": speed,
        "limits": limits,
        "memory": memory,
        "rerun": rerun,
        "kill": kill,
        "faults": faults,
        "budget": budget,
    }
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--part", nargs="+", default=list(parts), choices=list(parts))
    options.add_argument("--quick", action="store_true", help="small sizes; writes no result")
    given = options.parse_args()
    headline: Figures = {}
    rows: Figures = {}
    for name in given.part:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bench-teachers-") as folder:
            figures, rows[name] = parts[name](QUICK if given.quick else Sizes(), Path(folder))
        headline |= figures
        say(f"{name}: {json.dumps(figures)} ({time.monotonic() - start:.0f} s)")
        rows[name] = {"commit": commit(), "measured": rows[name]}
    if given.quick:
        print(json.dumps(headline), flush=True)
        return
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"rows": {}}
    figures = {key: before[key] for key in before.get("figures", [])} | headline
    finish("teachers", {**figures, "figures": list(figures)}, before["rows"] | rows)


def speed(sizes: Sizes, folder: Path) -> tuple[Figures, Any]:
    """Ours, the bare loop and the others, one after the other, so many times."""
    rows: list[Figures] = []
    of_peers: list[float] = []
    for number in range(sizes.rounds):
        clients = ["bare", "symdistill", *(name for name in PEERS if python_of(name).exists())]
        for name in clients[:: 1 if number % 2 else -1]:  # no one always comes first
            with running("fixed", latency_ms=sizes.latency_ms) as server:
                told = {"ledger": str(folder / f"{number}.sqlite")}
                lines = client(name, server, sizes.requests, sizes.concurrency, told)
                stats = server.stats()
            for line in lines:
                line |= {"round": number, "rps": sizes.requests / line["seconds"]}
                line["max_in_flight"] = stats["max_in_flight"]
                say(f"  {line['client']}: {line['rps']:.0f}/s, {line['cpu_s']:.1f} CPU s")
            rows += lines
        others = [row["rps"] for row in rows if row["round"] == number and _is_peer(row)]
        of_peers += [max(others)] if others else []

    def each(name: str, figure: str) -> list[float]:
        return [row[figure] for row in rows if row["client"] == name]

    ours, bare = each("symdistill", "rps"), each("bare", "rps")
    cpu, cpu_bare = each("symdistill", "cpu_s"), each("bare", "cpu_s")
    figures = {
        "rps": statistics.median(ours),
        "rps_ratio_bare": _median_ratio(ours, bare),
        "rps_ratio_best_peer": _median_ratio(ours, of_peers) if of_peers else None,
        "cpu_ratio_bare": _median_ratio(cpu, cpu_bare),
    }
    return figures, rows


def limits(sizes: Sizes, folder: Path) -> tuple[Figures, Any]:
    """Two servers at the same time: one short of requests, one short of tokens.

    The share is of what the limit lets in between the first and the last admission, a bucket's
    first filling included; the last replies are not waited for. It is at most 1 in the headline: a
    sliding window lets in a minute's worth at once when it is new, and a client may take it.
    """
    rate, tokens = sizes.requests_per_minute, sizes.tokens_per_minute
    each = 617  # tokens of a request, as it is counted: the prompt and `max_tokens`
    plain: Figures = {"latency_s": sizes.limit_latency_s, "tokens": (20, 600), "charge": "bound"}
    cases: dict[str, Figures] = {
        "requests": {"requests_per_minute": rate, "tokens_per_minute": 100 * each * rate}
        | {"window": "bucket", "burst_s": 2},
        "tokens": {"requests_per_minute": 10 * rate, "tokens_per_minute": tokens}
        | {"window": "sliding"},
    }

    def one(short_of: str) -> Figures:
        options = cases[short_of]
        amount = options[f"{short_of}_per_minute"]
        requests = round(min(rate, tokens / each) * sizes.limit_minutes)
        with running("limited", **plain, **options) as server:
            told = {"ledger": str(folder / f"{short_of}.sqlite"), "max_new_tokens": 600}
            (line,) = client("symdistill", server, requests, 256, told)
            stats = server.stats()
        let_in = [(at, 1 if short_of == "requests" else of) for at, of in stats["admissions"]]
        late = [(at, of) for at, of in let_in if at >= 60]
        line |= {
            "limits": options,
            "window_s": let_in[-1][0],
            "max_in_flight": stats["max_in_flight"],
            "refused": stats["refused"],
            "throttled_share": stats["refused"] / stats["requests"],
            "share": _share(let_in, amount, filling_s=options.get("burst_s", 0)),
            "share_after_first_minute": _share(late, amount) if late else None,
        }
        say(f"  short of {short_of}: {line}")
        return line

    with ThreadPoolExecutor() as pool:  # both only wait
        rows = dict(zip(cases, pool.map(one, cases), strict=True))
    figures = {
        "ceiling_share": min(min(1.0, row["share"]) for row in rows.values()),
        "throttled_share": max(row["throttled_share"] for row in rows.values()),
    }
    return figures, rows


def memory(sizes: Sizes, folder: Path) -> tuple[Figures, Any]:
    """The client's peak as the requests grow."""
    rows = []
    for requests in sizes.memory:
        with running("fixed", latency_ms=1) as server:
            told = {"ledger": str(folder / f"{requests}.sqlite")}
            rows += client("symdistill", server, requests, sizes.concurrency, told)
        rows[-1]["ledger_mb"] = (folder / f"{requests}.sqlite").stat().st_size / 2**20
        say(f"  {requests}: {rows[-1]['rss_mb']:.0f} MB, {rows[-1]['seconds']:.0f} s")
    figures = {
        "rss_mb_max": max(row["rss_mb"] for row in rows),
        "rss_growth_mb": rows[-1]["rss_mb"] - rows[0]["rss_mb"],
    }
    return figures, rows


def rerun(sizes: Sizes, folder: Path) -> tuple[Figures, Any]:
    """Finished, and asked again; the seconds are those of the whole process."""
    told = {"ledger": str(folder / "ledger.sqlite")}
    with running("fixed", latency_ms=1) as server:
        first = client("symdistill", server, sizes.rerun, sizes.concurrency, told)
        before, start = server.stats()["requests"], time.monotonic()
        again = client("symdistill", server, sizes.rerun, sizes.concurrency, told)
        took = time.monotonic() - start
        sent = server.stats()["requests"] - before
    return {"rerun_seconds": took, "rerun_requests_sent": sent}, [*first, *again]


def kill(sizes: Sizes, folder: Path) -> tuple[Figures, Any]:
    """Killed and started again: what had come 50 ms before and was asked for once more.

    Seen from two sides: when the server had written a whole reply, and when the client had read
    it. What lies between is in the socket of a client that is busy.
    """
    dice = random.Random(0)
    rows = []
    for trial in range(sizes.kills):
        noted = folder / f"{trial}.received"
        told = {"ledger": str(folder / f"{trial}.sqlite"), "received": str(noted)}
        with running("fixed", latency_ms=sizes.latency_ms, log=True) as server:
            begun = popen("symdistill", server, sizes.kill_requests, sizes.concurrency, told)
            while not server.stats()["whole"] and begun.poll() is None:
                time.sleep(0.005)
            time.sleep(dice.uniform(0, sizes.kill_requests / 4000))
            killed_at = time.monotonic()
            begun.kill()
            begun.communicate()
            received = _received(noted)
            (line,) = client("symdistill", server, sizes.kill_requests, sizes.concurrency, told)
            log = server.log()
        written = {key: at for at, what, key in reversed(log) if what == "whole"}  # the first time
        again = {key for at, what, key in log if what == "asked" and at > killed_at}
        row: Figures = {"whole_before": sum(at < killed_at for at in written.values())}
        row["complete"] = line["answers"] == sizes.kill_requests
        for side, times in (("server", written), ("client", received)):
            ages = [
                killed_at - times[key] for key in again if times.get(key, killed_at) < killed_at
            ]
            row[f"asked_again_{side}"] = len(ages)
            row[f"lost_{side}"] = sum(age >= COMMIT_S for age in ages)
            row[f"oldest_lost_ms_{side}"] = max(ages, default=0.0) * 1000
        rows.append(row)
        say(f"  {row}")
    figures = {
        "kill_lost_max": max(row["lost_server"] for row in rows),
        "kill_lost_max_received": max(row["lost_client"] for row in rows),
        "kill_complete": all(row["complete"] for row in rows),
    }
    return figures, rows


def _received(path: Path) -> dict[str, float]:
    from benchmarks.peers.symdistill import RECEIVED

    raw = path.read_bytes() if path.exists() else b""
    whole = raw[: len(raw) // RECEIVED.size * RECEIVED.size]
    return {key.decode(): at for at, key in RECEIVED.iter_unpack(whole)}


def faults(sizes: Sizes, folder: Path) -> tuple[Figures, Any]:
    """Ours and the bare loop with the same delays, before the same plan of faults."""
    rows: list[Figures] = []
    for number in range(sizes.rounds):
        for name in ("bare", "symdistill")[:: 1 if number % 2 else -1]:
            told = {"retry": True, "ledger": str(folder / f"{number}.sqlite")}
            plan = {"rates": FAULTS, "seed": number, "latency_ms": sizes.latency_ms}
            with running("faults", **plan) as server:
                (line,) = client(name, server, sizes.requests, sizes.concurrency, told)
                stats = server.stats()
            rows.append({**line, "round": number, "server": stats})
            say(f"  {name}: {line['seconds']:.1f} s, {line['answers']} answers, {stats}")
    ours = [row for row in rows if row["client"] == "symdistill"]
    bare = [row for row in rows if row["client"] == "bare"]
    figures = {
        "fault_completed": all(row["answers"] == sizes.requests for row in ours),
        "fault_duplicates": max(row["server"]["needless"] for row in ours),
        "fault_wall_ratio": _median_ratio(
            [row["seconds"] for row in ours], [row["seconds"] for row in bare]
        ),
    }
    return figures, rows


def budget(sizes: Sizes, folder: Path) -> tuple[Figures, Any]:
    """Random limits, prices, sizes and mishaps; the backend's own account against the limits."""
    rows = [_trial(random.Random(seed), folder / f"{seed}.sqlite") for seed in range(sizes.budgets)]
    stopped = [row for row in rows if row["stopped"]]
    figures = {
        "budget_violations": sum(row["violated"] for row in rows),
        "budget_trials": len(rows),
        "budget_stopped": len(stopped),
        "budget_share_used": statistics.mean(row["share"] for row in stopped) if stopped else None,
    }
    return figures, [row for row in rows if row["violated"]]


def _trial(dice: random.Random, path: Path) -> Figures:
    """One run of two roles, and a second that goes on where the first stopped."""
    from symdistill.budget import Budget, BudgetReached
    from symdistill.config import BudgetSettings
    from symdistill.ledger import Ledger
    from symdistill.teachers.asking import ask
    from symdistill.teachers.base import Ask, Decoding, Price
    from symdistill.teachers.sending import Asking

    asks = [
        Ask(f"{number} " + "word " * dice.randrange(40), samples=dice.randrange(1, 4))
        for number in range(dice.randrange(5, 60))
    ]
    decoding = Decoding(max_new_tokens=dice.randrange(1, 200))
    backends = [
        Erratic(
            name,
            Price(input=10 ** dice.uniform(-2, 2), output=10 ** dice.uniform(-2, 2)),
            dice.randrange(1, 5),
            random.Random(dice.random()),
        )
        for name in ("generator", "judge")
    ]
    all_of_it = {
        "usd": sum(
            backend.price.cost_usd(backend.tokens_bound(one.prompt), decoding.max_new_tokens)
            * one.samples
            for backend in backends
            for one in asks
        ),
        "requests": 2 * len(asks),
        "tokens": 2 * sum(one.samples for one in asks) * decoding.max_new_tokens,
    }
    kinds = dice.sample(list(all_of_it), dice.randrange(1, 4))
    limits: Figures = {kind: all_of_it[kind] * 10 ** dice.uniform(-1.5, 0) for kind in kinds}
    limits |= {kind: int(limits[kind]) for kind in kinds if kind != "usd"}
    settings = Asking(max_concurrency=dice.choice([1, 4, 32]))
    stopped = 0
    for _ in range(2):
        ledger = Ledger(path)
        purse = Budget(BudgetSettings(**limits), ledger)
        try:
            for backend in backends:
                for _ in ask(
                    backend, asks, decoding=decoding, ledger=ledger, budget=purse,
                    role=backend.name, settings=settings,
                ):  # fmt: skip
                    pass
        except BudgetReached:
            stopped += 1
        ledger.close()
    billed = {
        kind: sum(getattr(backend, f"billed_{kind}") for backend in backends) for kind in kinds
    }
    shares = {kind: billed[kind] / limits[kind] if limits[kind] else 0.0 for kind in kinds}
    return {
        "limits": limits,
        "billed": billed,
        "stopped": stopped,
        "share": max(shares.values()),
        # One part in 1e9 is the rounding of a sum of floats.
        "violated": any(billed[kind] > limits[kind] * (1 + 1e-9) for kind in kinds),
    }


class Erratic:
    """A backend in this process that keeps its own account of what it bills.

    It bills every request that it works on, and then one in ten is cut off on its way; one in ten
    is refused without being billed.
    """

    def __init__(self, name: str, price: Any, samples: int, dice: random.Random) -> None:
        self.name = name
        self.identity: Mapping[str, Any] = {"name": name}
        self.price = price
        self.samples_per_request = samples
        self.at_once: int | None = None
        self.notes: list[str] = []
        self.dice = dice
        self.billed_usd = 0.0
        self.billed_requests = self.billed_tokens = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self, decoding: Any) -> None: ...

    def tokens_bound(self, prompt: Any) -> int:
        return len(prompt)

    async def send(self, prompt: Any, samples: int, decoding: Any, **_: Any) -> Any:
        from symdistill.teachers.base import Again, NoAnswer, Replies, Reply

        fate = self.dice.random()
        await asyncio.sleep(self.dice.choice([0, 0, 0.001]))
        if fate < 0.1:
            raise Again("refused", after_s=0)  # not as a limit: pace is not what is tried here
        tokens_in = self.dice.randrange(1, len(prompt) + 1)
        tokens = [self.dice.randrange(1, decoding.max_new_tokens + 1) for _ in range(samples)]
        self.billed_usd += self.price.cost_usd(tokens_in, sum(tokens))
        self.billed_requests += 1
        self.billed_tokens += tokens_in + sum(tokens)
        if fate < 0.2:
            raise Again("cut off", after_s=0, maybe_billed=True)
        if fate < 0.25:
            raise NoAnswer("refused", "no", tokens_in=tokens_in, tokens_out=sum(tokens))
        return Replies([Reply("text", "stop", of) for of in tokens], tokens_in)


def client(
    name: str, server: Running, requests: int, concurrency: int, told: Figures
) -> list[Figures]:
    """What a client printed when it was done."""
    process = popen(name, server, requests, concurrency, told)
    try:
        printed, errors = process.communicate(timeout=CLIENT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise RuntimeError(f"{name} did not end within {CLIENT_S} s") from None
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith('{"client"')]
    if process.returncode or not lines:
        raise RuntimeError(f"{name} ended with {process.returncode}: {errors[-2000:]}")
    return lines


def popen(
    name: str, server: Running, requests: int, concurrency: int, told: Figures
) -> subprocess.Popen[str]:
    """Start a client."""
    words = [f"benchmarks.peers.{name}", server.url, str(requests), str(concurrency)]
    return subprocess.Popen(
        [str(python_of(name)), "-m", *words, json.dumps(told)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def python_of(name: str) -> Path:
    """The Python of a client: the others have environments of their own."""
    if name in PEERS:
        return ROOT / "build" / "peers" / name / "bin" / "python"
    return Path(sys.executable)


def _is_peer(row: Mapping[str, Any]) -> bool:
    return row["client"] not in ("bare", "symdistill")


def _median_ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _share(
    let_in: Sequence[tuple[float, float]], a_minute: float, *, filling_s: float = 0
) -> float:
    """What was let in between the first and the last, of what the limit allows in that time."""
    seconds = let_in[-1][0] - let_in[0][0] + filling_s
    return sum(of for _, of in let_in[1:]) / (a_minute * seconds / 60)


def say(line: str) -> None:
    """Tell where it stands."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
