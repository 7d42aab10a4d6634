"""The bundled model and prefixes: that they load, are small, and do what they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from demo.data import Pair
from demo.evaluate import load_prefix, loss_per_token
from demo.greedy import answers
from demo.run import FOLDER, load_examples
from demo.tasks import TASKS, Task
from safetensors import safe_open
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

MODEL = FOLDER / "model"
PREFIXES = FOLDER / "prefixes"
FILES = sorted(path for part in (MODEL, PREFIXES) for path in part.rglob("*") if path.is_file())
LARGEST_FILE = 10_000_000

# PEFT reads attributes that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.task_id)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def _pairs(task: Task) -> list[Pair]:
    return [Pair(each["source"], each["target"]) for each in load_examples()[task.task_id]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_files_are_small(path: Path) -> None:
    assert path.stat().st_size <= LARGEST_FILE


def test_only_safe_formats_are_bundled() -> None:
    assert {path.suffix for path in FILES} == {".json", ".safetensors", ".md"}


def test_generation_ends_at_the_end_of_sequence_token(tokenizer: PreTrainedTokenizerBase) -> None:
    config = json.loads((MODEL / "generation_config.json").read_text(encoding="utf-8"))
    assert config["eos_token_id"] == tokenizer.eos_token_id


def test_the_tokenizer_is_fast_and_loses_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "¿Café?  \n naïve 'x' , I_TURN_LEFT AH0 £20-25 => 漢字"
    assert tokenizer.is_fast
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@every_task
def test_adapters_are_plain_peft_of_the_stated_length(task: Task) -> None:
    config = json.loads((PREFIXES / task.task_id / "adapter_config.json").read_text("utf-8"))
    assert config["peft_type"] == "PREFIX_TUNING"
    assert config["prefix_projection"] is True
    assert config["num_virtual_tokens"] == task.prefix_tokens
    with safe_open(PREFIXES / task.task_id / "adapter_model.safetensors", "pt") as tensors:
        assert list(tensors.keys()) == ["prompt_embeddings"]
        assert tensors.get_slice("prompt_embeddings").get_shape()[0] == task.prefix_tokens


@every_task
def test_a_prefix_explains_held_out_answers_better_than_no_prefix(
    task: Task, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    pairs = _pairs(task)
    bare = loss_per_token(model, tokenizer, task, pairs)
    behind = loss_per_token(load_prefix(model, PREFIXES / task.task_id), tokenizer, task, pairs)
    assert behind < 0.8 * bare


@every_task
def test_with_a_prefix_most_answers_end(
    task: Task, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = [task.prompt(pair.source) for pair in _pairs(task)]
    texts = answers(load_prefix(model, PREFIXES / task.task_id), tokenizer, prompts)
    longest = max(len(pair.target) for pair in _pairs(task))
    ended = [text for text in texts if 0 < len(text) <= 2 * longest]
    assert len(ended) >= 0.6 * len(texts)


def test_examples_are_of_the_bundled_tasks() -> None:
    examples = load_examples()
    assert set(examples) == {task.task_id for task in TASKS}
    assert all(len(rows) >= 4 for rows in examples.values())
