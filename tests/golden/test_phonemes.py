"""A trained encoder-decoder model over real HTTP: spelling in, phonemes out, by ids alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from api.served import Served, served
from support.native import native_file
from support.slow import Asked, Piece, Slow
from transformers import AutoModelForSeq2SeqLM

pytestmark = pytest.mark.shared

SPOKEN = {"us": "təmˈɑɾO", "gb": "təmˈɑːtQ"}
WORDS = ("tomato", "prefix", "tuning", "a", "encyclopaedia")
START, EOS, UNKNOWN = 1, 2, 3
NEW = 24


@dataclass(frozen=True)
class Speaker:
    """The model's folder, its alphabets, and a server of it."""

    accent: str
    folder: Path
    letters: str
    sounds: str
    server: Served

    def ids(self, word: str) -> tuple[int, ...]:
        found = (self.letters.find(letter) for letter in word)
        return (START, *(UNKNOWN if at < 0 else at for at in found), EOS)

    def spell(self, ids: list[int]) -> str:
        return "".join(self.sounds[token] for token in ids if token > UNKNOWN)

    def ask(self, word: str, **parameters: Any) -> dict[str, Any]:
        return {"input": list(self.ids(word)), "parameters": {"max_new_tokens": NEW, **parameters}}


@pytest.fixture(scope="module", params=list(SPOKEN))
def speaker(
    shared: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Speaker]:
    folder = shared / "models" / f"g2p-bart-{request.param}"
    chars = json.loads((folder / "chars.json").read_text())
    with served(folder, tmp_path_factory.mktemp("g2p") / "store") as server:
        yield Speaker(
            request.param, folder, chars["grapheme_chars"], chars["phoneme_chars"], server
        )


def test_it_says_tomato(speaker: Speaker) -> None:
    answer = speaker.server.generate(**speaker.ask("tomato"))
    (output,) = answer["outputs"]
    assert speaker.spell(output["token_ids"]) == SPOKEN[speaker.accent]
    assert (output["finish_reason"], output["text"]) == ("eos", None)
    usage = {"prompt_tokens": 8, "prefix_tokens": 0, "generated_tokens": len(output["token_ids"])}
    assert answer["usage"] == usage


def test_words_need_a_tokenizer_that_it_lacks(speaker: Speaker) -> None:
    for path, body in (
        ("/generate", {"input": "tomato"}),
        ("/generate", {**speaker.ask("tomato"), "decoder_input": "t"}),
        ("/prefixes", {"task_id": "words", "text": "tomato"}),
    ):
        answer = speaker.server.client.post(path, json=body)
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "tokenizer_unavailable"


def test_greedy_and_beams_in_one_batch_are_those_of_transformers(speaker: Speaker) -> None:
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(speaker.folder).eval()
    rows, truths = [], list[tuple[list[list[int]], list[float]]]()
    for word in WORDS:
        for beams in (1, 5):
            told = {} if beams == 1 else {"num_beams": beams, "num_return": 3}
            rows.append(speaker.ask(word, **told))
            truths.append(generate(model, speaker.ids(word), beams))
    results = speaker.server.client.post("/generate/batch", json={"requests": rows}).json()
    for row, (tokens, scores) in zip(results["results"], truths, strict=True):
        outputs = row["response"]["outputs"]
        assert [output["token_ids"] for output in outputs] == tokens
        if scores:
            assert [o["score"] for o in outputs] == pytest.approx(scores, abs=1e-4)


@torch.inference_mode()
def generate(model: Any, ids: tuple[int, ...], beams: int) -> tuple[list[list[int]], list[float]]:
    """New tokens up to the end, and scores of a beam search."""
    several = {} if beams == 1 else {"num_return_sequences": 3}
    found = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        num_beams=beams,
        do_sample=False,
        max_new_tokens=NEW,
        return_dict_in_generate=True,
        output_scores=True,
        **several,
    )
    rows = [row[1:] for row in found.sequences.tolist()]
    cut = [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]
    return cut, [] if beams == 1 else found.sequences_scores.tolist()


def test_prefixes_of_every_site_and_method(speaker: Speaker) -> None:
    """Uploaded as native files, composed, and asked for in one batch."""
    slow = Slow(speaker.folder)
    pieces = pieces_of(slow)
    for name, piece in pieces.items():
        answer = speaker.server.client.put(f"/prefixes/{name}", content=native_file(piece))
        assert answer.status_code == 201, answer.text
    mixtures = [(), *((name,) for name in pieces), ("virtual", "three"), ("word", "cross")]
    rows, truths = [], []
    for mixture in mixtures:
        for word in WORDS[:3]:
            named = {"compose": [{"task_id": name} for name in mixture]} if mixture else {}
            rows.append({**speaker.ask(word), **named})
            asked = Asked(
                speaker.ids(word), NEW, tuple(pieces[name] for name in mixture), (START,), (EOS,)
            )
            truths.append(slow.greedy(asked))
    results = speaker.server.client.post("/generate/batch", json={"requests": rows}).json()
    for row, truth in zip(results["results"], truths, strict=True):
        found = row["response"]["outputs"][0]["token_ids"]
        assert found[: truth.sure] == list(truth.tokens[: truth.sure])
    assert sum(truth.sure == len(truth.tokens) for truth in truths) > 0.9 * len(truths)
    assert len({truth.tokens for truth in truths}) > len(truths) // 2


def pieces_of(slow: Slow) -> Mapping[str, Piece]:
    shapes = slow.model.shapes()

    def random(*shape: int, seed: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def kv(site: str, tokens: int, seed: int) -> torch.Tensor:
        layers, heads, width = shapes[site]
        return random(layers, 2, tokens, heads, width, seed=seed)

    three = {"encoder": kv("encoder", 2, 1), "decoder": kv("decoder", 3, 2)}
    return {
        "three": Piece("PREFIX_TUNING", {**three, "cross": kv("cross", 4, 3)}, 3),
        "cross": Piece("PREFIX_TUNING", {"cross": kv("cross", 2, 4)}),
        "unshifted": Piece("PREFIX_TUNING", {"decoder": kv("decoder", 5, 5)}, 0),
        "virtual": Piece("PROMPT_TUNING", embeddings=random(4, 128, seed=6)),
        "word": Piece("TEXT", token_ids=(20, 21, 22)),
    }
