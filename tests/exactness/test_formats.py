"""Prefixes that PEFT saved, through import, store and engine: the tokens that PEFT says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from support.adapters import Reference, Spoken, narrow, native, save_adapter
from support.engines import Answers, submit
from support.models import FAMILIES, load_folder, save_tiny
from support.shapes import shape_of
from support.stored import stored_engine, upload
from support.tiny import LAYOUTS, prompt

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.model.load import LoadedModel
from prefixmux_store.format import parse
from prefixmux_store.store import PrefixStore

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

TOKENS = 12
POSITIONS = 512  # of every tiny model


@dataclass(frozen=True)
class Case:
    """One request behind one adapter, and what PEFT, asked for it alone, said."""

    request: Submit
    spoken: Spoken


@dataclass
class Family:
    """A tiny model with a store of PEFT's adapters, and the cases over them."""

    model: Path
    loaded: LoadedModel
    root: Path
    cases: list[Case] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def add(self, store: PrefixStore, name: str, adapter: Path, prompts: list[int]) -> None:
        """Imports an adapter, and asks PEFT behind it for prompts of these lengths."""
        data = native(adapter, shape_of(self.loaded))
        self.digests[name] = upload(store, self.loaded, name, data)
        self.ask(name, Reference(self.model, adapter), prompts, (self.digests[name],))

    def ask(
        self, name: str, reference: Reference, prompts: list[int], prefixes: tuple[str, ...]
    ) -> None:
        for length in prompts:
            ids = prompt(length, length)
            request = submit(
                f"{name}, {length} tokens", ids, prefixes=prefixes, max_new_tokens=TOKENS
            )
            self.cases.append(Case(request, reference.speak(ids, TOKENS)))


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    root = tmp_path_factory.mktemp(request.param)
    model = save_tiny(FAMILIES[request.param](), root / "model")
    made = Family(model, load_folder(model), root / "store")
    made.ask("bare", Reference(model, None), [1, 9], ())
    with PrefixStore.open(made.root) as store:
        one = save_adapter(model, root / "one", 1, seed=1, scale=3.0)
        made.add(store, "one-virtual-token", one, [1, 9])
        plain = save_adapter(model, root / "plain", 23, seed=2)
        made.add(store, "plain", plain, [1, 9])
        half = narrow(save_adapter(model, root / "half", 11, seed=3), torch.bfloat16)
        made.add(store, "bfloat16", half, [9])
        projected = save_adapter(
            model, root / "projected", 7, seed=4, prefix_projection=True, encoder_hidden_size=16
        )
        made.add(store, "projected", projected, [9])
        # The last token of the answer is not run, so these stand at 0 .. POSITIONS - 1.
        full = save_adapter(model, root / "full", POSITIONS - 9 - TOKENS + 1, seed=5)
        made.add(store, "fills-the-table", full, [9])
    return made


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    return name


def test_files_are_what_the_cases_say(family: Family) -> None:
    with PrefixStore.open(family.root) as store:
        stored = {name: parse(store.read_file("default", name, None)) for name in family.digests}
    assert {name: file.digest for name, file in stored.items()} == family.digests
    assert stored["bfloat16"].tensors["decoder"].dtype == "BF16"
    assert stored["plain"].tensors["decoder"].dtype == "F32"
    assert stored["one-virtual-token"].tokens == 1


def test_prefixes_change_the_answer(family: Family) -> None:
    bare = {c.request.input_ids: c.spoken.tokens for c in family.cases if not c.request.prefixes}
    behind = [c for c in family.cases if c.request.prefixes]
    assert len(behind) == 7
    assert all(c.spoken.tokens != bare[c.request.input_ids] for c in behind)


def test_alone(family: Family, layout: LayoutName) -> None:
    engine = stored_engine(family.loaded, layout, family.root)
    for case in family.cases:
        engine.submit(case.request)
        check(case, Answers().run(engine))


def test_together_and_in_chunks(family: Family, layout: LayoutName) -> None:
    engine = stored_engine(family.loaded, layout, family.root, tokens=13)
    for case in family.cases:
        engine.submit(case.request)
    answers = Answers().run(engine)
    for case in family.cases:
        check(case, answers)


def check(case: Case, answers: Answers) -> None:
    name = case.request.id
    assert tuple(answers.tokens[name]) == case.spoken.tokens, name
    assert answers.finished[name].prefixes == case.request.prefixes


def test_one_position_more_is_refused(family: Family, layout: LayoutName) -> None:
    """At admission, whatever the family: also where positions are rotations, not a table."""
    engine = stored_engine(family.loaded, layout, family.root)
    prefixes = [family.digests["fills-the-table"]]
    for name, tokens, new in (("prompt", 10, TOKENS), ("answer", 9, TOKENS + 1)):
        engine.submit(submit(name, prompt(tokens, 0), prefixes=prefixes, max_new_tokens=new))
    finished = Answers().run(engine).finished
    errors = [finished[name].error for name in ("prompt", "answer")]
    assert [error.code for error in errors if error] == ["prompt_too_long"] * 2
