import sys

import numpy as np
import pytest

from amt.memory import PeakMemory


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much a process has had")
def test_the_peak_counts_what_is_given_back_but_not_what_was_before():
    before = np.ones(2_000_000)
    with PeakMemory() as peak:
        np.ones(8_000_000)  # too much to come from what the process was given before
    assert 60e6 < peak.bytes < 70e6
    with PeakMemory() as peak:
        before.sum()
    assert peak.bytes < 2e6
