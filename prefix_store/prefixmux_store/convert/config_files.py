"""JSON config files from anybody: one strict object, and text out of it that can be shown."""

from __future__ import annotations

from collections.abc import Mapping

from prefixmux_store import strict_json
from prefixmux_store.errors import InvalidPrefix

MAX_CONFIG_BYTES = 64 * 1024
MAX_TEXT = 200


def load_object(raw: bytes, name: str) -> dict[str, object]:
    """The object in a config file called `name`. Raises `InvalidPrefix`."""
    if len(raw) > MAX_CONFIG_BYTES:
        raise InvalidPrefix("metadata", f"{name} exceeds {MAX_CONFIG_BYTES} bytes.")
    try:
        content = strict_json.loads(raw)
    except strict_json.DuplicateKeyError:
        raise InvalidPrefix("duplicate", f"{name} names a key twice.") from None
    except ValueError:
        raise InvalidPrefix("metadata", f"{name} is not valid JSON.") from None
    if not isinstance(content, dict):
        raise InvalidPrefix("metadata", f"{name} is not a JSON object.")
    return content


def size(content: Mapping[str, object], key: str, name: str) -> int:
    """A positive number of `name`. Raises `InvalidPrefix` metadata, or empty for 0."""
    value = content.get(key)
    if type(value) is not int or value < 0:
        raise InvalidPrefix("metadata", f"{name} needs a positive integer as {key}.")
    if value == 0:
        raise InvalidPrefix("empty", f"{name} says {key} is 0.")
    return value


def plain(value: object, length: int = MAX_TEXT) -> str:
    """Text from a config, short and printable."""
    return "".join(char if char.isprintable() else "?" for char in str(value)[:length])
