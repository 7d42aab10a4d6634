"""A model's chat template: from messages to one text, as transformers' `apply_chat_template`.

Templates are code from a model's folder: they run in jinja2's sandbox and see plain JSON only.
Knows nothing of requests or tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, TypeAlias

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

Message: TypeAlias = Mapping[str, str]


class TemplateUnusable(Exception):
    """The template is broken, or cannot be rendered with these messages."""


class TemplateRefused(TemplateUnusable):
    """The template itself said no; `said` are its author's words."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class ChatTemplate:
    """One compiled template; thread-safe. `special_tokens` are `bos_token` and the like."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Raises `TemplateUnusable`."""
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except TemplateError as error:
            raise TemplateUnusable from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Raises `TemplateUnusable`."""
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except TemplateUnusable:
            raise
        except Exception as error:  # a template can do anything that an expression can
            raise TemplateUnusable from error


def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    tools: dict[str, Callable[..., Any]] = {
        "raise_exception": _refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": PlainDict(),
        "namespace": PlainNamespace,
    }
    made.globals.update(tools)
    made.filters["tojson"] = _to_json
    return made


def _refuse(message: object) -> NoReturn:
    raise TemplateRefused(str(message))


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own would write `<` as `\\u003c`."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class Generation(Extension):
    """`{% generation %}` marks what an assistant says, for training; here it stands as it is."""

    tags = {"generation"}  # noqa: RUF012 - the base class has it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_plain"), [], [], body).set_lineno(line)

    def _plain(self, caller: Macro) -> str:
        return str(caller())


class PlainDict:
    """`dict` without the attributes of the type."""

    def __call__(self, *args: Any, **fields: Any) -> dict[Any, Any]:  # noqa: ANN401
        return dict(*args, **fields)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:  # noqa: ANN401
        return dict.fromkeys(*args)


class PlainNamespace(Namespace):
    """`namespace` that keeps nothing under a private name."""

    def __init__(*args: Any, **fields: Any) -> None:  # noqa: ANN401
        self, *given = args  # so that `self` can be a name in a template
        attributes = dict(*given, **fields)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("a namespace keeps no private names")
