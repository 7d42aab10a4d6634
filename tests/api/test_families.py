"""One API for every family and method: what the engine is told, and what a family lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from api.conftest import Api, error_of
from service.fakes import CONTEXT, EOS, MODEL, SEQ2SEQ, START, ids, native, native_at

from prefixmux_server.engine.messages import EngineError
from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_store.errors import BlobMissing
from prefixmux_store.names import digest_of

pytestmark = pytest.mark.anyio

THREE_SITES = native_at({"encoder": 2, "decoder": 3, "cross": 4})
VIRTUAL = native_at({"embeddings": 4}, method="PROMPT_TUNING")
INFIX = native(4, method="INFIX_TUNING")
INFIX_EMBEDDING = native_at({"embeddings": 4, "decoder": 4}, method="INFIX_EMBEDDING")


async def test_an_encoder_decoder_model_gets_both_sides(api: Api) -> None:
    api.engine.serve(SEQ2SEQ)
    await api.put("e2e", THREE_SITES)
    answer = (await api.generate(task_id="e2e", input="name", decoder_input="so")).json()
    (submit,) = api.engine.submitted
    assert submit.input_ids == tuple(ids("name"))
    assert submit.decoder_ids == (START, *ids("so"))
    assert (submit.sampling.forced_bos_token_id, submit.sampling.forced_eos_token_id) == (5, EOS)
    assert submit.sampling.max_new_tokens == CONTEXT - 3 - 3 + 1
    assert answer["usage"]["prompt_tokens"] == 6


async def test_the_encoder_has_positions_of_its_own(api: Api) -> None:
    api.engine.serve(SEQ2SEQ)
    await api.put("kv", THREE_SITES)
    await api.put("virtual", VIRTUAL)
    for task_id, most in (("kv", CONTEXT), ("virtual", CONTEXT - 4), (None, CONTEXT)):
        fits = await api.generate(task_id=task_id, input=[1] * most)
        assert fits.status_code == 200, fits.text
        more = await api.generate(task_id=task_id, input=[1] * (most + 1))
        assert error_of(more, 422, "prompt_too_long")["param"] == "input"
    start = await api.generate(input=[1], decoder_input=[1] * CONTEXT)
    assert error_of(start, 422, "prompt_too_long")["param"] == "decoder_input"


async def test_a_model_without_a_position_table_ends_with_its_memory(api: Api) -> None:
    api.engine.serve(replace(SEQ2SEQ, context=None, capacity_tokens=100))
    await api.put("e2e", THREE_SITES)
    await api.generate(task_id="e2e", input=[1] * 96)
    assert api.engine.submitted[0].sampling.max_new_tokens == 100 - 3
    more = await api.generate(task_id="e2e", input=[1] * 97)
    assert error_of(more, 422, "prompt_too_long")["param"] == "input"


@pytest.mark.parametrize("data", [INFIX, INFIX_EMBEDDING])
async def test_behind_an_infix_comes_bos_or_what_is_asked(api: Api, data: bytes) -> None:
    await api.put("infix", data)
    assert api.engine.probed == [("default", (digest_of(data),), (EOS,))]
    await api.generate(task_id="infix", input=[1, 2])
    answer = (await api.generate(task_id="infix", input=[1, 2], decoder_input=[8, 9])).json()
    first, second = api.engine.submitted
    assert (first.input_ids, first.decoder_ids) == ((1, 2), (EOS,))
    assert (second.input_ids, second.decoder_ids) == ((1, 2), (8, 9))
    assert first.sampling.max_new_tokens == CONTEXT - 4 - 3 + 1
    assert answer["usage"]["prompt_tokens"] == 4


async def test_an_infix_without_bos_asks_for_decoder_input(api: Api) -> None:
    api.engine.serve(replace(MODEL, bos_token_id=None))
    await api.put("infix", INFIX)
    answer = await api.generate(task_id="infix", input=[1])
    assert error_of(answer, 422, "invalid_request")["param"] == "decoder_input"
    fits = await api.generate(task_id="infix", input=[1], decoder_input=[2])
    assert fits.status_code == 200


@pytest.mark.parametrize(
    ("model", "data", "decoder_ids"),
    [
        (MODEL, native(), ()),
        (MODEL, VIRTUAL, ()),
        (replace(MODEL, bos_token_id=None), INFIX, (0,)),
        (SEQ2SEQ, THREE_SITES, (START,)),
        (SEQ2SEQ, VIRTUAL, (START,)),
        (replace(SEQ2SEQ, decoder_start_token_id=None), VIRTUAL, (0,)),
    ],
)
async def test_a_trial_is_as_a_request_would_be(
    api: Api, model: ModelInfo, data: bytes, decoder_ids: tuple[int, ...]
) -> None:
    api.engine.serve(model)
    await api.put("e2e", data)
    assert api.engine.probed == [("default", (digest_of(data),), decoder_ids)]


# (model, file, code): what a family or a model does not have.
UNFIT: list[tuple[ModelInfo, bytes, str]] = [
    (MODEL, THREE_SITES, "incompatible_prefix"),
    (MODEL, native_at({"encoder": 2}), "incompatible_prefix"),
    (MODEL, native_at({"cross": 2}), "incompatible_prefix"),
    (SEQ2SEQ, INFIX, "unsupported_method"),
    (SEQ2SEQ, INFIX_EMBEDDING, "unsupported_method"),
    (MODEL, native_at({"decoder": 2}, method="CARTRIDGE"), "unsupported_method"),
    (replace(MODEL, hidden=12), VIRTUAL, "incompatible_prefix"),
    (replace(MODEL, embedding_width=12), VIRTUAL, "incompatible_prefix"),
    (SEQ2SEQ, native_at({"embeddings": CONTEXT}, method="PROMPT_TUNING"), "invalid_prefix"),
    (MODEL, native_at({"embeddings": CONTEXT}, method="PROMPT_TUNING"), "invalid_prefix"),
]


async def test_what_does_not_fit_is_refused_and_leaves_nothing(
    api: Api, subtests: pytest.Subtests
) -> None:
    for model, data, code in UNFIT:
        with subtests.test(family=model.family, code=code):
            api.engine.serve(model)
            error_of(await api.client.put("/prefixes/e2e", content=data), 422, code)
    assert api.stored() == (0, 0)
    assert api.engine.probed == []


UNAVAILABLE = EngineError("prefix_unavailable", "The prefix's file is missing.")


async def test_a_file_that_another_upload_discarded_is_staged_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = native()
    trials: list[tuple[int, int]] = []

    async def probe(tenant: str, prefixes: tuple[str, ...], _: Any) -> EngineError | None:
        """The other upload's discard comes between staging and the first trial."""
        if not trials:
            api.store.discard(tenant, prefixes[0])
        trials.append(api.stored())
        return None if api.stored()[1] else UNAVAILABLE

    monkeypatch.setattr(api.engine, "probe", probe)
    answer = await api.client.put("/prefixes/e2e", content=data)
    assert answer.status_code == 201, answer.text
    assert trials == [(0, 0), (0, 1)]
    assert (await api.client.get("/prefixes/e2e/versions/1/file")).content == data


