"""What ranks must have in common before they train."""

from dataclasses import replace

import pytest

from uni_moe import routes
from uni_moe.machine import Machine
from uni_moe.train.phases import goes_by


@pytest.fixture
def by():
    """What a rank goes by on routes that were changed so."""
    before = routes.current()

    def found(**changes):
        routes.use(replace(before, **changes))
        return goes_by("tune-0", Machine())

    yield found
    routes.use(before)


@pytest.mark.parametrize(
    "changes",
    [{"threads": 99}, {"matmul": "other"}, {"attention": "other"}, {"experts": "other"}],
)
def test_ranks_on_other_routes_would_not_train_the_same(by, changes):
    assert by(**changes) != by()


def test_an_allocator_is_each_machines_own(by):
    assert by(allocator="other") == by()


def test_ranks_must_have_one_kind_of_machine(by):
    assert {"its torch", "its cpu", "its accelerator", "its native"} <= set(by())
