import math

import pytest

from uni_moe.train.schedule import cosine_with_warmup


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.25), (3, 1.0), (4, 1.0), (52, 0.5), (99, 0.5 * (1 + math.cos(math.pi * 95 / 96)))],
)
def test_the_rate_warms_up_then_falls_by_half_a_cosine(step, share):
    assert cosine_with_warmup(step, steps=100, warmup_share=0.04) == pytest.approx(share)


def test_without_warmup_the_first_step_has_the_full_rate():
    assert cosine_with_warmup(0, steps=10, warmup_share=0.0) == 1.0


@pytest.mark.parametrize(
    ("steps", "warmup_share", "table"),
    [
        (4, 0.5, [0.5, 1.0, 1.0, 0.5]),
        (4, 0.3, [0.5, 1.0, 1.0, 0.5]),  # 1.2 steps of warm-up are two
        (4, 0.0, [1.0, 0.853553, 0.5, 0.146447]),
        (3, 1.0, [1 / 3, 2 / 3, 1.0]),
        (1, 0.03, [1.0]),
    ],
)
def test_whole_schedules_read_like_this(steps, warmup_share, table):
    found = [cosine_with_warmup(s, steps=steps, warmup_share=warmup_share) for s in range(steps)]
    assert found == pytest.approx(table, abs=1e-6)
