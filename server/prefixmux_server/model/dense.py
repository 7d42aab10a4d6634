"""The dense layers of a model on a CPU: packed once for oneDNN, activations fused into them.

Owns the exchange of modules inside a loaded model, in place, and its proof: a layer that does not
give the old layer's answer on trial inputs stays as it was, and the report says so. Knows nothing
of architectures. Packed weights are opaque to numpy and `state_dict`: whatever reads weights
(fingerprint, saving) runs before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from inspect import signature
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from prefixmux_server.model.activations import PostOp, one_kernel, post_op

# Rows of the trial inputs: oneDNN picks other kernels for one, two and many.
_TRIAL_ROWS = (1, 2, 32)
# Largest difference, of the largest value: rounding of the type, summed in another order.
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@dataclass
class DenseReport:
    """What `optimise` did, by module name.

    `kept` says why a linear layer was left as it was. `fused` maps a linear layer to the activation
    it took over, `replaced` are activations that became one kernel. `batch_invariant`: every packed
    layer gave a row the same bits whatever the number of rows.
    """

    packed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    dropouts: int = 0
    batch_invariant: bool = True


class PackedLinear(nn.Module):
    """`post(x W^T + b)` for W `[out, in]`, W in oneDNN's own layout.

    A row's bits do not depend on the rows beside it: a single row is computed as two equal ones,
    since oneDNN's kernel for one row sums in another order. `weight` is empty and carries dtype
    and device, which models read; computing with it fails.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, post: PostOp | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.post = post or PostOp()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() != self.in_features:
            return self._apply_packed(x)
        y = self._apply_packed(x.reshape(1, -1).expand(2, -1))
        return y[0].view(*x.shape[:-1], self.out_features)

    def _apply_packed(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self.bias, self.post.attr, [], self.post.algorithm
        )
        return y

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.post.attr} {self.post.algorithm}"


@torch.no_grad()
def optimise(model: nn.Module, *, dtype: torch.dtype, device: torch.device) -> DenseReport:
    """Exchange what has a faster equal on this CPU; `model` is loaded, final and in eval mode.

    Old weights are released one by one; a weight that something else holds too (a tied embedding)
    then exists twice. On another device, or for another `dtype`, nothing is exchanged.
    """
    report = DenseReport()
    refusal = _refusal(dtype, device)
    for name in _names(model, nn.Linear, Conv1D):
        reason = refusal or _pack(model, name, report)
        if reason is not None:
            report.kept[name] = reason
    if refusal is None:
        _exchange_activations(model, report)
        _drop_dropouts(model, report)
    return report


def _refusal(dtype: torch.dtype, device: torch.device) -> str | None:
    """Why nothing can be packed here; None if packing can be tried."""
    if device.type != "cpu":
        return f"device is {device.type}"
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch has no packed oneDNN layers"
    supported = dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return None if supported else f"oneDNN has no fast {dtype} on this CPU"


def _names(model: nn.Module, *types: type[nn.Module]) -> list[str]:
    """Names, not modules: a list of those would keep every old weight alive to the end."""
    modules = model.named_modules(remove_duplicate=False)
    return [name for name, module in modules if type(module) in types]


def _pack(model: nn.Module, name: str, report: DenseReport) -> str | None:
    """Exchange one linear layer; returns why not, if not."""
    module = model.get_submodule(name)
    weight = cast(Tensor, module.weight)
    bias = cast("Tensor | None", module.bias)
    if type(module) is Conv1D:
        weight = weight.t()
    if weight.dtype not in _TOLERANCE:
        return f"its weight is {weight.dtype}"
    try:
        packed = PackedLinear(weight, bias)
        answers = [packed(_trial(weight, rows)) for rows in _TRIAL_ROWS]
    except RuntimeError as error:
        return f"oneDNN refuses it: {type(error).__name__}"
    expected = linear(_trial(weight, _TRIAL_ROWS[-1]), weight, bias)
    if not all(_close(answer, expected[: len(answer)]) for answer in answers):
        return "its packed form gives other results"
    report.batch_invariant &= all(torch.equal(a, answers[-1][: len(a)]) for a in answers)
    report.packed.append(name)
    model.set_submodule(name, packed)
    return None


def _trial(like: Tensor, rows: int) -> Tensor:
    """The first rows of one fixed random input for weights `[out, in]`."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_TRIAL_ROWS[-1], like.shape[1], generator=generator).to(like.dtype)[:rows]


def _close(found: Tensor, expected: Tensor) -> bool:
    worst = (found.float() - expected.float()).abs().max()
    return bool(worst <= _TOLERANCE[expected.dtype] * expected.float().abs().max())


def _exchange_activations(model: nn.Module, report: DenseReport) -> None:
    for parent_name, parent in list(model.named_modules()):
        for child_name, child in list(parent.named_children()):
            name = f"{parent_name}.{child_name}".lstrip(".")
            layer = _feeding_layer(parent, child_name)
            if layer is not None:
                report.fused[f"{parent_name}.{layer}".lstrip(".")] = name
            elif (faster := one_kernel(child)) is not None:
                setattr(parent, child_name, faster)
                report.replaced.append(name)


def _feeding_layer(parent: nn.Module, activation: str) -> str | None:
    """Fuse the activation into the packed layer that feeds it alone; None, nothing done, if none.

    Which layer that is, and that its output goes nowhere else, is seen from the parent's answers:
    they stay the same when that layer applies the activation, and the activation nothing.
    """
    post = post_op(getattr(parent, activation))
    if post is None or len(signature(parent.forward).parameters) != 1:
        return None
    for name, layer in parent.named_children():
        if isinstance(layer, PackedLinear) and _fuse(parent, activation, layer, post):
            return name
    return None


def _fuse(parent: nn.Module, activation: str, layer: PackedLinear, post: PostOp) -> bool:
    kept = (getattr(parent, activation), layer.post)
    x = _trial(layer.weight.new_empty(0, layer.in_features), _TRIAL_ROWS[-1])
    fused = False
    try:
        expected = parent(x)
        setattr(parent, activation, nn.Identity())
        needed = not _close(parent(x), expected)
        layer.post = post
        fused = needed and _close(parent(x), expected)
    except RuntimeError:  # x has another layer's width
        pass
    finally:
        if not fused:
            setattr(parent, activation, kept[0])
            layer.post = kept[1]
    return fused


def _drop_dropouts(model: nn.Module, report: DenseReport) -> None:
    for name in _names(model, nn.Dropout):
        model.set_submodule(name, nn.Identity())
        report.dropouts += 1
