"""distilabel: a pipeline of `LoadDataFromDicts` and `TextGeneration` with its `OpenAILLM`.

It sends a batch at once and waits for all of it, so the batch is the concurrency. Its cache is off.
"""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import version

from benchmarks.peers.work import MAX_TOKENS, MODEL, given, prompt, timed


def main() -> None:
    """The whole of `Pipeline.run`."""
    os.environ |= {
        "DISTILABEL_LOG_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    url, requests, concurrency = given()
    rows = [{"instruction": prompt(number)} for number in range(requests)]

    def answer() -> int:
        with tempfile.TemporaryDirectory() as folder:
            with Pipeline(name="bench", cache_dir=folder) as pipeline:
                load = LoadDataFromDicts(data=rows, batch_size=concurrency)
                llm = OpenAILLM(
                    model=MODEL,
                    base_url=url,
                    api_key="none",
                    generation_kwargs={"max_new_tokens": MAX_TOKENS},
                )
                load >> TextGeneration(llm=llm, input_batch_size=concurrency)
            answers = pipeline.run(use_cache=False)["default"]["train"]["generation"]
            return sum(bool(text) for text in answers)

    settings = f"{version('distilabel')}, batches of {concurrency}, use_cache=False"
    timed("distilabel", settings, requests, answer)


if __name__ == "__main__":
    main()
