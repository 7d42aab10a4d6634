"""Packed dense layers give the model's own answers, and a row's bits do not depend on the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.gpt2 import GPT2Config
from transformers.models.gpt_neox import GPTNeoXConfig
from transformers.models.llama import LlamaConfig
from transformers.models.opt import OPTConfig
from transformers.models.phi import PhiConfig
from transformers.models.qwen2 import Qwen2Config
from transformers.models.t5 import T5Config
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration
from transformers.pytorch_utils import Conv1D

from prefixmux_server.model.dense import DenseReport, PackedLinear, optimise

CPU = torch.device("cpu")
_COMMON = {"vocab_size": 101, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
_WIDE = {
    **_COMMON,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
}

CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2Config(
        vocab_size=101, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1
    ),
    "opt": lambda: OPTConfig(
        **_COMMON,
        hidden_size=32,
        word_embed_proj_dim=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=80,
    ),
    "llama": lambda: LlamaConfig(**_WIDE, num_key_value_heads=2),
    "qwen2": lambda: Qwen2Config(**_WIDE, num_key_value_heads=2, tie_word_embeddings=True),
    "gpt_neox": lambda: GPTNeoXConfig(**_WIDE),
    "phi": lambda: PhiConfig(**_WIDE),
}
FUSED_LAYER = {"gpt2": "c_fc", "gpt_neox": "dense_h_to_4h", "phi": "fc1"}


def build(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture]()).eval()
    for parameter in model.parameters():  # far from zero, so that tokens and activations differ
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.15)
    return model


def optimised(model: nn.Module, dtype: torch.dtype = torch.float32) -> DenseReport:
    return optimise(model, dtype=dtype, device=CPU)


@torch.no_grad()
def greedy(model: PreTrainedModel, ids: Tensor, steps: int) -> list[Tensor]:
    logits = []
    for _ in range(steps):
        logits.append(model(input_ids=ids).logits[:, -1])
        ids = torch.cat((ids, logits[-1].argmax(-1, keepdim=True)), dim=1)
    return [*logits, ids]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if request.param is torch.bfloat16 and not supported:
        pytest.skip("this CPU has no bfloat16 in oneDNN")
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_logits_and_greedy_tokens_are_those_of_the_unchanged_model(architecture: str) -> None:
    model = build(architecture)
    ids = torch.randint(3, 101, (3, 7), generator=torch.Generator().manual_seed(1))
    *expected, tokens = greedy(model, ids, 8)
    report = optimised(model)
    *found, found_tokens = greedy(model, ids, 8)
    assert not report.kept
    assert report.batch_invariant
    assert torch.equal(found_tokens, tokens)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_no_plain_linear_layer_is_left_and_old_weights_are_released(architecture: str) -> None:
    model = build(architecture)
    before = {name for name, m in model.named_modules() if type(m) in (nn.Linear, Conv1D)}
    embedding = model.get_input_embeddings().weight
    report = optimised(model)
    assert set(report.packed) == before
    assert {"lm_head", "embed_out"} & set(report.packed)
    assert not any(type(m) in (nn.Linear, Conv1D) for m in model.modules())
    assert model.get_input_embeddings().weight is embedding
    matrices = [name for name, p in model.named_parameters() if p.ndim == 2]
    assert all("emb" in name or "wte" in name or "wpe" in name for name in matrices)


@pytest.mark.parametrize("architecture", FUSED_LAYER)
def test_the_activation_is_fused_into_the_layer_that_feeds_it(architecture: str) -> None:
    report = optimised(build(architecture))
    assert [name.split(".")[-1] for name in report.fused] == [FUSED_LAYER[architecture]] * 2
    assert not report.replaced


def test_dropouts_vanish() -> None:
    model = build("gpt2")
    count = sum(type(m) is nn.Dropout for m in model.modules())
    assert optimised(model).dropouts == count > 0
    assert not any(type(m) is nn.Dropout for m in model.modules())


@pytest.mark.parametrize("shape", [(3072, 768), (96, 200), (51, 37)], ids=str)
@torch.no_grad()
def test_a_row_has_the_same_bits_in_every_batch(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs, outputs = shape
    packed = PackedLinear(torch.randn(outputs, inputs).to(dtype), torch.randn(outputs).to(dtype))
    x = torch.randn(512, inputs).to(dtype)
    whole = packed(x)
    for rows in (1, 2, 3, 5, 8, 13, 16, 32, 33, 64, 100):
        for first in (0, 17):
            assert torch.equal(packed(x[first : first + rows]), whole[first : first + rows])


@torch.no_grad()
def test_a_packed_layer_keeps_leading_dimensions_and_takes_strided_and_no_rows(
    dtype: torch.dtype,
) -> None:
    weight = torch.randn(6, 4).to(dtype)
    packed = PackedLinear(weight, None)
    x = torch.randn(5, 4).to(dtype)
    strided = x.t().contiguous().t()
    assert torch.equal(packed(strided), packed(x))
    assert torch.equal(packed(x[None, :, None]), packed(x)[None, :, None])
    assert packed(x[None, :1]).shape == (1, 1, 6)
    assert packed(x[:0]).shape == (0, 6)
    assert packed.weight.dtype == dtype
    torch.testing.assert_close(packed(x), linear(x, weight), rtol=2e-2, atol=2e-2)


class Gated(nn.Module):
    """An MLP whose first layer feeds the activation and something else too."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 16)
        self.act = nn.GELU(approximate="tanh")
        self.down = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        return self.down(up + self.act(up))  # type: ignore[no-any-return]


