"""The golden cases of one model in one batch, by the model wrapper over plain lists alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model.stories import Story, bound
from support.golden import NAMES, Case, Golden, is_beam


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "golden")


def told_here(case: Case) -> bool:
    """Beams, infixes and forced tokens are the engine's affair."""
    forced = any(name.startswith("forced") for name in case["generation"])
    return not (is_beam(case) or forced or case["method"] == "infix")


def story(golden: Golden, case: Case, joins: int) -> Story:
    asked = golden.asked(case)
    encodes = case["family"] == "seq2seq"
    given: dict[str, Any] = {}
    for piece in asked.pieces:
        given = {"sites": piece.sites, "offset": piece.offset, "virtual": piece.embeddings}
    return Story(
        asked.decoder_ids if encodes else asked.input_ids,
        asked.max_new_tokens,
        asked.input_ids if encodes else (),
        joins=joins,
        chunk=16,
        eos=case["eos_token_id"],
        **given,
    )


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_all_cases_in_one_batch(name: str, golden: Golden) -> None:
    teller, _ = bound(golden.model(name))
    cases = [case for case in golden.cases(name) if told_here(case)]
    answers = teller.tell([story(golden, case, at % 3) for at, case in enumerate(cases)])
    assert len(cases) > 5
    for case, told in zip(cases, answers, strict=True):
        assert told.tokens == case["output_ids"], case["id"]
        torch.testing.assert_close(
            told.logits[0], golden.first_logits(case), atol=2e-4, rtol=0, msg=case["id"]
        )
