import json
import math
from dataclasses import replace

import pytest

from cnn_jax.evaluation.estimate import Estimate


def test_prints_value_interval_and_n():
    percent = Estimate(0.98056, 0.96, 0.991, 360, "Wilson", percent=True)
    assert str(percent) == "98.06 % [96.0, 99.1], n = 360"
    plain = Estimate(0.51234, 0.4, 0.6, 12, "bootstrap (percentile)", n_seeds=3)
    assert str(plain) == "0.5123 [0.4000, 0.6000], n = 12, 3 seeds"
    gain = replace(percent, value=0.0417, low=-0.02, high=0.063, difference=True)
    assert str(gain) == "+4.17 points [-2.0, 6.3], n = 360"
    assert str(replace(plain, difference=True)).startswith("+0.5123 [0.4000, 0.6000]")
    assert "[no interval]" in str(Estimate(0.5, math.nan, math.nan, 1, "no interval"))


@pytest.mark.parametrize("low", [0.25, math.nan])
def test_survives_json(low):
    estimate = Estimate(0.5, low, 0.75, 8, "Wilson", unit="group", percent=True)
    text = json.dumps(estimate.to_dict(), allow_nan=False)
    again = Estimate.from_dict(json.loads(text))
    assert repr(again) == repr(estimate)  # NaN != NaN, but prints the same
