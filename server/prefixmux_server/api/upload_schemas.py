"""The JSON bodies of an upload, and what any upload may say of the version it makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, TypedDict, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from prefixmux_server.api.http.problems import of_validation
from prefixmux_server.api.http.values import Strict, TaskId, Text
from prefixmux_server.api.parameters import ParametersBody
from prefixmux_server.api.schemas import Parts
from prefixmux_server.errors import InvalidRequest
from prefixmux_server.service.prefixes.examples import Example, demonstrate
from prefixmux_server.service.prefixes.upload import Composition, PromptText, Upload
from prefixmux_store.types import JSON

MAX_DESCRIPTION = 1000
# Such as a terminal that lists descriptions would obey.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

B = TypeVar("B", bound=Strict)


def _one_line(text: str) -> str:
    if len(text) > MAX_DESCRIPTION or CONTROL.search(text):
        raise PydanticCustomError(
            "description",
            "A description is one line of at most {most} characters, none of them control"
            " characters",
            {"most": MAX_DESCRIPTION},
        )
    return text


class About(TypedDict):
    """What an `Upload` says of its version."""

    description: str | None
    template: str | None
    parameters: Mapping[str, JSON]


class AboutBody(Strict):
    """`template` and `parameters` hold for requests that say nothing themselves."""

    description: Annotated[Text, AfterValidator(_one_line)] | None = None
    template: Annotated[Text, Field(examples=["Q: {input}\nA:"])] | None = None
    parameters: ParametersBody | None = None

    def about(self) -> About:
        parameters = {} if self.parameters is None else self.parameters.to_service()
        return About(description=self.description, template=self.template, parameters=parameters)


class _Recipe(AboutBody):
    task_id: TaskId
    activate: bool | None = None

    @property
    def is_active(self) -> bool:
        return self.activate is not False


class TextBody(_Recipe):
    """A prompt in words, to stand before every input."""

    text: Annotated[Text, Field(min_length=1)]

    def to_service(self) -> Upload:
        return Upload(self.task_id, PromptText(self.text), self.is_active, **self.about())


class ExampleBody(Strict):
    """What an input and its output look like."""

    input: Text
    output: Text


class ExamplesBody(_Recipe):
    """Examples, to stand before every input. `template` shows one of them, as `{input}` and
    `{output}`; requests are put into it up to its output."""

    examples: Annotated[list[ExampleBody], Field(min_length=1)]

    def to_service(self) -> Upload:
        examples = [Example(example.input, example.output) for example in self.examples]
        shown = demonstrate(examples, self.template)
        said = self.about()
        stop: Mapping[str, JSON] = {"stop": [shown.stop]} if shown.stop else {}
        said["template"] = shown.template
        said["parameters"] = {**stop, **said["parameters"]}
        return Upload(self.task_id, PromptText(shown.text, "examples"), self.is_active, **said)


class ComposeBody(_Recipe):
    """Stored prefixes, one behind another in this order."""

    compose: Parts

    def to_service(self) -> Upload:
        content = Composition(tuple(part.to_service() for part in self.compose))
        return Upload(self.task_id, content, self.is_active, **self.about())


RECIPES: Mapping[str, type[TextBody] | type[ExamplesBody] | type[ComposeBody]] = {
    "text": TextBody,
    "examples": ExamplesBody,
    "compose": ComposeBody,
}


def recipe(body: object) -> Upload:
    """Of a JSON body, by the one of its fields that says what it is."""
    given = [name for name in RECIPES if isinstance(body, dict) and name in body]
    if len(given) != 1:
        raise InvalidRequest("Send one of text, examples and compose.", param="text")
    return _checked(RECIPES[given[0]], body).to_service()


def about(said: Mapping[str, object]) -> About:
    """Of the fields of a form."""
    return _checked(AboutBody, said).about()


def _checked(kind: type[B], value: object) -> B:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise of_validation(error.errors(include_url=False, include_input=False)) from None
