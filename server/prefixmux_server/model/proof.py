"""The proof at load time: our ragged steps against the model's own eager code, row by row.

That every layer calls our attention says nothing of biases, caps or positions. So a few rows,
bare and behind random prefixes of different lengths at each site, one far from the start and some
that outgrow the sliding window, run through our memory in staggered steps; the model itself, with
its own attention and cache, must give the same logits for each alone. What is proven is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.memory import KVMemory
from prefixmux_server.model.agreement import TOLERANCE, difference
from prefixmux_server.model.binding import Binding
from prefixmux_server.model.embedding import InputEmbedding, find_factor, width_of
from prefixmux_server.model.errors import UnsupportedModelError, runs_here
from prefixmux_server.model.inputs import SequenceModel
from prefixmux_server.model.reference import own_attention, own_logits
from prefixmux_server.model.rehearsal import run_trials
from prefixmux_server.model.trial import Trial, TrialMaker

MakeMemory = Callable[[Mapping[str, SiteSpec], torch.dtype], KVMemory]

# Of real models it is thousands of tokens: the rule is proven with a small one in its place.
_WINDOW = 6


class Proof:
    """Made while the module is as it was loaded, checked when all that speeds it up is in place.

    `factor` is what the model scales ids by after its embedding module; None: not found, and
    virtual tokens cannot be run.
    """

    def __init__(self, module: PreTrainedModel, binding: Binding) -> None:
        self._name = type(module).__name__
        self._dtype = module.dtype
        self._sites = {site: _narrowed(spec) for site, spec in binding.sites.items()}
        self._embedding = _input_embedding(module)
        self.factor = _factor(module, self._embedding)
        make = TrialMaker(module, binding)
        self._plain = make.plain()
        self._virtual = [] if self.factor is None else make.virtual(self.width)
        with _narrow_window(module), runs_here(self._name):
            trials = self._plain + self._virtual
            self._expected = {trial: own_logits(module, binding, trial) for trial in trials}

    @property
    def width(self) -> int:
        return width_of(self._embedding)

    def embedding(self) -> InputEmbedding:
        return InputEmbedding(self._embedding, self.factor or 1.0)

    def check(self, model: SequenceModel, make_memory: MakeMemory) -> str | None:
        """Raises UnsupportedModelError if any logit differs by more than rounding explains.

        Returns why virtual tokens are not served, or None: they are.
        """
        every = self._plain + self._virtual
        if self._virtual and self._worst(model, make_memory, every) <= TOLERANCE[self._dtype]:
            return None
        worst = self._worst(model, make_memory, self._plain)
        if worst > TOLERANCE[self._dtype]:
            raise UnsupportedModelError(
                f"{self._name} gives other logits behind a prefix than its own code does "
                f"(they differ by {worst:.2%}): this model cannot be served"
            )
        if self.factor is None:
            return "what the model makes of embeddings differs from what it makes of token ids"
        return "beside embeddings the model gives other logits than its own code does"

    def _worst(
        self, model: SequenceModel, make_memory: MakeMemory, trials: Sequence[Trial]
    ) -> float:
        with runs_here(self._name):
            found = run_trials(model, make_memory(self._sites, self._dtype), trials)
        return max(
            difference(ours, self._expected[trial][1:])
            for ours, trial in zip(found, trials, strict=True)
        )


def _input_embedding(module: PreTrainedModel) -> torch.nn.Module:
    stack = module.get_encoder() if module.config.is_encoder_decoder else module
    found: torch.nn.Module = stack.get_input_embeddings()
    return found


def _factor(module: PreTrainedModel, embedding: torch.nn.Module) -> float | None:
    stack = module.get_encoder() if module.config.is_encoder_decoder else module
    with own_attention(module):
        try:
            return find_factor(
                embedding,
                lambda ids: stack(input_ids=ids)[0],
                lambda given: stack(inputs_embeds=given)[0],
                TOLERANCE[module.dtype],
            )
        except (TypeError, ValueError, RuntimeError, AttributeError):  # it takes no embeddings
            return None


@contextmanager
def _narrow_window(module: PreTrainedModel) -> Iterator[None]:
    """The model's own masks read the window from a config at each call; parts may have copies."""
    configs = {id(c): c for m in module.modules() if (c := getattr(m, "config", None)) is not None}
    windows = {key: getattr(config, "sliding_window", None) for key, config in configs.items()}
    for key, window in windows.items():
        if window is not None:
            configs[key].sliding_window = min(window, _WINDOW)
    try:
        yield
    finally:
        for key, window in windows.items():
            if window is not None:
                configs[key].sliding_window = window


def _narrowed(spec: SiteSpec) -> SiteSpec:
    rules = (
        r if r.window is None else replace(r, window=min(r.window, _WINDOW)) for r in spec.rules
    )
    return replace(spec, rules=tuple(rules))
