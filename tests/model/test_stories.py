"""Whole requests through the model wrappers, joining and leaving a ragged batch, over plain lists.

What they say must be what transformers' own `generate` says for each of them alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from model.configs import CAUSAL, EVERY, SEQ2SEQ
from model.conftest import Saved
from model.stories import Story, Told, bound
from support.models import EOS, VOCABULARY
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from prefixmux_server.model.inputs import ForwardInputs, TokenInputs

NEW = 7


def ids(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, VOCABULARY) for _ in range(count)]


def staggered(family: str) -> list[Story]:
    """Rows that join in different steps, take chunks of different sizes, and end apart."""
    if family in SEQ2SEQ:
        start = 0 if "t5" in family else 2
        return [
            Story([start], NEW, ids(6, 1), eos=EOS),
            Story([start, *ids(3, 2)], NEW, ids(1, 3), joins=1, chunk=2, eos=EOS),
            Story([start], NEW, ids(30, 4), joins=1, eos=EOS),
            Story([start], 3, ids(11, 5), joins=3, eos=EOS),
        ]
    return [
        Story(ids(6, 1), NEW, chunk=4, eos=EOS),
        Story(ids(1, 2), NEW, joins=1, eos=EOS),
        Story(ids(25, 3), NEW, joins=1, chunk=10, eos=EOS),
        Story(ids(12, 4), 3, joins=4, chunk=5, eos=EOS),
    ]


def generated(model: PreTrainedModel, story: Story) -> tuple[list[int], torch.Tensor]:
    """By transformers alone: tokens, and the raw logits that they were chosen from."""
    prompt = torch.tensor([list(story.ids)])
    given: dict[str, Any] = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    if story.encoder_ids:
        read = torch.tensor([list(story.encoder_ids)])
        given = {
            "input_ids": read,
            "attention_mask": torch.ones_like(read),
            "decoder_input_ids": prompt,
        }
    # Its cache breaks where a T5 has more decoder layers than encoder layers.
    output = model.generate(
        **given,
        max_new_tokens=story.count,
        do_sample=False,
        use_cache=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    said: list[int] = output.sequences[0, len(story.ids) :].tolist()
    return said, torch.cat(output.logits)


def check(told: Told, expected: tuple[list[int], torch.Tensor]) -> None:
    tokens, logits = expected
    assert told.tokens == tokens
    torch.testing.assert_close(torch.stack(told.logits), logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EVERY)
def test_staggered_rows_say_what_generate_says(family: str, saved: Saved) -> None:
    folder = saved(family)
    kind = AutoModelForSeq2SeqLM if family in SEQ2SEQ else AutoModelForCausalLM
    reference = kind.from_pretrained(folder, attn_implementation="eager").eval()
    stories = staggered(family)
    teller, _ = bound(folder)
    answers = teller.tell(stories)
    for story, told in zip(stories, answers, strict=True):
        check(told, generated(reference, story))
    assert len({token for told in answers for token in told.tokens}) > 2, "the text must vary"


@pytest.mark.parametrize("family", SEQ2SEQ)
class TestCrossAttention:
    def test_keys_are_computed_when_a_row_begins_and_never_again(
        self, family: str, saved: Saved
    ) -> None:
        teller, binding = bound(saved(family))
        computed = count_key_projections(
            [module for module, (site, _) in binding.places.items() if site == "cross"]
        )
        stories = staggered(family)
        teller.tell(stories)
        beginnings = len({story.joins for story in stories})
        assert len(computed) == beginnings * binding.sites["cross"].layers
        assert len(teller.asked) > beginnings

    def test_the_plan_is_asked_with_new_encoder_tokens_only(
        self, family: str, saved: Saved
    ) -> None:
        teller, binding = bound(saved(family))
        stories = staggered(family)
        teller.tell(stories)
        layers = binding.sites["cross"].layers
        for step, plans in enumerate(teller.asked):
            new = sum(len(s.encoder_ids) for s in stories if s.joins == step)
            assert [keys for _, keys in plans["cross"].sizes] == [new] * layers
            assert [keys for _, keys in plans["encoder"].sizes] == [new] * (2 if new else 0)


def count_key_projections(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Grows by one with every call of one of their key projections."""
    calls: list[nn.Module] = []
    for module in modules:
        [projection] = [child for name, child in module.named_children() if name in ("k", "k_proj")]
        projection.register_forward_hook(lambda module, *_: calls.append(module))
    return calls


