"""Rules for what callers say beside a file: descriptions, templates, default parameters."""

from __future__ import annotations

from prefixmux_store import strict_json
from prefixmux_store.errors import InvalidRequest, TaskNotFound
from prefixmux_store.names import is_name
from prefixmux_store.types import Defaults

MAX_DESCRIPTION_BYTES = 4096
MAX_TEMPLATE_BYTES = 64 * 1024
MAX_PARAMETERS_BYTES = 16 * 1024
# Each repeats the input: a template of nothing else would make megabytes of a short one.
MAX_INPUTS = 16
INPUT = "{input}"


def check_exists(tenant: str, task_id: str) -> None:
    """A name that cannot exist does not."""
    if not (is_name(tenant) and is_name(task_id)):
        raise TaskNotFound


def check_description(text: str | None) -> str | None:
    if text is not None and not 0 <= _bytes(text) <= MAX_DESCRIPTION_BYTES:
        message = f"A description is text of at most {MAX_DESCRIPTION_BYTES} bytes."
        raise InvalidRequest(message, param="description")
    return text


def check_defaults(defaults: Defaults) -> Defaults:
    """What the parameters mean is the server's business; here they are plain JSON."""
    if defaults.template is not None:
        _check_template(defaults.template)
    try:
        text = strict_json.dumps(dict(defaults.parameters))
        fits = len(text) <= MAX_PARAMETERS_BYTES
        strict_json.loads(text.encode("ascii"))
    except (TypeError, ValueError, RecursionError):
        fits = False
    if not fits:
        message = f"Default parameters are a JSON object of at most {MAX_PARAMETERS_BYTES} bytes."
        raise InvalidRequest(message, param="parameters")
    return defaults


def _check_template(template: str) -> None:
    inputs = template.count(INPUT)
    if not 0 <= _bytes(template) <= MAX_TEMPLATE_BYTES:
        message = f"A template is text of at most {MAX_TEMPLATE_BYTES} bytes."
    elif not inputs:
        message = f"A template needs {INPUT} where the request's input is to stand."
    elif inputs > MAX_INPUTS:
        message = (
            f"A template names {INPUT} at most {MAX_INPUTS} times; this one does {inputs} times."
        )
    else:
        return
    raise InvalidRequest(message, param="template")


def _bytes(text: str) -> int:
    """In UTF-8; -1 for text that has none."""
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return -1
