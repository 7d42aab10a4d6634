"""A model's own code over a whole sequence at once, without a cache, by the slow attention."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from support.slow_attention import NAME, Extra, Place, View

Extras = Mapping[str, Sequence[Extra]]


class SlowModel:
    """Of either family. Tokens come as `[T, width]` embeddings or as ids."""

    def __init__(self, folder: Path) -> None:
        config = AutoConfig.from_pretrained(folder)
        self.seq2seq = bool(config.is_encoder_decoder)
        kind = AutoModelForSeq2SeqLM if self.seq2seq else AutoModelForCausalLM
        self.module: PreTrainedModel = kind.from_pretrained(folder, attn_implementation="eager")
        self.module.eval()
        self.module.set_attn_implementation(NAME)
        self._places = _places(self.module)
        self._own: dict[tuple[str, int], Tensor] = {}
        self._positions = torch.arange(0)
        if self.seq2seq:
            table = getattr(self.module.get_decoder(), "embed_positions", None)
            if table is not None:
                table.register_forward_pre_hook(self._tell_positions, with_kwargs=True)

    @torch.inference_mode()
    def run(
        self, tokens: Sequence[int] | Tensor, positions: Tensor, extras: Extras
    ) -> tuple[Tensor, Tensor]:
        """Decoder-only: logits `[T, vocabulary]`, and the tokens' own KV `[L, 2, T, H_kv, D]`."""
        view = View(self._places, extras, {"decoder": positions}, self._own)
        named: dict[str, Any] = (
            {"inputs_embeds": tokens[None]}
            if isinstance(tokens, Tensor)
            else {"input_ids": torch.tensor([list(tokens)])}
        )
        output = self.module(position_ids=positions[None], use_cache=False, slow_view=view, **named)
        return output.logits[0], self.left("decoder")

    @torch.inference_mode()
    def encode(self, tokens: Sequence[int] | Tensor, extras: Extras) -> Tensor:
        """Encoder states `[S, hidden]`. Given as embeddings, tokens enter as they are."""
        view = View(self._places, extras, {"encoder": torch.arange(len(tokens))}, self._own)
        encoder: Any = self.module.get_encoder()
        if isinstance(tokens, Tensor):
            output = encoder(inputs_embeds=tokens[None], slow_view=view)
        else:
            output = encoder(input_ids=torch.tensor([list(tokens)]), slow_view=view)
        return torch.as_tensor(output.last_hidden_state[0])

    @torch.inference_mode()
    def decode(
        self, states: Tensor, tokens: Sequence[int], positions: Tensor, extras: Extras
    ) -> Tensor:
        """Logits `[T, vocabulary]` of an encoder-decoder model's decoder."""
        self._positions = positions
        output = self.module(
            encoder_outputs=(states[None],),
            decoder_input_ids=torch.tensor([list(tokens)]),
            use_cache=False,
            slow_view=View(self._places, extras, {"decoder": positions}, self._own),
        )
        return torch.as_tensor(output.logits[0])

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """`[n, width]`, as the model's (encoder's) embedding module gives them: the scale of
        BART, mBART and Gemma is inside it, that of Pegasus and Marian is not."""
        owner: Any = self.module.get_encoder() if self.seq2seq else self.module
        table = owner.get_input_embeddings()
        return torch.as_tensor(table(torch.tensor(list(ids), dtype=torch.long)))

    def left(self, site: str) -> Tensor:
        """The KV `[L, 2, T, H_kv, D]` that the last pass made of its own tokens at a site."""
        layers = sorted(layer for found, layer in self._own if found == site)
        assert layers == list(range(len(layers)))
        return torch.stack([self._own[site, layer] for layer in layers])

    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Layers, KV heads and head width of each site."""
        if self.seq2seq:
            self.decode(self.encode([3], {}), [3], torch.arange(1), {})
        else:
            self.run([3], torch.arange(1), {})
        shapes = {site: self.left(site).shape for site, _ in self._own}
        return {site: (shape[0], shape[3], shape[4]) for site, shape in shapes.items()}

    def _tell_positions(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """An encoder-decoder model would number its decoder's tokens from 0."""
        return args, {**kwargs, "position_ids": self._positions}


def _places(module: PreTrainedModel) -> dict[nn.Module, Place]:
    """By name: every module inside a numbered layer gets one, only attentions are ever asked."""
    rulers: dict[str, nn.Module] = {}
    places = {}
    for name, part in module.named_modules():
        number = re.search(r"\.(\d+)\.", f"{name}.")
        if number is None:
            continue
        site = _site(name)
        if getattr(part, "has_relative_attention_bias", False):
            rulers[site] = part
        places[part] = Place(site, int(number[1]), rulers.get(site))
    return places


def _site(name: str) -> str:
    if "encoder_attn" in name or "EncDecAttention" in name:
        return "cross"
    return "encoder" if "encoder" in name.split(".") else "decoder"
