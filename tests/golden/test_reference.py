"""The slow reference itself: it answers what PEFT and the paper's code answered.

Where no golden case exists the server is held against it, so it has to be right by itself.
"""

from __future__ import annotations

import pytest
import torch
from support.golden import MODELS, NAMES, Golden, is_beam
from support.original import CHECKPOINTS, Original
from support.slow import Slow

pytestmark = pytest.mark.shared
EMBEDDINGS = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")


@pytest.mark.parametrize("name", NAMES)
def test_every_greedy_case_of_peft(golden: Golden, name: str) -> None:
    slow = Slow(golden.model(name))
    cases = [case for case in golden.cases(name) if not is_beam(case)]
    assert {case["method"] for case in cases} >= {"none", "PREFIX_TUNING", *EMBEDDINGS}
    for case in cases:
        said = slow.greedy(golden.asked(case))
        assert said.tokens == tuple(case["output_ids"]), case["id"]
        assert said.sure == len(said.tokens), case["id"]
        stored = golden.logits[case["id"]]
        found = said.logits if stored.ndim == 2 else said.logits[0]
        torch.testing.assert_close(found, stored, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", MODELS["causal"])
def test_virtual_tokens_that_are_run_equal_their_kv(golden: Golden, name: str) -> None:
    """Compiled once or prepended: PEFT's own answer either way."""
    slow = Slow(golden.model(name))
    cases = [c for c in golden.cases(name) if c["method"] in EMBEDDINGS and not is_beam(c)]
    for case in cases:
        embeddings = golden.piece(case).embeddings
        assert embeddings is not None
        logits = slow.prepended(embeddings, [*case["input_ids"], *case["output_ids"][:-1]])
        chosen = logits[len(case["input_ids"]) - 1 :]
        assert chosen.argmax(dim=-1).tolist() == case["output_ids"], case["id"]
        torch.testing.assert_close(chosen[0], golden.first_logits(case), atol=2e-4, rtol=0)
    assert len(cases) == 4


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_greedy_case_of_the_papers_code(original: Original, name: str) -> None:
    slow = Slow(original.model(name))
    for checkpoint in CHECKPOINTS[name]:
        for label, case in original.cases(checkpoint).items():
            said = slow.greedy(original.asked(checkpoint, case))
            assert said.tokens == tuple(case["greedy"]), (checkpoint, label)
            stored = original.logits[f"{checkpoint}/{label}"]
            torch.testing.assert_close(said.logits[0], stored, atol=1e-4, rtol=0)


def test_the_infix_of_the_papers_code_sees_x(original: Original) -> None:
    name = "gpt2-infix-p5"
    slow, piece = Slow(original.model("gpt2")), original.piece(name)
    for label, case in original.cases(name).items():
        found = slow.infix_kv(piece, case["x"], ())
        stored = original.logits[f"{name}/{label}/infix_kv"]
        torch.testing.assert_close(found, stored.view_as(found), atol=1e-4, rtol=0)
