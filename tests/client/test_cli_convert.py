"""`prefixmux convert`: what it writes and prints, and how it ends."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from store.makers import HEADS, HIDDEN, LAYERS, WIDTH, kv, prefix, tensor
from store.peft_files import config_file, weights_file
from typer.testing import CliRunner, Result

from prefixmux.cli import build_app
from prefixmux_store.format import PrefixMeta, encode, parse

GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_embd": HEADS * WIDTH,
    "vocab_size": 96,
}
BART = {
    "architectures": ["BartForConditionalGeneration"],
    "is_encoder_decoder": True,
    "d_model": HEADS * WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "vocab_size": 96,
}
COLUMNS = 2 * LAYERS * HEADS * WIDTH


def run(*words: object) -> Result:
    return CliRunner().invoke(build_app(), ["convert", *map(str, words)])


def folder(path: Path, **files: bytes) -> Path:
    """Files by their names, with two underscores for a dot."""
    path.mkdir()
    for name, data in files.items():
        (path / name.replace("__", ".")).write_bytes(data)
    return path


def model(path: Path, about: dict[str, object]) -> Path:
    return folder(path, config__json=json.dumps(about).encode())


def adapter(path: Path, family: str = "causal", **changes: object) -> Path:
    return folder(
        path,
        adapter_config__json=config_file("PREFIX_TUNING", family, **changes),
        adapter_model__safetensors=weights_file(prompt_embeddings=tensor((3, COLUMNS), 7)),
    )


def error_of(result: Result) -> dict[str, object]:
    assert (result.exit_code, result.stdout) == (1, "")
    body: dict[str, object] = json.loads(result.stderr)["error"]
    return body


def test_a_peft_folder_becomes_a_native_file(tmp_path: Path) -> None:
    target = tmp_path / "made.safetensors"
    result = run(adapter(tmp_path / "peft"), target, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    made = parse(target.read_bytes())
    assert json.loads(result.stdout) == {
        "from": "peft",
        "method": "PREFIX_TUNING",
        "sites": {"decoder": 3},
        "tokens": 3,
        "bytes": made.nbytes,
        "digest": made.digest,
        "files": [str(target)],
    }


def test_people_get_a_table(tmp_path: Path) -> None:
    target = tmp_path / "made.safetensors"
    result = run(adapter(tmp_path / "peft"), target)
    assert result.exit_code == 0
    for text in ("PREFIX_TUNING", "decoder 3", parse(target.read_bytes()).digest, str(target)):
        assert text in result.stdout


@pytest.mark.parametrize("about", [GPT2, BART], ids=["gpt2", "bart"])
def test_there_and_back_gives_the_same_file(tmp_path: Path, about: dict[str, object]) -> None:
    (tmp_path / "a").write_bytes(prefix(tokens=5))
    base = model(tmp_path / "model", about)
    there = run(tmp_path / "a", tmp_path / "b", "--to", "peft", "--model", base, "--json")
    assert there.exit_code == 0
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    back = run(tmp_path / "b", tmp_path / "c", "--model", base)
    assert back.exit_code == 0
    made = parse((tmp_path / "c").read_bytes())
    assert made.tensors["decoder"] == kv(5)
    assert made.meta.method == "PREFIX_TUNING"


def test_the_papers_own_checkpoints_are_told_by_their_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    about = {**GPT2, "architectures": ["PrefixTuning"], "optim_prefix": True}
    model(source, about)
    torch.save({"control_trans": torch.ones(3 * COLUMNS)}, source / "pytorch_model.bin")
    result = run(source, tmp_path / "made", "--json")
    assert json.loads(result.stdout)["from"] == "li-liang"
    assert parse((tmp_path / "made").read_bytes()).sites == {"decoder": 3}


def test_adapterhubs_adapters_are_told_from_pefts(tmp_path: Path) -> None:
    about = {"architecture": "prefix_tuning", "flat": True, "prefix_length": 3}
    config = {"config": about, "model_type": "gpt2", "model_name": "gpt2"}
    source = folder(tmp_path / "source", adapter_config__json=json.dumps(config).encode())
    name = "transformer.prefix_tuning.prefix_tunings.x.self_prefix.control_trans"
    torch.save({name: torch.ones(3 * COLUMNS)}, source / "pytorch_adapter.bin")
    error = error_of(run(source, tmp_path / "made", "--json"))
    assert (error["code"], error["param"]) == ("invalid_request", "--model")
    base = model(tmp_path / "model", GPT2)
    result = run(source, tmp_path / "made", "--model", base, "--json")
    assert json.loads(result.stdout)["from"] == "adapterhub"


def test_one_task_of_several_is_chosen(tmp_path: Path) -> None:
    about = config_file(
        "MULTITASK_PROMPT_TUNING", "causal", num_tasks=2, num_ranks=1, token_dim=HIDDEN
    )
    weights = weights_file(
        prompt_embeddings=tensor((3, HIDDEN)),
        prefix_task_cols=tensor((2, 3, 1)),
        prefix_task_rows=tensor((2, 1, HIDDEN)),
    )
    source = folder(
        tmp_path / "source", adapter_config__json=about, adapter_model__safetensors=weights
    )
    error = error_of(run(source, tmp_path / "made", "--json"))
    assert (error["code"], error["param"]) == ("invalid_request", "--task-index")
    assert run(source, tmp_path / "made", "--task-index", 1).exit_code == 0
    assert parse((tmp_path / "made").read_bytes()).meta.provenance["task_index"] == 1


def test_a_native_file_is_checked_and_shown(tmp_path: Path) -> None:
    text = encode({}, PrefixMeta(method="TEXT", token_ids=(1, 2)))
    (tmp_path / "a").write_bytes(text)
    result = run(tmp_path / "a", tmp_path / "b", "--json")
    assert json.loads(result.stdout)["sites"] == {"text": 2}
    assert (tmp_path / "b").read_bytes() == text


def test_refusals_end_with_1_and_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "native").write_bytes(prefix())
    (tmp_path / "pickle").write_bytes(pickle.dumps({}))
    (tmp_path / "there").write_bytes(b"mine")
    good = adapter(tmp_path / "peft")
    pickled = folder(
        tmp_path / "old",
        adapter_config__json=config_file("PREFIX_TUNING", "causal"),
        adapter_model__bin=pickle.dumps({}),
    )
    gpt2 = model(tmp_path / "gpt2", GPT2)
    deeper = model(tmp_path / "deeper", {**GPT2, "n_layer": LAYERS + 1})
    out = tmp_path / "out"
    refused: list[tuple[list[object], str, str | None]] = [
        ([tmp_path / "pickle", out], "unsafe_format", None),
        ([pickled, out], "unsafe_format", None),
        ([tmp_path / "gpt2", out], "invalid_request", "SOURCE"),
        ([good, tmp_path / "there"], "invalid_request", None),
        ([good, out, "--task-index", 0], "invalid_request", "--task-index"),
        ([tmp_path / "native", out, "--task-index", 0], "invalid_request", "--task-index"),
        ([good, out, "--model", deeper], "incompatible_prefix", None),
        ([tmp_path / "native", out, "--model", deeper], "incompatible_prefix", None),
        ([tmp_path / "native", out, "--to", "peft"], "invalid_request", "--model"),
        ([adapter(tmp_path / "s", "seq2seq"), out], "invalid_request", "--model"),
        ([tmp_path / "s", out, "--model", gpt2], "unsupported_method", None),
        ([adapter(tmp_path / "lora", peft_type="LORA"), out], "unsupported_method", None),
        ([good, out, "--from", "adapterhub", "--model", gpt2], "unsupported_method", None),
    ]
    for words, code, param in refused:
        error = error_of(run(*words, "--json"))
        assert (error["code"], error["param"]) == (code, param), words
        assert not out.exists()
    assert (tmp_path / "there").read_bytes() == b"mine"


def test_a_refusal_for_people_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "native").write_bytes(prefix())
    result = run(tmp_path / "native", tmp_path / "out", "--to", "peft")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: Name the folder of the model")
    assert result.stderr.endswith("(--model)\n")


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "peft", adapter_config__json=config_file("P_TUNING", "causal"))
    error = error_of(run(source, tmp_path / "out", "--json"))
    assert error["code"] is None
    assert "adapter_model.safetensors" in str(error["message"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a"],
        ["no-such-folder", "b"],
        [".", "b", "--from", "pickle"],
        [".", "b", "--to", "adapterhub"],
        [".", "b", "--model", "no-such-folder"],
        [".", "b", "--task-index", "x"],
    ],
)
def test_usage_errors_end_with_2(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_without_the_store_s_libraries_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(prefix())
    script = (
        "import sys; sys.modules['numpy'] = None; from prefixmux.cli import main;"
        f" sys.argv = ['prefixmux', 'convert', {str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}];"
        " main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'prefixmux[server]'" in done.stderr


def test_the_examples_of_the_guide_run(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    guide = (root / "docs" / "converting.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", "\n".join(blocks)],
        cwd=root,
        env={**os.environ, "OUT": str(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "MULTITASK_PROMPT_TUNING" in done.stdout
