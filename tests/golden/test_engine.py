"""Token for token what PEFT and transformers answer, alone and in mixed batches, by layout."""

from __future__ import annotations

import random

import pytest
from support.engines import Answers, answer
from support.golden import NAMES, Golden
from support.golden_engine import GoldenModel
from support.models import load_folder
from support.stored import LogitsRecorder, stored_engine

from prefixmux_server.memory.select import LayoutName

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module", params=NAMES)
def model(
    golden: Golden,
    device: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> GoldenModel:
    loaded = load_folder(golden.model(request.param), device=device)
    return GoldenModel.make(golden, request.param, loaded, tmp_path_factory.mktemp("store"))


def test_the_file_is_whole(golden: Golden) -> None:
    assert sum(len(golden.cases(name)) for name in NAMES) == len(golden.content["cases"]) == 233
    assert sum(len(golden.refused(name)) for name in NAMES) == len(golden.content["refused"]) == 6


def test_alone(model: GoldenModel, layout: LayoutName) -> None:
    recorder = LogitsRecorder()
    engine = stored_engine(model.loaded, layout, model.store, failpoints=recorder, capacity=1024)
    for case in model.cases:
        model.check(case, answer(engine, [model.submit(case)]))
        model.check_logits(case, recorder)


@pytest.mark.parametrize(("rows", "budget", "copies"), [(6, 7, 1), (24, 200, 2)])
def test_mixed_with_random_joins_and_leaves(
    model: GoldenModel, layout: LayoutName, rows: int, budget: int, copies: int
) -> None:
    """Every row may have another method, length and site set; some leave half-way."""
    rng = random.Random(f"{model.name} {rows}")
    engine = stored_engine(
        model.loaded, layout, model.store, rows=rows, tokens=budget, capacity=8192
    )
    todo = [(case, f"#{copy}") for case in model.cases for copy in range(copies)]
    rng.shuffle(todo)
    waiting, leaving, left = list(todo), set[str](), set[str]()
    answers = Answers()
    while waiting or engine.has_work:
        for case, suffix in waiting[: rng.randrange(4)]:
            engine.submit(model.submit(case, suffix))
            waiting.pop(0)
            if rng.random() < 0.15:
                leaving.add(f"{case['id']}{suffix}")
        if engine.has_work:
            answers.step(engine)
        for name in sorted(leaving - left):
            if rng.random() < 0.2:
                engine.abort(name)
                left.add(name)
    assert max(len(record.rows) for record in answers.records) > min(rows, 10) // 2
    for case, suffix in todo:
        if f"{case['id']}{suffix}" not in left:
            model.check(case, answers, suffix)


def test_one_position_too_many_is_refused(model: GoldenModel, layout: LayoutName) -> None:
    """At admission; one token less is answered."""
    engine = stored_engine(model.loaded, layout, model.store, capacity=1024)
    for case in model.golden.refused(model.name):
        finished = answer(engine, [model.submit(case)]).finished[case["id"]]
        assert finished.error is not None
        assert finished.error.code == "prompt_too_long"
        shorter = {**case, "max_new_tokens": case["max_new_tokens"] - 1}
        if not shorter["max_new_tokens"]:
            shorter = {**case, "input_ids": case["input_ids"][1:]}
        assert answer(engine, [model.submit(shorter)]).finished[case["id"]].error is None
