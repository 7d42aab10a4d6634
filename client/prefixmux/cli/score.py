"""`prefixmux score`: how likely each of several targets is after one input."""

from __future__ import annotations

from typing import Annotated

import typer

from prefixmux.cli import words as said
from prefixmux.cli.output import show_json, show_table
from prefixmux.cli.session import Connection
from prefixmux.types import Score, ScoreResponse


def score(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TASK] INPUT",
            help="The task (none: the bare model), and the text before the targets (-: stdin).",
            show_default=False,
        ),
    ],
    connection: Connection,
    target: Annotated[
        list[str],
        typer.Option("--target", "-t", metavar="TEXT", help="As it follows the input; repeatable."),
    ],
    version: said.VersionOption = None,
    compose: said.ComposeOption = None,
    decoder_input: said.DecoderInputOption = None,
    ids: said.IdsOption = False,
) -> None:
    """Score targets after one input with a task's prefix: the likeliest first.

    A target is taken as it is: most tokenizers want the space before a word.
    """
    task_id, text = said.task_and_text(words, compose)
    with connection.opened() as client:
        answer = client.score(
            task_id,
            said.token_ids(text) if ids else text,
            [said.token_ids(each) if ids else each for each in target],
            version=version,
            decoder_input=said.token_ids(decoder_input) if ids and decoder_input else decoder_input,
            compose=[said.part(word) for word in compose or ()],
        )
    if connection.as_json:
        show_json(answer.model_dump(mode="json"))
    else:
        _show(answer)


def _show(answer: ScoreResponse) -> None:
    ordered = sorted(answer.scores, key=lambda score: -score.logprob)
    show_table(["LOGPROB", "PER TOKEN", "GREEDY", "TARGET"], map(_row, ordered))


def _row(score: Score) -> tuple[object, ...]:
    each = score.logprob / max(len(score.token_ids), 1)
    shown = " ".join(map(str, score.token_ids)) if score.text is None else repr(score.text)
    return f"{score.logprob:.4f}", f"{each:.4f}", "yes" if score.is_greedy else "no", shown