async def test_a_prefix_that_stays_unavailable_is_given_up(api: Api) -> None:
    api.engine.probe_error = UNAVAILABLE
    answer = await api.client.put("/prefixes/e2e", content=native())
    error_of(answer, 503, "prefix_unavailable")
    assert len(api.engine.probed) == 2
    assert api.stored() == (0, 0)


async def test_a_second_trial_finds_what_it_finds(api: Api) -> None:
    api.engine.probe_errors = [UNAVAILABLE]
    api.engine.probe_error = EngineError("non_finite_output", "Not finite.")
    answer = await api.client.put("/prefixes/e2e", content=native())
    assert error_of(answer, 422, "invalid_prefix")["reason"] == "non_finite"
    assert api.stored() == (0, 0)


async def test_a_part_that_is_gone_is_not_tried_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.put("e2e")
    api.engine.probed.clear()
    api.engine.probe_errors = [UNAVAILABLE]
    answer = await api.client.post(
        "/prefixes", json={"task_id": "both", "compose": [{"task_id": "e2e"}]}
    )
    error_of(answer, 503, "prefix_unavailable")
    assert len(api.engine.probed) == 1

    def missing(*_: object, **__: object) -> None:
        raise BlobMissing

    monkeypatch.setattr(api.store, "compose", missing)
    answer = await api.client.post(
        "/prefixes", json={"task_id": "both", "compose": [{"task_id": "e2e"}]}
    )
    error_of(answer, 503, "prefix_unavailable")
