import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from amt.evaluation.splits import Cell, Split, make_cells, make_chunks, make_splits
from tests.problems import small_curves

TASKS = 4
CURVES = small_curves(TASKS)


def test_leave_one_out_has_every_task_as_target_once():
    splits = make_splits("made up", CURVES, kind="leave_one_out")
    assert [split.target.tasks[0] for split in splits] == [f"task {i}" for i in range(TASKS)]
    assert all(split.sources.num_tasks == TASKS - 1 for split in splits)


def test_chosen_pairs_keep_their_number():
    chosen = partial(make_splits, "made up", CURVES, kind="leave_one_out")
    assert [split.index for split in chosen(pair=2)] == [2]
    assert [split.index for split in chosen(pair=[3, 1])] == [3, 1]
    with pytest.raises(ValueError, match="no pair 4; leave_one_out of made up has pairs 0 to 3"):
        chosen(pair=4)
    with pytest.raises(ValueError, match="no split 'half'; there are paper, leave_one_out"):
        make_splits("made up", CURVES, kind="half")


def test_drawn_sources_are_those_of_every_repeat_and_never_the_target():
    both = dataclasses.replace(CURVES, scores=None, repeats=np.stack([CURVES.scores] * 2))
    chosen = partial(make_splits, "made up", both, kind="leave_one_out", num_sources=2)
    splits = chosen(draws=3, repeat="all")
    assert [split.index for split in splits] == [*range(3 * TASKS)] * 2
    for split in splits:
        assert split.target.tasks[0] == CURVES.tasks[split.index % TASKS]
        assert split.sources.num_tasks == len({*split.sources.tasks} - {*split.target.tasks}) == 2
    names = [split.sources.tasks for split in splits]
    assert names[: 3 * TASKS] == names[3 * TASKS :]
    assert len({tuple(drawn) for drawn in names[::TASKS]}) > 1
    assert [s.sources.tasks for s in chosen(repeat=1)] == names[:TASKS]
    with pytest.raises(ValueError, match="no number of sources 4; there are 1, 2, 3"):
        chosen(num_sources=TASKS)
    with pytest.raises(ValueError, match="no number of draws without num_sources 3; there are 1"):
        chosen(num_sources=None, draws=3)
    with pytest.raises(ValueError, match="no split with a number of sources 'paper'"):
        chosen(kind="paper")


def test_chunks_have_one_shape_and_all_cells():
    small, large = (Split(0, *next(small_curves(n).leave_one_out())) for n in (3, 4))
    cells = [Cell(split, seed) for seed in range(3) for split in (small, large)]
    chunks = make_chunks(cells, size=2)
    assert [len(chunk) for chunk in chunks] == [2, 1, 2, 1]
    assert all(len({cell.shape for cell in chunk}) == 1 for chunk in chunks)
    assert {id(c) for chunk in chunks for c in chunk} == {id(cell) for cell in cells}


def test_repeats_are_splits_of_their_own():
    both = np.stack([CURVES.scores, CURVES.scores + 1])
    curves = dataclasses.replace(CURVES, scores=None, repeats=both)
    chosen = partial(make_splits, "made up", curves, kind="leave_one_out", pair=[1, 0])
    splits = chosen(repeat="all")
    assert [(s.repeat, s.index) for s in splits] == [(0, 1), (0, 0), (1, 1), (1, 0)]
    assert_array_equal(splits[2].target.scores, both[1, 1:2])
    assert [(s.repeat, s.index) for s in chosen(repeat=1)] == [(1, 1), (1, 0)]
    mean = chosen()
    assert [s.repeat for s in mean] == [-1, -1]
    assert_array_equal(mean[0].target.scores, both[:, 1:2].mean(0))
    with pytest.raises(ValueError, match="no repeat 2; there are 0, 1"):
        chosen(repeat=[0, 2])
    single = make_splits("made up", CURVES, kind="leave_one_out", repeat=0)
    assert [s.repeat for s in single] == [0] * TASKS


def test_seeds_and_splits_draw_from_keys_of_their_own():
    splits = make_splits("made up", CURVES, kind="leave_one_out")[:2]
    keys = [cell.key for cell in make_cells(splits, seeds=2)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4
