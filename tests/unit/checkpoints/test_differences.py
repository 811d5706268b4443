"""What `uni-moe diff` says of merged adapters, whatever else happened to the experts."""

import json

import pytest
import torch

from tests.unit.checkpoints.conftest import load


@pytest.fixture
def merged(adapted, tmp_path, command):
    """The model, and the same with an adapter merged."""
    folder, adapter, _ = adapted
    out = tmp_path / "merged"
    assert command("surgery", folder, "--merge", adapter, "--out", out)[0] == 0
    return folder, out


def redrawn(folder, out, *, keep=()):
    """Write a model whose experts are drawn anew, but for the receipts beside it."""
    model = load(folder)
    with torch.no_grad():
        for layer in model.sparse_layers().values():
            for stack in (layer.experts.gate_up_proj, layer.experts.down_proj):
                for slot in range(len(stack)):
                    if slot not in keep:
                        stack[slot].normal_()
    model.save_pretrained(out)
    (out / "receipt.json").write_bytes((folder / "receipt.json").read_bytes())
    return out


def experts(command, a, b):
    found = json.loads(command("diff", a, b, "--json")[1])["experts"]
    return [one for one in found if one["slot"] is not None and one["layer"] == 0]


def test_an_expert_drawn_anew_is_no_lora_delta(merged, tmp_path, command):
    folder, after = merged
    other = redrawn(after, tmp_path / "other", keep=[1])
    one, two = experts(command, folder, other)
    assert (one["kind"], one["origin"]) == ("changed", None)
    assert (two["kind"], two["origin"], two["rank"]) == ("low rank", "adapter", 2)


def test_a_delta_is_followed_to_the_slot_where_its_expert_went(merged, tmp_path, command):
    folder, after = merged
    turned = tmp_path / "turned"
    assert command("surgery", after, "--permute", "1,0", "--out", turned)[0] == 0
    for slot, one in enumerate(experts(command, folder, turned)):
        assert (one["kind"], one["source"], one["origin"]) == ("low rank", 1 - slot, "adapter")
    told = command("diff", folder, turned)[1]
    assert "expert   0  LoRA delta by adapter, against expert 1 of A: rank 2, norm" in told
    assert "self_attn.q_proj.weight  LoRA delta by adapter: rank 2" in told
    assert {one["origin"] for one in experts(command, after, turned)} == {None}


def test_a_donor_does_not_inherit_the_adapter_of_what_it_replaced(merged, tmp_path, command):
    folder, after = merged
    donor = redrawn(folder, tmp_path / "donor")
    out = tmp_path / "out"
    assert command("surgery", after, "--replace", "0", donor, "--out", out)[0] == 0
    one, two = experts(command, folder, out)
    assert (one["kind"], one["origin"]) == ("replaced", "donor[0]")
    assert (two["kind"], two["origin"]) == ("low rank", "adapter")


def test_rounding_hides_a_rank_but_not_the_adapter_that_a_receipt_tells(adapted, tmp_path, command):
    folder, adapter, _ = adapted
    half, out, turned = (tmp_path / name for name in ("half", "out", "turned"))
    load(folder).to(torch.bfloat16).save_pretrained(half)
    assert command("surgery", half, "--merge", adapter, "--out", out)[0] == 0
    assert command("surgery", out, "--permute", "1,0", "--out", turned)[0] == 0
    found = experts(command, half, turned)
    assert {one["origin"] for one in found} == {"adapter"}
    assert [one["source"] for one in found] == [1, 0]
    assert any(one["rank"] is None for one in found)
    other = redrawn(turned, tmp_path / "other")
    assert {one["kind"] for one in experts(command, half, other)} == {"changed"}
