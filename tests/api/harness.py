"""Runs lm-eval against a server, in a process of its own: it sets seeds and log levels.

`python harness.py JSON`, where JSON says `url`, `model`, `tokenizer` and `docs`; what it found is
printed as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask

CHOICE, WRITING = "prefix_choice", "prefix_writing"


def tasks(docs: list[dict[str, Any]]) -> list[ConfigurableTask]:
    common = {
        "custom_dataset": lambda **_: {"test": Dataset.from_list(docs)},
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    choice = {
        "task": CHOICE,
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}],
    }
    writing = {
        "task": WRITING,
        "output_type": "generate_until",
        "doc_to_target": "{{choices[label]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "temperature": 0.0},
        "metric_list": [{"metric": "exact_match"}],
    }
    return [ConfigurableTask(config={**common, **own}) for own in (choice, writing)]


def main(asked: dict[str, Any]) -> dict[str, Any]:
    found = simple_evaluate(
        model="local-completions",
        model_args={
            "model": asked["model"],
            "base_url": f"{asked['url']}/v1/completions",
            "tokenizer": asked["tokenizer"],
            "tokenizer_backend": "huggingface",
            "tokenized_requests": asked["tokenized"],
            "max_retries": 1,
        },
        tasks=tasks(asked["docs"]),
        batch_size=asked["batch_size"],
        bootstrap_iters=0,
    )
    assert found is not None
    samples = found["samples"]
    return {
        "likelihoods": [[one[0] for one in sample["resps"]] for sample in samples[CHOICE]],
        "texts": [sample["resps"][0][0] for sample in samples[WRITING]],
        "accuracy": found["results"][CHOICE]["acc,none"],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201