class Silent(nn.Module):
    """An MLP whose answers do not show its activation: nothing can be proven."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 16)
        self.act = nn.GELU(approximate="tanh")
        self.down = nn.Linear(16, 16)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Gated, Silent])
@torch.no_grad()
def test_an_activation_that_cannot_be_proven_fusible_stays(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind()
    activation = model.act
    x = torch.randn(3, 16)
    expected = model(x)
    report = optimised(model)
    assert not report.fused
    assert model.act is activation
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_a_slow_gelu_without_a_feeding_layer_becomes_one_kernel() -> None:
    model = build("gpt2")
    model.add_module("spare", type(model.transformer.h[0].mlp.act)())
    report = optimised(model)
    assert report.replaced == ["spare"]
    x = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(model.spare(x), gelu(x, approximate="tanh"))


class Rescaled(nn.Linear):
    """Not exactly a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_subclasses_are_not_exchanged() -> None:
    model = nn.Sequential(Rescaled(4, 4))
    report = optimised(model)
    assert not report.packed
    assert type(model[0]) is Rescaled


def test_a_layer_that_oneDNN_gets_wrong_stays_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: N802
    honest = PackedLinear.forward
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: honest(self, x) * 1.01)
    model = nn.Sequential(nn.Linear(8, 8))
    layer = model[0]
    report = optimised(model)
    assert report.kept == {"0": "its packed form gives other results"}
    assert model[0] is layer


@pytest.mark.parametrize(
    ("dtype", "device", "reason"),
    [
        (torch.float16, "cpu", "oneDNN has no fast torch.float16 on this CPU"),
        (torch.float32, "cuda", "device is cuda"),
    ],
)
def test_nothing_is_exchanged_elsewhere_and_the_report_says_why(
    dtype: torch.dtype, device: str, reason: str
) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout())
    layers = list(model)
    report = optimise(model, dtype=dtype, device=torch.device(device))
    assert report.kept == {"0": reason}
    assert list(model) == layers
    assert not report.dropouts


@torch.no_grad()
def test_t5_reads_the_dtype_of_a_packed_weight() -> None:
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    model = T5ForConditionalGeneration(config).eval()
    ids = torch.arange(3, 9)[None]
    expected = model(input_ids=ids, decoder_input_ids=ids).logits
    report = optimised(model)
    assert not report.kept
    found = model(input_ids=ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
