"""Random mixed batches: requests that join, load, run in chunks, are aborted, and what they say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.model.load import LoadedModel
from support.alone import Alone, alone
from support.engines import Answers, DictSource, HeldExecutor, make_engine, submit
from support.models import EOS, random_prefix


@dataclass(frozen=True)
class Question:
    """One prompt behind one prefix (None: the bare model), and the truth about it."""

    input_ids: tuple[int, ...]
    digest: str | None
    truth: Alone

    def submit(self, request_id: str, **options: Any) -> Submit:
        prefixes = () if self.digest is None else (self.digest,)
        return submit(request_id, self.input_ids, prefixes=prefixes, **options)


@dataclass(frozen=True)
class Pool:
    """A model, prefixes in memory, and questions whose answers are known."""

    loaded: LoadedModel
    prefixes: Mapping[str, torch.Tensor]
    questions: Sequence[Question]

    def source(self) -> DictSource:
        source = DictSource()
        for digest, kv in self.prefixes.items():
            source.add(digest, kv)
        return source

    @property
    def largest(self) -> int:
        """Tokens that the longest prefix has."""
        return max(kv.shape[2] for kv in self.prefixes.values())


def make_pool(
    loaded: LoadedModel,
    reference: PreTrainedModel,
    lengths: Sequence[int],
    *,
    prompts: int = 6,
    each: int = 3,
    tokens: int = 20,
    seed: int = 0,
) -> Pool:
    """Each prompt bare and behind `each` prefixes; the same length twice is two contents."""
    rng = random.Random(seed)
    # Twice the usual scale: a single virtual token before a long prompt has to show too.
    kv = {
        f"{n}x{length}": random_prefix(loaded, length, n + 1, 2.0)
        for n, length in enumerate(lengths)
    }
    questions = []
    for _ in range(prompts):
        ids = tuple(
            rng.randrange(3, loaded.vocabulary) for _ in range(rng.choice((1, 3, 8, 21, 40)))
        )
        for digest in (None, *rng.sample(sorted(kv), each)):
            truth = alone(reference, ids, tokens, None if digest is None else kv[digest])
            questions.append(Question(ids, digest, truth))
    return Pool(loaded, kv, questions)


@dataclass
class Mix:
    """One random batch's life. `rng` decides everything: limits, order, loads, aborts."""

    pool: Pool
    layout: LayoutName
    rng: random.Random
    requests: int
    asked: dict[str, tuple[Question, Submit]] = field(default_factory=dict)
    aborted: set[str] = field(default_factory=set)
    answers: Answers = field(default_factory=Answers)

    def run(self) -> Mix:
        rng, loads = self.rng, HeldExecutor()
        room = self.pool.largest + 64
        parts = make_engine(
            self.pool.loaded,
            self.layout,
            source=self.pool.source(),
            capacity=rng.choice((2 * room, 8 * room, 32 * room)),
            rows=rng.randrange(2, 25),
            tokens=rng.choice((3, 7, 16, 33, 64, 2048)),
            host_bytes=self._bytes(rng.choice((1, 2, 50))),
            device_bytes=self._bytes(rng.choice((1, 2, 50))),
            executor=loads,
        )
        while len(self.asked) < self.requests or parts.engine.has_work:
            for _ in range(min(rng.randrange(4), self.requests - len(self.asked))):
                parts.engine.submit(self._ask())
            if rng.random() < 0.6:
                loads.run_all()
            self.answers.step(parts.engine)
            for request_id in [r for r in self._open() if rng.random() < 0.01]:
                parts.engine.abort(request_id)
                self.aborted.add(request_id)
        parts.engine.check_integrity()
        return self

    def check(self) -> int:
        """Assert that every answer is the truth; returns how many tokens were compared."""
        compared = 0
        for request_id, (question, request) in self.asked.items():
            eos = () if request.sampling.ignore_eos else (EOS,)
            truth = question.truth.upto(request.sampling.max_new_tokens, eos)
            found = tuple(self.answers.tokens.get(request_id, ()))
            if request_id in self.aborted:
                truth = truth[: len(found)]
            else:
                self._check_end(request_id, request)
            assert found[: len(truth)] == truth, (request_id, question.digest)
            compared += len(truth)
        return compared

    def _check_end(self, request_id: str, request: Submit) -> None:
        finished = self.answers.finished[request_id]
        found = self.answers.tokens[request_id]
        assert finished.error is None
        assert finished.prefixes == request.prefixes
        if request.sampling.prompt_logprobs:
            told = self.answers.prompts.get(request_id, [])
            assert [one.token_id for one in told] == list(request.input_ids[1:])
        if request.sampling.logprobs:
            said = self.answers.logprobs[request_id, 0]
            assert [one.top[0].token_id for one in said] == found, "greedy is the most likely"
        ended = not request.sampling.ignore_eos and found[-1] == EOS
        assert finished.reason == ("eos" if ended else "length")
        assert ended or len(found) == request.sampling.max_new_tokens

    def _ask(self) -> Submit:
        question = self.rng.choice(self.pool.questions)
        request = question.submit(
            f"r{len(self.asked)}",
            max_new_tokens=self.rng.randrange(1, len(question.truth.tokens) + 1),
            ignore_eos=self.rng.random() < 0.8,
            logprobs=self.rng.choice((None, None, 2)),
            prompt_logprobs=self.rng.choice((None, None, None, 1)),
        )
        self.asked[request.id] = question, request
        return request

    def _open(self) -> list[str]:
        return [r for r in self.asked if r not in self.answers.finished and r not in self.aborted]

    def _bytes(self, prefixes: int) -> int:
        """Room for so many of the longest prefixes."""
        loaded = self.pool.loaded
        return (
            prefixes
            * self.pool.largest
            * loaded.specs["decoder"].bytes_per_token(loaded.module.dtype)
        )