def test_no_bias_of_the_size_of_the_batch_squared_is_made(saved: Saved) -> None:
    """T5's own code makes `[1, H, T, T]` per stack and `[1, H, T, S]` for cross attention."""
    teller, binding = bound(saved("t5"))
    heads, read, start, rows = binding.sites["encoder"].heads, 24, 12, 6
    stories = [Story([0, *ids(start - 1, n)], 1, ids(read, n), chunk=start) for n in range(rows)]
    with Largest() as largest:  # type: ignore[no-untyped-call]
        teller.tell(stories)
    assert largest.elements < heads * (rows * start) ** 2 < heads * (rows * start) * (rows * read)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The size of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@pytest.mark.parametrize("family", EVERY)
def test_prefixes_at_every_site(family: str, saved: Saved) -> None:
    """Rows with other prefixes, and with none, in one batch say what they say alone."""
    teller, binding = bound(saved(family))
    generator = torch.Generator().manual_seed(7)

    def prefix(site: str, tokens: int) -> torch.Tensor:
        spec = binding.sites[site]
        shape = (spec.layers, 2, tokens, spec.kv_heads, spec.k_dim)
        return torch.randn(shape, generator=generator)

    stories = staggered(family)
    tasks = [
        {site: prefix(site, 3 + number) for number, site in enumerate(binding.sites)},
        {},
        {"decoder": prefix("decoder", 9)},
        {site: prefix(site, 2) for site in list(binding.sites)[-1:]},
    ]
    offsets = [len(task["decoder"][0, 0]) if "decoder" in task else 0 for task in tasks]
    offsets[2] = 0
    told = [
        Story(s.ids, s.count, s.encoder_ids, task, offset, joins=s.joins, chunk=s.chunk)
        for s, task, offset in zip(stories, tasks, offsets, strict=True)
    ]
    together = teller.tell(told)
    bare = teller.tell(stories)
    for number, story in enumerate(told):
        [alone] = teller.tell([story])
        assert together[number].tokens == alone.tokens
        torch.testing.assert_close(
            torch.stack(together[number].logits), torch.stack(alone.logits), atol=2e-4, rtol=1e-4
        )
        changed = not torch.allclose(alone.logits[0], bare[number].logits[0], atol=1e-4)
        assert changed == bool(tasks[number])


@pytest.mark.parametrize("family", CAUSAL)
def test_embeddings_in_front_are_the_prefix_that_they_leave_behind(
    family: str, saved: Saved
) -> None:
    teller, binding = bound(saved(family))
    folder_width = teller.model._embedding._module.weight.shape[1]  # type: ignore[attr-defined]
    virtual = torch.randn(5, folder_width, generator=torch.Generator().manual_seed(3))
    prompt = ids(8, 1)
    plain = Story(ids(4, 2), 5, eos=EOS)
    told = teller.tell([Story(prompt, 5, virtual=virtual, chunk=4), plain])
    reference = AutoModelForCausalLM.from_pretrained(
        saved(family), attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        real = reference.get_input_embeddings()(torch.tensor([prompt]))
        output = reference(inputs_embeds=torch.cat([virtual[None], real], dim=1))
    torch.testing.assert_close(told[0].logits[0], output.logits[0, -1], atol=2e-4, rtol=1e-4)
    assert len(binding.sites) == 1
    check(told[1], generated(reference, plain))


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_embeddings_in_front_of_an_encoder(family: str, saved: Saved) -> None:
    """As PEFT gives them: beside them Pegasus and Marian leave real tokens unscaled."""
    teller, _ = bound(saved(family))
    reference = AutoModelForSeq2SeqLM.from_pretrained(
        saved(family), attn_implementation="eager"
    ).eval()
    start = 0 if "t5" in family else 2
    virtual = torch.randn(6, 32, generator=torch.Generator().manual_seed(3))
    read = ids(5, 1)
    with torch.inference_mode():
        real = reference.get_encoder().get_input_embeddings()(torch.tensor([read]))
        output = reference(
            inputs_embeds=torch.cat([virtual[None], real], dim=1),
            decoder_input_ids=torch.tensor([[start]]),
        )
    plain = Story([start], NEW, ids(9, 2), eos=EOS)
    told = teller.tell([Story([start], 4, read, virtual=virtual), plain])
    torch.testing.assert_close(told[0].logits[0], output.logits[0, -1], atol=2e-4, rtol=1e-4)
    check(told[1], generated(reference, plain))


def test_virtual_tokens_in_front_of_a_decoder_that_has_an_encoder(saved: Saved) -> None:
    teller, _ = bound(saved("bart"))
    virtual = TokenInputs([0, 2], [0, 1], {0: torch.zeros(1, 32)})
    with pytest.raises(ValueError, match="run in the encoder"):
        teller.model.forward(ForwardInputs(virtual, [1], {}))
