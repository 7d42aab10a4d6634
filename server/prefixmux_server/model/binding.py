"""Hugging Face models bound to our attention: one registered function, sites found by a dry run.

The model code stays unchanged. Everything a step needs rides through the forward call as the
keyword `prefixmux_step`, so there is no global context. A name that has no entry in the mask
registry makes transformers build no mask at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.prefix import DECODER
from prefixmux_server.model.errors import UnsupportedModelError

ATTENTION_NAME = "prefixmux"


class ModuleAttention(Protocol):
    """Attends on behalf of one attention module of the model."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Tensors as in `StepPlan.attend`."""
        ...


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    prefixmux_step: ModuleAttention | None = None,
    **features: object,
) -> tuple[Tensor, None]:
    """What every attention module of the model calls; `[1, H, T, D]` in, `[1, T, H, D]` out."""
    _refuse_unsupported(module, attention_mask, features)
    if prefixmux_step is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} drops keyword arguments on their way to its attention"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = prefixmux_step.attend(module, query[0], key[0], value[0], float(scale))
    return out.unsqueeze(0), None


def _refuse_unsupported(
    module: nn.Module, mask: Tensor | None, features: Mapping[str, object]
) -> None:
    wanted = ("sliding_window", "softcap", "s_aux", "position_bias")
    present = [name for name in wanted if features.get(name) is not None]
    if mask is not None:
        present.append("attention_mask")
    if present:
        raise UnsupportedModelError(
            f"{type(module).__name__} needs {', '.join(present)}, which is not implemented"
        )


def register_attention() -> None:
    """Make the name known to transformers; doing so again changes nothing."""
    AttentionInterface.register(ATTENTION_NAME, _attention)


@dataclass(frozen=True)
class Binding:
    """The model's decoder self-attention: its shape, and which module is which layer."""

    spec: SiteSpec
    layers: Mapping[nn.Module, int]


class _Recorder:
    """Plain causal attention over the call's own tokens, writing down who asked for it."""

    def __init__(self) -> None:
        self.calls: list[tuple[nn.Module, tuple[int, int, int, int]]] = []

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        shape = (query.shape[0], key.shape[0], key.shape[2], value.shape[2])
        self.calls.append((module, shape))
        out = scaled_dot_product_attention(
            query[None], key[None], value[None], is_causal=True, scale=scaling, enable_gqa=True
        )
        return out[0].transpose(0, 1)


def bind(model: PreTrainedModel) -> Binding:
    """Find the attention sites by running two tokens; layers are numbered by call order.

    Raises UnsupportedModelError if any layer escapes our attention: transformers only logs a
    warning for models that do not use its attention interface.
    """
    recorder = _Recorder()
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    positions = torch.arange(2, device=model.device)[None]
    with torch.inference_mode():
        _call(model, ids, positions, recorder)
    modules = [module for module, _ in recorder.calls]
    expected = int(model.config.get_text_config().num_hidden_layers)
    name = type(model).__name__
    if len(modules) != expected or len(set(modules)) != expected:
        raise UnsupportedModelError(
            f"{name} has {expected} layers, but {len(set(modules))} of them use the attention "
            "interface of transformers: this model cannot be served"
        )
    shapes = {shape for _, shape in recorder.calls}
    if len(shapes) != 1:
        raise UnsupportedModelError(f"{name} has layers of different head shapes")
    heads, kv_heads, k_dim, v_dim = shapes.pop()
    spec = SiteSpec(DECODER, expected, heads, kv_heads, k_dim, v_dim)
    return Binding(spec, {module: layer for layer, module in enumerate(modules)})


def _call(model: PreTrainedModel, ids: Tensor, positions: Tensor, step: ModuleAttention) -> None:
    try:
        model(input_ids=ids, position_ids=positions, use_cache=False, prefixmux_step=step)
    except UnsupportedModelError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot run a ragged batch: {type(error).__name__}"
        ) from error
