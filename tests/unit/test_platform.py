import json
import os
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn import functional as F

from uni_moe import routes
from uni_moe.config import Platform
from uni_moe.errors import ConfigError
from uni_moe.native import native
from uni_moe.platform import choose, machine, onednn_is_exact, recall, settle, take
from uni_moe.routes import Routes

PLAIN = Routes()
SWITCHES = {
    "matmul": ("default", "onednn"),
    "attention": ("fused", "plain"),
    "experts": ("reference", "grouped", "fused"),
    "elementwise": ("torch", "native"),
    "allocator": ("default", "keep", "map"),
}


@pytest.fixture
def _no_compiler(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    native.cache_clear()
    yield
    native.cache_clear()


@pytest.mark.parametrize(("switch", "value"), [(s, v) for s, vs in SWITCHES.items() for v in vs])
def test_what_is_asked_for_is_what_is_chosen(switch, value):
    asked = replace(Platform.auto(threads=1), **{switch: value})
    assert asdict(choose(asked))[switch] == value


def test_a_machine_always_chooses_the_same():
    assert choose(Platform.auto(threads=1)) == choose(Platform.auto(threads=1))


def test_a_route_through_onednn_is_taken_only_where_it_is_exact():
    found = choose(Platform.auto(threads=1))
    assert found.matmul == ("onednn" if onednn_is_exact() else "default")
    assert found.attention == ("plain" if found.matmul == "onednn" else "fused")


def test_probing_leaves_the_route_as_it_was():
    take(PLAIN)
    onednn_is_exact()
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


def fused_kernels():
    told = torch.backends.cuda
    return [
        told.flash_sdp_enabled(),
        told.mem_efficient_sdp_enabled(),
        told.cudnn_sdp_enabled(),
    ]


def test_taking_routes_sets_torch_and_tells_the_model():
    wanted = replace(PLAIN, threads=2, attention="plain", experts="fused")
    take(wanted)
    assert routes.current() == wanted
    assert torch.get_num_threads() == 2
    assert not any(fused_kernels())
    take(PLAIN)
    assert all(fused_kernels())


def test_what_was_settled_is_told_with_the_machine():
    told = settle(Platform.auto(threads=1))
    assert Routes.from_json({name: told[name] for name in asdict(PLAIN)}) == routes.current()
    assert {"device", "accelerator", "torch", "cpu", "machine", "native"} <= set(told)


def test_a_process_that_is_told_routes_takes_these_whatever_is_chosen_here(monkeypatch):
    told = replace(PLAIN, threads=2, attention="plain", experts="grouped")
    monkeypatch.setenv("UNI_MOE_ROUTES", json.dumps(told.to_json()))
    settle(Platform.auto(threads=1))
    assert routes.current() == told
    take(PLAIN)


@pytest.mark.usefixtures("_no_compiler")
def test_routes_of_a_record_are_taken_as_far_as_the_machine_has_them():
    choice = Platform.auto(threads=1)
    told = {"attention": "fused", "experts": "grouped", "elementwise": "native", "device": "cpu"}
    found = recall(told, choice)
    assert found == replace(choose(choice), attention="fused", experts="grouped")
    assert found.elementwise == "torch"


def test_an_accelerator_is_asked_for_the_same_bits_again(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    take(PLAIN)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("_no_compiler")
def test_a_machine_without_a_compiler_takes_torch():
    assert choose(Platform.auto(threads=1)).elementwise == "torch"
    assert machine()["native"] is None


@pytest.mark.usefixtures("_no_compiler")
def test_a_route_that_the_machine_lacks_is_refused_and_nothing_changes():
    take(PLAIN)
    with pytest.raises(ConfigError, match="no C compiler built it"):
        take(replace(PLAIN, elementwise="native", experts="grouped"))
    assert routes.current() == PLAIN


def test_every_route_of_products_computes_the_same_to_rounding():
    x, weight = torch.randn(64, 128), torch.randn(32, 128)
    exact = F.linear(x.double(), weight.double())
    for matmul in ("default", "onednn") if onednn_is_exact() else ("default",):
        take(replace(PLAIN, matmul=matmul))
        assert (F.linear(x, weight) - exact).abs().max() / exact.abs().max() < 1e-6
