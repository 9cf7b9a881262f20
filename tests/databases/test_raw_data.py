"""The data sets of the bundled database, split and padded."""

import numpy as np

from amt.databases.raw_data import DATASETS, make_task


def test_splits_are_disjoint_stratified_and_from_the_key():
    features, labels = DATASETS["breast_cancer"]()
    task, same, other = (make_task("breast_cancer", key) for key in (0, 0, 1))
    np.testing.assert_array_equal(task.x, same.x)
    assert (task.x != other.x).any()
    rows = np.concatenate([task.x[: task.train], task.eval_x[: task.validation + task.test]])
    assert len(np.unique(rows[:, : task.features], axis=0)) == len(np.unique(features, axis=0))
    splits = np.split(task.eval_y[: task.validation + task.test], [task.validation])
    for split in (task.y[: task.train], *splits):
        assert abs(split.mean() - labels.mean()) < 0.02
    np.testing.assert_allclose(task.x[: task.train, : task.features].mean(0), 0, atol=0.1)
