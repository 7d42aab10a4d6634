"""How many log-probabilities one call may be answered with: each is some sixty bytes of JSON, and
they grow by the product of outputs, tokens and likely ones.
"""

from __future__ import annotations

from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.errors import InvalidParameter

# Of one call: 24 MB while it runs, about 120 MB of answer. A prompt of 100,000 tokens with twenty
# likely ones each fits, and 256 rows of 2,000 tokens with three.
MAX_NUMBERS = 1 << 21


def check_numbers(sampling: SamplingParams, prompt_tokens: int, rows: int) -> None:
    """`prompt_tokens`: those of the decoder; `rows`: so many share what one call may ask for.

    Raises `InvalidParameter`.
    """
    generated = sampling.n * sampling.max_new_tokens * _each(sampling.logprobs)
    prompt = prompt_tokens * _each(sampling.prompt_logprobs)
    if generated + prompt <= MAX_NUMBERS // rows:
        return
    name = "logprobs" if generated > prompt else "prompt_logprobs"
    fewer = ", or send fewer rows at once" if rows > 1 else ""
    raise InvalidParameter(
        f"There may be {MAX_NUMBERS // rows} log-probabilities here, of all tokens and their likely"
        f" ones; these are {generated + prompt}: ask for fewer{fewer}.",
        param=f"parameters.{name}",
    )


def _each(top: int | None) -> int:
    """Of a token: its own and the likely ones'."""
    return 0 if top is None else top + 1
