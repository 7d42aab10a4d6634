"""A model that was really trained: text behind PEFT prefixes, against PEFT's own `generate`."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.adapters import Reference, Spoken, native, save_adapter
from support.engines import Answers, submit
from support.models import load_folder
from support.shapes import shape_of
from support.stored import LogitsRecorder, stored_engine, upload
from support.tiny import LAYOUTS
from tokenizers import Tokenizer

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.model.load import LoadedModel
from prefixmux_store.store import PrefixStore

pytestmark = [
    pytest.mark.shared,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TOKENS = 32
TEXTS = (
    "Once upon a time, there was a little girl named Lily.",
    "One day, Tom and his dog went to the park",
    "The",
    'The cat said, "I am hungry." The bird did not',
)
# Virtual tokens, and the scale of their random values: trained ones are of order one.
ADAPTERS = ((1, 2.0), (5, 1.0), (20, 0.5), (63, 1.0), (150, 0.3))


@dataclass(frozen=True)
class Told:
    """One request and what PEFT, asked for it alone, said."""

    request: Submit
    spoken: Spoken


@dataclass(frozen=True)
class Stories:
    """The model, a store with all adapters, and every text behind every one of them and bare."""

    loaded: LoadedModel
    root: Path
    told: list[Told]


@pytest.fixture(scope="module")
def stories(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Stories:
    model = shared / "models" / "stories260K"
    loaded, root = load_folder(model), tmp_path_factory.mktemp("stories")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    told = tell(tokenizer, Reference(model, None), None)
    with PrefixStore.open(root / "store") as store:
        for number, (tokens, scale) in enumerate(ADAPTERS):
            adapter = save_adapter(model, root / f"{number}", tokens, seed=number, scale=scale)
            data = native(adapter, shape_of(loaded))
            digest = upload(store, loaded, f"story-{number}", data)
            told += tell(tokenizer, Reference(model, adapter), digest)
    return Stories(loaded, root / "store", told)


def tell(tokenizer: Tokenizer, reference: Reference, digest: str | None) -> list[Told]:
    told = []
    for number, text in enumerate(TEXTS):
        ids = tokenizer.encode(text).ids
        name = f"{digest} {number}"
        prefixes = () if digest is None else (digest,)
        request = submit(name, ids, prefixes=prefixes, max_new_tokens=TOKENS)
        told.append(Told(request, reference.speak(ids, TOKENS)))
    return told


def test_prefixes_change_the_story(stories: Stories) -> None:
    by_text = [stories.told[number :: len(TEXTS)] for number in range(len(TEXTS))]
    for told in by_text:
        assert len({t.spoken.tokens for t in told}) == len(told) == 1 + len(ADAPTERS)


@pytest.mark.parametrize("budget", [2048, 24])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_mixed_batch_tells_them_all(stories: Stories, layout: LayoutName, budget: int) -> None:
    recorder = LogitsRecorder()
    engine = stored_engine(stories.loaded, layout, stories.root, tokens=budget, failpoints=recorder)
    shuffled = random.Random(budget).sample(stories.told, len(stories.told))
    for told in shuffled:
        engine.submit(told.request)
    answers = Answers().run(engine)
    assert max(len(record.rows) for record in answers.records) > 16
    for told in shuffled:
        name = told.request.id
        assert tuple(answers.tokens[name]) == told.spoken.tokens, name
        torch.testing.assert_close(recorder.of(name), told.spoken.logits, atol=2e-4, rtol=0)
        assert answers.finished[name].prefixes == told.request.prefixes
