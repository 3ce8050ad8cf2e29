"""Repeated timed runs: how many, and what share of the processor."""

import time

from terazi.runtime.repeats import repeated


def test_three_times_whatever_it_takes():
    found, _ = repeated((lambda: 1.0, lambda: 2.0), repeats=7, seconds=0, threads=1)
    assert found == [[1.0] * 3, [2.0] * 3]


def test_no_more_than_asked():
    assert repeated((lambda: 1.0,), repeats=2, seconds=0, threads=1)[0] == [[1.0] * 2]
    assert repeated((lambda: 1.0,), repeats=5, seconds=60, threads=1)[0] == [[1.0] * 5]


def test_the_share_counts_threads_and_waiting():
    def sleep():
        time.sleep(0.05)
        return 0.0

    _, share = repeated((sleep,), repeats=3, seconds=0, threads=1)
    assert 0 <= share < 0.5
    _, busy = repeated((lambda: float(sum(range(200_000))),), repeats=3, seconds=0, threads=4)
    assert 0 < busy <= 0.3
