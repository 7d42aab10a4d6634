"""Prompts, exercises and batches: what the demo's model and prefixes are trained on."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest
import torch
from demo.batches import IGNORED, Example, collate, shuffled
from demo.pretext import exercise
from demo.tasks import LATE_TASK, SEPARATOR, TASKS, task


def test_every_task_has_its_own_name_and_prefix_length() -> None:
    assert len({each.task_id for each in TASKS}) == len(TASKS)
    assert len({each.prefix_tokens for each in TASKS}) == len(TASKS)
    assert LATE_TASK in {each.task_id for each in TASKS}


def test_prompts_are_what_the_model_card_says() -> None:
    assert task("e2e").prompt("name : Cocum | food : Thai") == "name : Cocum | food : Thai =>"
    assert task("hotel").prompt("inform(name='the opal';area=soma)") == (
        "inform ( name = the opal ; area = soma ) =>"
    )


@pytest.mark.parametrize("seed", range(40))
def test_an_exercise_says_nothing_that_its_text_and_the_names_do_not(seed: int) -> None:
    text = "The Vaults pub near Café Adriatic has a 5 star rating ."
    names = ["oak", "elm"]
    given, wanted = exercise(text, names, Random(seed)).split(SEPARATOR)
    letters = set(text + "".join(names)) | set(text.upper()) | set("=|:;()_0123456789")
    assert set(given) | set(wanted) <= letters


@pytest.mark.parametrize("seed", range(40))
def test_names_can_be_had_from_the_given_side(seed: int) -> None:
    given, wanted = exercise("a b c d e f g h", ["oak", "elm"], Random(seed)).split(SEPARATOR)
    for name in ("oak", "elm"):
        assert name not in wanted or name in given


def test_only_answers_are_counted() -> None:
    batch = collate([Example((5, 6, 7, 0), 2), Example((8, 9, 0), 1)])
    assert batch.ids.tolist() == [[5, 6, 7, 0], [8, 9, 0, 0]]
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 7, 0], [IGNORED, 9, 0, IGNORED]]


def test_an_epoch_of_batches_holds_every_example_once() -> None:
    examples = [Example((number, *range(number % 5), 0), 1) for number in range(1, 21)]
    batches = list(islice(shuffled(examples, 4, Random(0)), 5))
    first = torch.cat([batch.ids[:, 0] for batch in batches])
    assert sorted(first.tolist()) == list(range(1, 21))
