"""Token ids that have a meaning in generation, as transformers' own `generate` uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel


@dataclass(frozen=True)
class SpecialTokens:
    """None, or for `eos` nothing, where the model has none. `forced_bos` is the token that comes
    first of all, `forced_eos` the one that takes the place of the last allowed."""

    eos: tuple[int, ...]
    bos: int | None
    decoder_start: int | None
    forced_bos: int | None
    forced_eos: int | None


def special_tokens(module: PreTrainedModel) -> SpecialTokens:
    """Where the generation config has none the model's config is asked; but what is forced stands
    in the generation config alone, which is made of the other where there is no such file."""
    generation = getattr(module, "generation_config", None)
    config = module.config.get_text_config()

    def ids(name: str, *, fall_back: bool = True) -> tuple[int, ...]:
        found: Any = getattr(generation, name, None)
        if found is None and (fall_back or generation is None):
            found = getattr(config, name, None)
        if found is None:
            return ()
        return tuple(found) if isinstance(found, list | tuple) else (int(found),)

    starts = ids("decoder_start_token_id") or ids("bos_token_id")
    return SpecialTokens(
        eos=ids("eos_token_id"),
        bos=_first(ids("bos_token_id")),
        decoder_start=_first(starts) if module.config.is_encoder_decoder else None,
        forced_bos=_first(ids("forced_bos_token_id", fall_back=False)),
        forced_eos=_first(ids("forced_eos_token_id", fall_back=False)),
    )


def _first(ids: tuple[int, ...]) -> int | None:
    """Of several forced ones all score the same, and the lowest wins."""
    return min(ids, default=None)
