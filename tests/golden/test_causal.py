"""Token-for-token what PEFT answers, alone and in mixed batches, on both layouts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engines import Answers, DictSource, EngineParts, answer, make_engine, submit
from support.golden import CAUSAL, Golden
from support.models import devices, load_folder

from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.model.load import LoadedModel

pytestmark = pytest.mark.shared
LAYOUTS: tuple[LayoutName, ...] = ("rows", "slots")


class LogitsRecorder(Failpoints):
    """Keeps the logits of every request, step by step."""

    def __init__(self) -> None:
        self.seen: dict[str, list[torch.Tensor]] = {}

    def after_forward(self, ids: Sequence[str], logits: torch.Tensor) -> torch.Tensor:
        for request_id, row in zip(ids, logits, strict=True):
            self.seen.setdefault(request_id, []).append(row.float().cpu().clone())
        return logits


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "golden")


@pytest.fixture(scope="module", params=devices())
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=CAUSAL)
def loaded(golden: Golden, device: str, request: pytest.FixtureRequest) -> LoadedModel:
    return load_folder(golden.root / "models" / request.param, device=device)


@pytest.fixture(params=LAYOUTS)
def layout(device: str, request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    if name == "rows" and device != "cpu":
        pytest.skip("the row layout is for CPUs only")
    return name


def name_of(loaded: LoadedModel) -> str:
    return str(loaded.module.config.model_type)


def engine_with_prefixes(
    golden: Golden, loaded: LoadedModel, layout: LayoutName, **options: Any
) -> EngineParts:
    """The same tensor may stand behind two positions: then it is two prefixes."""
    source = DictSource()
    cases = golden.cases(name_of(loaded)) + golden.refused(name_of(loaded))
    for case in cases:
        if case["adapter"] is not None:
            source.add(digest_of(case), golden.prefix(case["adapter"]), offset_of(case))
    return make_engine(loaded, layout, source=source, **options)


def offset_of(case: dict[str, Any]) -> int:
    return int(case.get("position_offset", case["prefix_tokens"]))


def digest_of(case: dict[str, Any]) -> str:
    return f"{case['adapter']}@{offset_of(case)}"


def submit_case(case: dict[str, Any], suffix: str = "") -> Submit:
    prefixes = () if case["adapter"] is None else (digest_of(case),)
    return submit(
        case["id"] + suffix,
        case["input_ids"],
        prefixes=prefixes,
        max_new_tokens=case["max_new_tokens"],
    )


def check(case: dict[str, Any], answers: Answers, suffix: str = "") -> None:
    request_id = case["id"] + suffix
    assert answers.tokens[request_id] == case["output_ids"], request_id
    finished = answers.finished[request_id]
    assert finished.reason == case["finish_reason"], request_id
    expected = () if case["adapter"] is None else (digest_of(case),)
    assert finished.prefixes == expected
    assert sum(finished.prefix_tokens) == case["prefix_tokens"]


def test_all_cases_are_covered(golden: Golden) -> None:
    cases = [case for name in CAUSAL for case in golden.cases(name, ("none", "PREFIX_TUNING"))]
    assert len(cases) == 53


def test_alone(golden: Golden, loaded: LoadedModel, layout: LayoutName) -> None:
    recorder = LogitsRecorder()
    parts = engine_with_prefixes(golden, loaded, layout, failpoints=recorder)
    for case in golden.cases(name_of(loaded)):
        check(case, answer(parts.engine, [submit_case(case)]))
        first = golden.logits[case["id"]]
        first = first[0] if first.ndim == 2 else first
        torch.testing.assert_close(recorder.seen[case["id"]][0], first, atol=2e-4, rtol=0)


def test_mixed_with_random_joins_and_leaves(
    golden: Golden, loaded: LoadedModel, layout: LayoutName
) -> None:
    """Batches of 1 to 32 rows; prompts cut into chunks; some requests leave half-way."""
    rng = random.Random(name_of(loaded))
    cases = golden.cases(name_of(loaded))
    for rows, budget in ((3, 7), (8, 16), (32, 64)):
        parts = engine_with_prefixes(golden, loaded, layout, rows=rows, tokens=budget)
        todo = [(case, f"#{copy}") for case in cases for copy in range(4)]
        rng.shuffle(todo)
        dropped: set[str] = set()
        answers = Answers()
        waiting = list(todo)
        while waiting or parts.engine.has_work:
            for case, suffix in waiting[: rng.randrange(4)]:
                parts.engine.submit(submit_case(case, suffix))
                waiting.pop(0)
                if rng.random() < 0.15:
                    dropped.add(case["id"] + suffix)
            answers.step(parts.engine)
            for request_id in [d for d in dropped if rng.random() < 0.2]:
                parts.engine.abort(request_id)
        for case, suffix in todo:
            if case["id"] + suffix not in dropped:
                check(case, answers, suffix)


def test_refused_at_admission(golden: Golden, loaded: LoadedModel, layout: LayoutName) -> None:
    parts = engine_with_prefixes(golden, loaded, layout)
    for number, case in enumerate(golden.refused(name_of(loaded))):
        ids = [number % 5 + 3] * case["prompt_tokens"]
        digest = f"{case['adapter']}@{case['prefix_tokens']}"
        request = submit(
            "one", ids, prefixes=[digest], max_new_tokens=case["max_new_tokens"], ignore_eos=True
        )
        finished = answer(parts.engine, [request]).finished["one"]
        assert finished.error is not None
        assert finished.error.code == "prompt_too_long"
        fitting = submit("two", ids[1:], prefixes=[digest], max_new_tokens=case["max_new_tokens"])
        assert answer(parts.engine, [fitting]).finished["two"].error is None
