"""What a prefix file says about itself: the JSON under `prefixmux` in its metadata.

Strict: unknown fields, wrong types and impossible values are refused. Whether the claims fit a
model is `validate`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from prefixmux_store import strict_json
from prefixmux_store.errors import InvalidPrefix
from prefixmux_store.names import is_digest

FORMAT = 1
KEY = "prefixmux"
KV_SITES = frozenset({"decoder", "encoder", "cross"})
EMBEDDING_METHODS = frozenset({"PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING"})
INFIX_METHODS = frozenset({"INFIX_TUNING", "INFIX_EMBEDDING"})
METHODS = EMBEDDING_METHODS | INFIX_METHODS | {"PREFIX_TUNING", "CARTRIDGE", "TEXT"}

Scalar = str | int | float | bool | None

_OPTIONAL = ("base", "position_offset", "provenance", "token_ids", "text")
_FIELDS = {"format", "method", *_OPTIONAL}
_SIZES = {"layers", "kv_heads", "head_dim", "hidden", "vocab"}
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class BaseClaim:
    """What the file says about the model it was trained for; None = not said."""

    architecture: str | None = None
    layers: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    hidden: int | None = None
    vocab: int | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class PrefixMeta:
    """`position_offset` None: the decoder's tokens shift by the prefix length, others by 0.

    `provenance` is free text for people; `provenance["base_model"]` is shown as the base model.
    `token_ids` are a TEXT prefix itself, `text` what they were made from, for people.
    """

    format: int = FORMAT
    method: str = "PREFIX_TUNING"
    base: BaseClaim = field(default_factory=BaseClaim)
    position_offset: Mapping[str, int] | None = None
    provenance: Mapping[str, Scalar] = field(default_factory=dict)
    token_ids: tuple[int, ...] | None = None
    text: str | None = None

    @property
    def base_model(self) -> str | None:
        name = self.provenance.get("base_model")
        return name if isinstance(name, str) else None


def dump(meta: PrefixMeta) -> str:
    """Canonical text; fields that say nothing are left out."""
    content: dict[str, object] = {"format": meta.format, "method": meta.method}
    base = {key: value for key, value in asdict(meta.base).items() if value is not None}
    if base:
        content["base"] = base
    if meta.position_offset is not None:
        content["position_offset"] = dict(meta.position_offset)
    if meta.provenance:
        content["provenance"] = dict(meta.provenance)
    if meta.token_ids is not None:
        content["token_ids"] = meta.token_ids
    if meta.text is not None:
        content["text"] = meta.text
    return strict_json.dumps(content)


def load(text: str) -> PrefixMeta:
    """Raises `InvalidPrefix` metadata, or duplicate."""
    try:
        content = strict_json.loads(text.encode("utf-8"))
    except strict_json.DuplicateKeyError:
        raise InvalidPrefix("duplicate", f"The metadata's {KEY} names a key twice.") from None
    except ValueError:
        raise _refused("is not valid JSON") from None
    if not isinstance(content, dict) or not {"format", "method"} <= content.keys() <= _FIELDS:
        raise _refused(f"needs format and method, and may have {', '.join(_OPTIONAL)}")
    if type(content["format"]) is not int or content["format"] != FORMAT:
        raise _refused(f"has a format other than {FORMAT}")
    method = content["method"]
    if not isinstance(method, str) or method not in METHODS:
        raise _refused(f"needs a method out of {', '.join(sorted(METHODS))}")
    return PrefixMeta(
        format=FORMAT,
        method=method,
        base=_base(content.get("base", {})),
        position_offset=_offsets(content.get("position_offset")),
        provenance=_provenance(content.get("provenance", {})),
        token_ids=_token_ids(content["token_ids"]) if "token_ids" in content else None,
        text=_text(content["text"]) if "text" in content else None,
    )


def _base(value: object) -> BaseClaim:
    if not isinstance(value, dict) or not value.keys() <= {*_SIZES, "architecture", "fingerprint"}:
        raise _refused("has an unknown claim in base")
    for key in _SIZES & value.keys():
        if not _is_size(value[key]) or value[key] == 0:
            raise _refused(f"needs a positive integer as base.{key}")
    if not isinstance(value.get("architecture", ""), str):
        raise _refused("needs a string as base.architecture")
    fingerprint = value.get("fingerprint")
    if fingerprint is not None and not (isinstance(fingerprint, str) and is_digest(fingerprint)):
        raise _refused("needs sha256:<64 hex digits> or null as base.fingerprint")
    return BaseClaim(**value)


def _offsets(value: object) -> Mapping[str, int] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not value.keys() <= KV_SITES:
        raise _refused("needs an object of attention sites as position_offset")
    if not all(_is_size(offset) for offset in value.values()):
        raise _refused("needs natural numbers in position_offset")
    return value


def _provenance(value: object) -> Mapping[str, Scalar]:
    if not isinstance(value, dict):
        raise _refused("needs an object as provenance")
    if any(isinstance(item, dict | list) for item in value.values()):
        raise _refused("needs plain values in provenance")
    return value


def _token_ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(_is_size(item) for item in value):
        raise _refused("needs a list of natural numbers, at least one, as token_ids")
    return tuple(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _refused("needs a string as text")
    return value


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _refused(what: str) -> InvalidPrefix:
    return InvalidPrefix("metadata", f"The metadata's {KEY} {what}.")
