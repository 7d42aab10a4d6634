"""What an attention module does to its scores, read from what it calls its attention with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from prefixmux_server.attention.rules import RelativeBias, ScoreRules
from prefixmux_server.model.errors import UnsupportedModelError

# What attention need not know: nothing is dropped at inference, positions are in the keys already,
# what is causal shows in the proof, and the rest is about what the model returns.
_INERT = frozenset(
    {"dropout", "is_causal", "position_ids", "cache_position"}
    | {"use_cache", "output_attentions", "output_hidden_states", "return_dict"}
)
_KNOWN = frozenset({"sliding_window", "softcap", "position_bias"})
# Distances at which a bias is looked at; one that still changes in the farther half is refused.
_HORIZON = 1 << 14


def score_rules(
    module: nn.Module, features: Mapping[str, object], biases: dict[int, RelativeBias]
) -> ScoreRules:
    """`biases` holds what is known of bias tensors by identity: layers that share one share rules.

    Raises UnsupportedModelError for a feature that is not implemented.
    """
    given = {name for name, value in features.items() if value is not None and value is not False}
    unknown = given - _INERT - _KNOWN
    if unknown:
        raise UnsupportedModelError(
            f"{type(module).__name__} needs {', '.join(sorted(unknown))}, which is not implemented"
        )
    window = cast("int | None", features.get("sliding_window"))
    softcap = cast("float | None", features.get("softcap"))
    return ScoreRules(
        window=None if window is None else int(window),
        softcap=None if softcap is None else float(softcap),
        bias=_bias(module, cast("Tensor | None", features.get("position_bias")), biases),
    )


def _bias(
    module: nn.Module, computed: Tensor | None, biases: dict[int, RelativeBias]
) -> RelativeBias | None:
    """The rule behind a bias `[1, H, Q, S]` that the module came up with; None where it is zero."""
    if computed is None or not bool(computed.any()):
        return None
    if id(computed) not in biases:
        bias = _by_distance(module)
        queries, keys = computed.shape[-2:]
        distance = torch.arange(keys)[None, :] - torch.arange(queries)[:, None]
        index = (distance.clamp(-bias.reach, bias.reach) + bias.reach).to(computed.device)
        if not torch.equal(bias.table[:, index], computed[0]):
            raise UnsupportedModelError(
                f"{type(module).__name__} adds a bias to its scores that is not one by distance"
            )
        biases[id(computed)] = bias
    return biases[id(computed)]


@torch.no_grad()
def _by_distance(module: nn.Module) -> RelativeBias:
    """The module's own function over one row of distances, as far as it changes."""
    compute = getattr(module, "compute_bias", None)
    if compute is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} adds a bias to its scores that cannot be computed alone"
        )
    before = cast(Tensor, compute(_HORIZON, 1))[0, :, :, 0]
    after = cast(Tensor, compute(1, _HORIZON))[0, :, 0, :]
    reach = max(_settled(before), _settled(after), 1)
    if reach > _HORIZON // 2:
        raise UnsupportedModelError(
            f"{type(module).__name__} adds a bias to its scores that changes with every distance"
        )
    table = torch.cat([before[:, 1 : reach + 1].flip(1), after[:, : reach + 1]], dim=1)
    return RelativeBias(table.contiguous())


def _settled(values: Tensor) -> int:
    """From which distance on `values` `[H, distances]` no longer change."""
    changing = (values != values[:, -1:]).any(0).nonzero()
    return int(changing[-1]) + 1 if len(changing) else 0
