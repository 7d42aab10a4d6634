"""How far a model's tables reach: ids and positions beyond them do not exist."""

from __future__ import annotations

from transformers import PreTrainedModel


def positions_of(module: PreTrainedModel) -> int | None:
    """Of each side, if it has two; None: no limit is known."""
    limit = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else int(limit)


def vocabulary_of(module: PreTrainedModel) -> int:
    """Ids below it may stand anywhere: in the input, and in a decoder with an embedding of its own.

    Tables may be padded beyond the vocabulary.
    """
    sizes = [int(module.config.get_text_config().vocab_size)]
    if module.config.is_encoder_decoder:
        stacks = (module.get_encoder(), module.get_decoder())
        sizes += [int(stack.get_input_embeddings().weight.shape[0]) for stack in stacks]
    return min(sizes)
