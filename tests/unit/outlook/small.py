"""A small training, as a plan tells it."""

from dataclasses import replace

from uni_moe.outlook.training import Training
from uni_moe.train.fits import Room
from uni_moe.train.memory import Ranks
from uni_moe.train.work import Work

_SMALL = Training(
    learns={"router": 5},
    parameters=50,
    connectors={},
    memory=None,
    host=None,
    allocator="map",
    ranks=Ranks(),
    room=Room(1, "a test"),
    steps=10,
    draws_per_step=2.0,
    positions_per_step=100.0,
    labels_per_step=10.0,
    measured=True,
    older=False,
    work=Work(1e6, 2e6),
    pools={},
    looked=None,
    problem=None,
)


def training(world=1, **other):
    return replace(_SMALL, ranks=Ranks(world=world), **other)
