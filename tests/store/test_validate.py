"""Whether a well-formed prefix fits a model, and what is said when it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefixmux_store.errors import IncompatiblePrefix, InvalidPrefix, UnsupportedMethod
from prefixmux_store.format import BaseClaim, PrefixMeta, RawTensor, encode, parse
from prefixmux_store.validate import ModelShape, SiteShape, check_model
from store.makers import HIDDEN, SEQ2SEQ, SHAPE, kv, tensor


def check(
    tensors: dict[str, RawTensor], meta: PrefixMeta | None = None, shape: ModelShape = SHAPE
) -> None:
    check_model(parse(encode(tensors, meta or PrefixMeta())), shape)


def test_a_prefix_that_claims_nothing_is_judged_by_its_shape() -> None:
    check({"decoder": kv()})
    check({"decoder": kv(tokens=64)})


def test_every_true_claim_is_accepted() -> None:
    base = BaseClaim(
        architecture=SHAPE.architecture,
        layers=SHAPE.layers,
        kv_heads=SHAPE.kv_heads,
        head_dim=SHAPE.head_dim,
        hidden=SHAPE.hidden,
        vocab=SHAPE.vocabulary,
        fingerprint=SHAPE.fingerprint,
    )
    check({"decoder": kv()}, PrefixMeta(base=base))


@pytest.mark.parametrize(
    ("base", "both"),
    [
        (BaseClaim(architecture="OtherForCausalLM"), ("OtherForCausalLM", "TinyForCausalLM")),
        (BaseClaim(layers=5), ("layers 5", "2 in the model")),
        (BaseClaim(kv_heads=9), ("kv_heads 9", "2 in the model")),
        (BaseClaim(head_dim=7), ("head_dim 7", "4 in the model")),
        (BaseClaim(hidden=13), ("hidden 13", "12 in the model")),
        (BaseClaim(vocab=97), ("vocabulary 97", "96 in the model")),
        (BaseClaim(fingerprint="sha256:" + "b" * 64), ("sha256:bbb", "sha256:aaa")),
    ],
)
def test_a_false_claim_is_refused_and_both_sides_are_named(
    base: BaseClaim, both: tuple[str, str]
) -> None:
    with pytest.raises(IncompatiblePrefix) as caught:
        check({"decoder": kv()}, PrefixMeta(base=base))
    assert caught.value.code == "incompatible_prefix"
    assert all(side in caught.value.message for side in both)


def test_a_fingerprint_is_compared_only_when_the_model_has_one() -> None:
    base = BaseClaim(fingerprint="sha256:" + "b" * 64)
    check({"decoder": kv()}, PrefixMeta(base=base), replace(SHAPE, fingerprint=None))


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((3, 2, 3, 2, 4), "layers at decoder 3"),
        ((1, 2, 3, 2, 4), "layers at decoder 1"),
        ((2, 2, 3, 3, 4), "kv_heads at decoder 3"),
        ((2, 2, 3, 1, 4), "kv_heads at decoder 1"),
        ((2, 2, 3, 2, 5), "head_dim at decoder 5"),
        ((2, 2, 3, 4, 2), "kv_heads at decoder 4"),
        ((2, 2, 3, 1, 8), "kv_heads at decoder 1"),
    ],
)
def test_another_shape_is_refused(shape: tuple[int, ...], what: str) -> None:
    with pytest.raises(IncompatiblePrefix, match=what):
        check({"decoder": tensor(shape)})


@pytest.mark.parametrize("site", ["encoder", "cross"])
def test_a_site_that_the_model_lacks_is_refused(site: str) -> None:
    advice = f"{site}; the model has: decoder.*encoder-decoder model, or leave the tensor {site}"
    for tensors in ({site: kv()}, {"decoder": kv(), site: kv()}):
        with pytest.raises(IncompatiblePrefix, match=advice):
            check(tensors)


def test_encoder_decoder_models_have_three_sites_of_their_own_shapes() -> None:
    check({"decoder": kv(3), "encoder": tensor((3, 2, 5, 2, 4)), "cross": kv(1)}, shape=SEQ2SEQ)
    with pytest.raises(IncompatiblePrefix, match="layers at encoder 2 in the prefix, 3"):
        check({"encoder": kv()}, shape=SEQ2SEQ)
    without = {site: SEQ2SEQ.sites[site] for site in ("decoder", "encoder")}
    with pytest.raises(IncompatiblePrefix, match="cross; the model has: decoder, encoder"):
        check({"cross": kv()}, shape=replace(SEQ2SEQ, sites=without))


@pytest.mark.parametrize("method", ["INFIX_TUNING", "INFIX_EMBEDDING"])
def test_an_infix_needs_a_decoder_only_model(method: str) -> None:
    tensors = {"decoder": kv()}
    if method == "INFIX_EMBEDDING":
        tensors["embeddings"] = tensor((3, HIDDEN))
    served = (*SHAPE.methods, method)
    check(tensors, PrefixMeta(method=method), replace(SHAPE, methods=served))
    with pytest.raises(UnsupportedMethod, match=f"{method} needs a decoder-only model.*train"):
        check(tensors, PrefixMeta(method=method), replace(SEQ2SEQ, methods=served))


def test_what_runs_as_a_decoder_only_models_inputs_shifts_what_follows() -> None:
    served, said = ("TEXT", "P_TUNING"), {"decoder": 0, "encoder": 0}
    words = PrefixMeta(method="TEXT", token_ids=(1, 2), position_offset=said)
    virtual = PrefixMeta(method="P_TUNING", position_offset=said)
    both: tuple[tuple[PrefixMeta, dict[str, RawTensor]], ...] = (
        (words, {}),
        (virtual, {"embeddings": tensor((3, HIDDEN))}),
    )
    for meta, tensors in both:
        check(tensors, meta, replace(SEQ2SEQ, methods=served))
        with pytest.raises(IncompatiblePrefix, match="leave decoder out of position_offset"):
            check(tensors, meta, replace(SHAPE, methods=served))
        check(tensors, replace(meta, position_offset={}), replace(SHAPE, methods=served))


def test_the_ids_of_a_text_are_of_the_vocabulary() -> None:
    shape = replace(SHAPE, methods=("TEXT",))
    check({}, PrefixMeta(method="TEXT", token_ids=(0, 95)), shape)
    with pytest.raises(IncompatiblePrefix, match="token id 96 in the prefix, 96 tokens"):
        check({}, PrefixMeta(method="TEXT", token_ids=(1, 96, 2)), shape)
    with pytest.raises(InvalidPrefix, match="65 virtual tokens; 64") as caught:
        check({}, PrefixMeta(method="TEXT", token_ids=(1,) * 65), shape)
    assert caught.value.reason == "too_long"


def test_keys_and_values_of_two_sizes_cannot_come_from_one_tensor() -> None:
    shape = replace(SHAPE, sites={"decoder": SiteShape(2, 2, 4, 8)})
    with pytest.raises(IncompatiblePrefix, match="4 and 8"):
        check({"decoder": kv()}, shape=shape)


def test_embeddings_have_the_models_width() -> None:
    meta = PrefixMeta(method="PROMPT_TUNING")
    check({"embeddings": tensor((5, HIDDEN))}, meta)
    with pytest.raises(IncompatiblePrefix, match="embedding width 13"):
        check({"embeddings": tensor((5, HIDDEN + 1))}, meta)
    narrow = replace(SHAPE, embedding_width=5)
    check({"embeddings": tensor((5, 5))}, meta, narrow)
    with pytest.raises(IncompatiblePrefix, match="embedding width 12 in the prefix, 5"):
        check({"embeddings": tensor((5, HIDDEN))}, meta, narrow)


def test_a_method_that_is_not_served_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedMethod, match=r"INFIX_TUNING.*: PREFIX_TUNING") as caught:
        check({"decoder": kv()}, PrefixMeta(method="INFIX_TUNING"))
    assert caught.value.code == "unsupported_method"


def test_too_many_tokens_are_refused() -> None:
    with pytest.raises(InvalidPrefix, match="65 virtual tokens; 64") as caught:
        check({"decoder": kv(tokens=65)})
    assert caught.value.reason == "too_long"


def test_a_claim_is_shown_short_and_printable() -> None:
    base = BaseClaim(architecture="\u202e" + "x" * 1000)
    with pytest.raises(IncompatiblePrefix) as caught:
        check({"decoder": kv()}, PrefixMeta(base=base))
    assert "\u202e" not in caught.value.message
    assert len(caught.value.message) < 300
