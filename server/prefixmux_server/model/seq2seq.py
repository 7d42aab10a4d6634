"""Forward passes of an encoder-decoder model over a ragged batch. Knows tokens, not requests."""

from __future__ import annotations

from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.prefix import CROSS
from prefixmux_server.model.binding import Binding
from prefixmux_server.model.embedding import InputEmbedding
from prefixmux_server.model.inputs import ForwardInputs, TokenInputs
from prefixmux_server.model.interface import BoundStep
from prefixmux_server.model.positions import PositionSetter

_BIAS = "position_bias"


class Seq2SeqModel:
    """The frozen model: an encoder pass over rows that begin, the decoder over all rows' tokens.

    `embedding` is the encoder's. Takes the loaded module over: it computes no biases any more.
    """

    def __init__(
        self, module: PreTrainedModel, binding: Binding, embedding: InputEmbedding
    ) -> None:
        self._module = module
        self._places = binding.places
        self._embedding = embedding
        self._encoder = module.get_encoder()
        self._encoder_positions = PositionSetter(self._encoder)
        self._decoder_positions = PositionSetter(module.get_decoder())
        self._kept: Tensor | None = None
        module.get_output_embeddings().register_forward_pre_hook(self._keep)
        _spare_biases(binding)
        # Without new states cross attention must still run, and reads what its plan has stored.
        self._no_states = torch.zeros(1, 1, 1, dtype=module.dtype, device=module.device)
        self._stored = _stored_cross(binding.sites[CROSS], module.dtype, module.device)

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs) -> Tensor:
        """As in `SequenceModel`. Raises ValueError for virtual tokens in front of the decoder."""
        if inputs.tokens.embeddings or inputs.tokens.unscaled:
            raise ValueError("virtual tokens run in the encoder")
        step = BoundStep(inputs.plans, self._places)
        device, tokens = self._module.device, inputs.tokens
        if inputs.encoder is None:
            states, cache = self._no_states, self._stored
        else:
            states, cache = self._encode(inputs.encoder, step), None
        self._kept = self._selection(inputs)
        try:
            with self._decoder_positions.positions(tokens.positions, device):
                output = self._module(
                    encoder_outputs=BaseModelOutput(last_hidden_state=states),
                    decoder_input_ids=torch.tensor([tokens.token_ids], device=device),
                    past_key_values=cache,
                    use_cache=False,
                    prefixmux_step=step,
                )
        finally:
            self._kept = None
        return cast(Tensor, output.logits[0])

    def _encode(self, tokens: TokenInputs, step: BoundStep) -> Tensor:
        """`[1, S, hidden]`."""
        with self._encoder_positions.positions(tokens.positions, self._module.device):
            output = self._encoder(**self._embedding.given(tokens), prefixmux_step=step)
        return cast(Tensor, output[0])

    def _selection(self, inputs: ForwardInputs) -> Tensor | None:
        if len(inputs.keep) == len(inputs.tokens.token_ids):
            return None
        return torch.tensor(inputs.keep, dtype=torch.long, device=self._module.device)

    def _keep(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Before the output embedding: it is the dearest layer, and few tokens want logits."""
        return None if self._kept is None else (args[0][:, self._kept], *args[1:])


def _stored_cross(spec: SiteSpec, dtype: torch.dtype, device: torch.device) -> Any:  # noqa: ANN401
    """A cache that tells the decoder that its cross keys are known: they have 0 tokens here.

    Self attention passes through it untouched.
    """
    passing, stored = DynamicLayer(), DynamicLayer()
    passing.update = _pass_on
    stored.is_initialized = True
    stored.keys = torch.empty(1, spec.kv_heads, 0, spec.k_dim, dtype=dtype, device=device)
    stored.values = torch.empty(1, spec.kv_heads, 0, spec.v_dim, dtype=dtype, device=device)
    caches = [Cache(layers=[layer] * spec.layers) for layer in (passing, stored)]
    both = EncoderDecoderCache(*caches)
    both.is_updated = dict.fromkeys(range(spec.layers), True)
    return both


def _pass_on(key: Tensor, value: Tensor, *args: object, **options: object) -> tuple[Tensor, Tensor]:
    return key, value


def _spare_biases(binding: Binding) -> None:
    """Biases are applied by rule, so none of the size of the whole batch squared is made.

    What modules hand to each other and to our attention instead holds nothing.
    """
    for module in binding.places:
        if hasattr(module, "compute_bias"):
            module.compute_bias = _no_bias  # type: ignore[assignment]
        if _BIAS in signature(module.forward).parameters:
            module.register_forward_pre_hook(_give_no_bias, with_kwargs=True)


def _no_bias(*sizes: object, **options: object) -> Tensor:
    return torch.empty(0)


def _give_no_bias(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    return None if kwargs.get(_BIAS) is not None else (args, kwargs | {_BIAS: torch.empty(0)})
