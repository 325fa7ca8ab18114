"""bespokelabs-curator: an `LLM` with its OpenAI backend; its cache folder is new each time.

Its own limits are set out of the way: as many requests and tokens a minute as it accepts, the
concurrency of the work. Telemetry, the hosted viewer and the progress displays are off; a
bar drawn after every answer takes it a fifth of its time.
"""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.peers.work import MAX_TOKENS, MODEL, given, prompt, timed


def quiet() -> None:
    """What it and its libraries read from the environment when they are imported."""
    litellm = find_spec("litellm")
    assert litellm is not None and litellm.origin is not None
    os.environ |= {
        "TELEMETRY_ENABLED": "false",
        "CURATOR_VIEWER": "false",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "TQDM_DISABLE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        "OPENAI_API_KEY": "none",
        # What it counts tokens with would be downloaded; a package that it needs brings it.
        "TIKTOKEN_CACHE_DIR": str(Path(litellm.origin).parent / "litellm_core_utils/tokenizers"),
    }


def main() -> None:
    """The whole of `LLM(...)(dataset)`."""
    quiet()
    from bespokelabs import curator
    from bespokelabs.curator.request_processor.online import openai_online_request_processor

    assert openai_online_request_processor  # slow to import, and would be only when it is used
    url, requests, concurrency = given()
    limits = {
        "max_requests_per_minute": 10_000_000,
        "max_tokens_per_minute": 100_000_000_000,
        "max_concurrent_requests": concurrency,
    }
    rows = [{"prompt": prompt(number)} for number in range(requests)]

    class Answer(curator.LLM):  # type: ignore[misc]
        def prompt(self, row):  # type: ignore[no-untyped-def]
            return row["prompt"]

        def parse(self, row, response):  # type: ignore[no-untyped-def]
            return {"prompt": row["prompt"], "answer": response}

    def answer() -> int:
        with tempfile.TemporaryDirectory() as folder:
            llm = Answer(
                model_name=MODEL,
                backend="openai",
                backend_params={"base_url": url, **limits},
                generation_params={"max_tokens": MAX_TOKENS},
            )
            return sum(bool(row["answer"]) for row in llm(rows, working_dir=folder).dataset)

    timed("curator", f"{version('bespokelabs-curator')}, {limits}", requests, answer)


if __name__ == "__main__":
    main()
