"""Random batches of a ward's questions: joins, slow loads, chunks, aborts, and the check of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from contract.ward import TOKENS, Question, Ward
from support.engines import Answers, HeldExecutor
from support.stored import LogitsRecorder

from prefixmux_server.engine.engine import Engine


@dataclass
class Round:
    """`rng` decides the order and who leaves; the engine's loads run when it says so."""

    ward: Ward
    questions: Sequence[Question]
    engine: Engine
    recorder: LogitsRecorder
    loads: HeldExecutor
    rng: random.Random
    requests: int
    asked: dict[str, Question] = field(default_factory=dict)
    aborted: set[str] = field(default_factory=set)
    answers: Answers = field(default_factory=Answers)

    def run(self) -> Round:
        while len(self.asked) < self.requests or self.engine.has_work:
            for _ in range(min(self.rng.randrange(4), self.requests - len(self.asked))):
                self._ask()
            if self.rng.random() < 0.7:
                self.loads.run_all()
            self.answers.step(self.engine)
            for name in [name for name in self._open() if self.rng.random() < 0.01]:
                self.engine.abort(name)
                self.aborted.add(name)
        return self

    def check(self) -> None:
        """Assert that every answer is the truth; of who left, as far as it came."""
        for name, question in self.asked.items():
            if name not in self.aborted:
                check(question, self.answers, self.recorder, name)
            elif name in self.answers.tokens:
                check_said(question, self.answers, self.recorder, name)

    def _ask(self) -> None:
        question = self.rng.choice(self.questions)
        request = self.ward.submit(question, f"#{len(self.asked)}")
        self.asked[request.id] = question
        self.engine.submit(request)

    def _open(self) -> list[str]:
        return [n for n in self.asked if n not in self.answers.finished and n not in self.aborted]


def check(question: Question, answers: Answers, recorder: LogitsRecorder, name: str) -> None:
    """A whole answer is the truth: its tokens, and the logits of every step."""
    finished = answers.finished[name]
    assert finished.error is None, (name, finished.error)
    assert finished.reason == "length", name
    assert len(answers.tokens[name]) == TOKENS, name
    check_said(question, answers, recorder, name)


def check_said(question: Question, answers: Answers, recorder: LogitsRecorder, name: str) -> None:
    """What it has said so far is the truth."""
    found, truth = answers.tokens[name], question.said
    assert truth.sure == TOKENS, "a close call decides nothing here; take another seed"
    assert tuple(found) == truth.tokens[: len(found)], name
    logits = truth.logits[: len(found)]
    scale = max(1.0, float(logits.std()))
    torch.testing.assert_close(recorder.of(name), logits, atol=2e-4 * scale, rtol=0)
