"""The defining behaviour of each tuner that learns from curves of past tasks."""

import numpy as np

from tests.tuners.problems import BEST, SOURCES, host_tuner


def test_the_nearest_task_says_what_is_best():
    tuner = host_tuner("nearest_task")
    z = (BEST - BEST.mean(1, keepdims=True)) / BEST.std(1, keepdims=True)
    start = int(np.argmax(z.mean(0)))
    assert tuner.ask(np.ones(SOURCES.scores.shape[1:], bool)) == tuner.recommend() == start
    for source in (4, 1):
        tuner = host_tuner("nearest_task")
        for epoch in range(2):
            tuner.tell(start, epoch, SOURCES.scores[source, start, epoch] + 1e-4)
        assert tuner.recommend() == np.argmax(BEST[source])
