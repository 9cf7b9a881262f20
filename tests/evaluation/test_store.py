import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ConfigSpace import ConfigurationSpace, Float
from numpy.testing import assert_allclose, assert_array_equal

from amt.curves import LearningCurves
from amt.evaluation.experiment import METHODS, Cell, Split
from amt.evaluation.metrics import normalized_regret, rank, regret
from amt.evaluation.store import (
    SCHEMA,
    fingerprint,
    merge_parts,
    open_folder,
    read_part,
    result_table,
    summarize,
    write_json,
    write_table,
)
from amt.search.simulate import Forecast, Trajectory

BUDGET, CONFIGS, EPOCHS = 4, 5, 3
RANDOM = np.random.default_rng(0)
CURVES = LearningCurves(
    configs=[{"x": i / CONFIGS} for i in range(CONFIGS)],
    space=ConfigurationSpace({"x": Float("x", (0, 1))}),
    tasks=["a", "b", "c"],
    scores=RANDOM.uniform(size=(3, CONFIGS, EPOCHS)),
    epochs=np.array([1, 3, 9]),
)
SPLITS = [Split(i, *pair) for i, pair in enumerate(CURVES.leave_one_out())]
CELLS = [Cell(split, seed) for split in SPLITS for seed in range(2)]


def make_table(cells):
    def trajectory(method):
        seeds = [[c.split.index, c.seed, METHODS.index(method)] for c in cells]
        index = np.array([np.random.default_rng(s).integers(0, 3, (3, BUDGET)) for s in seeds])
        score = index[:, 0] / 7
        forecast = Forecast(score, score / 2, score / 3) if method == "amt" else None
        return Trajectory(index[:, 0], index[:, 1], score, index[:, 2], forecast)

    return result_table("made up", cells, {m: trajectory(m) for m in METHODS})


def read(path, cells):
    return read_part(path, "made up", cells, methods=METHODS, budget=BUDGET)


def test_rows_say_who_did_what_and_how_good_it_was():
    frame = make_table(CELLS).to_pandas()
    assert list(frame.columns) == SCHEMA.names
    assert len(frame) == len(CELLS) * len(METHODS) * BUDGET
    rows = frame[(frame["split"] == 1) & (frame["seed"] == 1) & (frame["method"] == "source_best")]
    expected = np.random.default_rng([1, 1, 2]).integers(0, 3, (3, BUDGET))
    target = CURVES.scores[1]
    assert set(rows["sources"]) == {"a,c"}
    assert set(rows["target"]) == {"b"}
    assert_array_equal(rows["query"], [1, 2, 3, 4])
    assert_array_equal(rows["config"], expected[0])
    assert_array_equal(rows["epoch"], np.array([1, 3, 9])[expected[1]])
    assert_array_equal(rows["rank"], rank(target, expected[2]))
    assert_allclose(rows["regret"], regret(target, expected[2]))
    assert_allclose(rows["normalized_regret"], normalized_regret(target, expected[2]))
    assert rows[["log_density", "coverage50", "coverage90"]].isna().all(axis=None)
    assert set(rows["repeat"]) == {0}
    rows = frame[frame["method"] == "amt"]
    assert_array_equal(rows["log_density"], rows["score"])
    assert_array_equal(rows["coverage90"], rows["score"] / 3)


def test_rows_are_in_one_order_whatever_the_chunks(tmp_path):
    whole = make_table(CELLS)
    parts = [make_table(CELLS[start : start + 2]) for start in (4, 0, 2)]
    write_table(tmp_path / "whole.parquet", merge_parts([whole]))
    write_table(tmp_path / "parts.parquet", merge_parts(parts))
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
    frame = whole.to_pandas()
    place = frame["method"].map(list(METHODS).index)
    keys = list(zip(frame["split"], frame["seed"], place, frame["query"], strict=True))
    assert keys == sorted(keys)


def test_a_part_is_read_back(tmp_path):
    table = make_table(CELLS[:2])
    write_table(tmp_path / "part.parquet", table)
    again = read(tmp_path / "part.parquet", CELLS[:2])
    assert again.schema == table.schema
    pd.testing.assert_frame_equal(again.to_pandas(), table.to_pandas())
    assert [path.name for path in tmp_path.iterdir()] == ["part.parquet"]


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "flipped", "cells", "budget", "rows"])
def test_a_part_that_is_not_whole_is_not_used(tmp_path, damage):
    path, table = tmp_path / "part.parquet", make_table(CELLS[:2])
    write_table(path, table if damage != "rows" else table.slice(1))
    cells, budget, content = CELLS[:2], BUDGET, path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        metadata = pq.ParquetFile(path).metadata.row_group(0).column(9)
        at = metadata.data_page_offset + metadata.total_compressed_size // 2
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    elif damage == "cells":
        cells = CELLS[2:4]
    elif damage == "budget":
        budget = BUDGET + 1
    assert read_part(path, "made up", cells, methods=METHODS, budget=budget) is None


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path):
    path = tmp_path / "content.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_folder_is_taken_up_again_only_for_the_same_numbers(tmp_path):
    settings, provenance = {"steps": 3}, {"code": "1"}
    assert not open_folder(tmp_path, settings, provenance)
    part, left_over = tmp_path / "parts/0000.parquet", tmp_path / "parts/0001.parquet.7.tmp"
    part.write_bytes(b"part")
    left_over.write_bytes(b"half")

    assert not open_folder(tmp_path, settings, provenance)
    assert part.exists()
    assert not left_over.exists()
    with pytest.raises(ValueError, match="other settings"):
        open_folder(tmp_path, {"steps": 4}, provenance)
    assert part.exists()
    assert open_folder(tmp_path, settings, {"code": "2"})
    assert not part.exists()


def test_a_fingerprint_tells_values_types_and_shapes_apart():
    zeros = [np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), "zeros", np.ones(4)]
    assert len({fingerprint(item) for item in zeros}) == len(zeros)
    assert fingerprint(np.zeros((2, 2)).T) == fingerprint(np.zeros((2, 2)))


def test_summary_is_the_mean_over_cells_and_its_standard_error():
    frame = make_table(CELLS).to_pandas().sample(frac=1, random_state=0)
    summary = summarize(frame)
    assert list(dict.fromkeys(summary["method"])) == list(METHODS)
    rows = frame[(frame["method"] == "amt") & (frame["query"] == 3)]
    one = summary[(summary["method"] == "amt") & (summary["query"] == 3)].iloc[0]
    assert one["rank"] == pytest.approx(rows["rank"].mean())
    assert one["rank_error"] == pytest.approx(rows["rank"].std() / np.sqrt(len(CELLS)))
