import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ConfigSpace import ConfigurationSpace, Float
from numpy.testing import assert_allclose, assert_array_equal

from amt.curves import LearningCurves
from amt.evaluation.metrics import normalized_regret, rank, regret
from amt.evaluation.rows import SCHEMA, key_table, result_table
from amt.evaluation.splits import Cell, Split
from amt.evaluation.store import (
    Part,
    is_outdated,
    merge_parts,
    open_folder,
    read_part,
    write_part,
    write_table,
)
from amt.search.replay import Forecast, Trajectory

METHODS = ("source_best", "amt", "another")
BUDGET, ORDERS, CONFIGS, EPOCHS = 4, 2, 5, 3
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
PROVENANCE = {"code": "1", "settings": {"steps": (1, 2)}}


def drawn(split: int, seed: int, method: str):
    seeds = [split, seed, METHODS.index(method)]
    return np.random.default_rng(seeds).integers(0, 3, (3, ORDERS, BUDGET))


def make_table(cells, method):
    index = np.array([drawn(c.split.index, c.seed, method) for c in cells])
    score = index[:, 0] / 7
    forecast = Forecast(score, score / 2, score / 3) if method == "amt" else None
    trajectory = Trajectory(index[:, 0], index[:, 1], score, index[:, 2], forecast)
    return result_table("made up", cells, method, trajectory)


def make_tables(cells):
    return [make_table(cells, method) for method in METHODS]


def make_part(cells, provenance=PROVENANCE):
    return Part(make_table(cells, "amt"), {"provenance": provenance, "seconds": {}})


def read(path, cells, budget=BUDGET, provenance=PROVENANCE):
    keys = key_table("made up", cells, "amt", orders=ORDERS, budget=budget)
    return read_part(path, keys, provenance)


def test_rows_say_who_did_what_and_how_good_it_was():
    frame = merge_parts(make_tables(CELLS)).to_pandas()
    assert list(frame.columns) == SCHEMA.names
    assert len(frame) == len(CELLS) * len(METHODS) * ORDERS * BUDGET
    rows = frame[(frame["split"] == 1) & (frame["seed"] == 1) & (frame["method"] == "source_best")]
    rows = rows[rows["order"] == 1]
    expected = drawn(1, 1, "source_best")[:, 1]
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
    whole = merge_parts(make_tables(CELLS))
    starts = (4, 0, 2)
    parts = [make_table(CELLS[s : s + 2], method) for method in METHODS for s in starts]
    write_table(tmp_path / "whole.parquet", merge_parts([whole]))
    write_table(tmp_path / "parts.parquet", merge_parts(parts))
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
    frame = whole.to_pandas()
    place = frame["method"].map(list(METHODS).index)
    columns = frame["split"], frame["seed"], place, frame["order"], frame["query"]
    keys = list(zip(*columns, strict=True))
    assert keys == sorted(keys)


def test_a_part_is_read_back(tmp_path):
    part = make_part(CELLS[:2])
    write_part(tmp_path / "amt" / "part.parquet", part)
    again = read(tmp_path / "amt" / "part.parquet", CELLS[:2])
    assert again is not None
    assert again.table.schema == part.table.schema
    pd.testing.assert_frame_equal(again.table.to_pandas(), part.table.to_pandas())
    written = sorted(path.name for path in (tmp_path / "amt").iterdir())
    assert written == ["part.json", "part.parquet"]


@pytest.mark.parametrize(
    "damage", ["absent", "empty", "cut", "flipped", "cells", "budget", "rows", "record"]
)
def test_a_part_that_is_not_whole_is_not_used(tmp_path, damage):
    path, part = tmp_path / "part.parquet", make_part(CELLS[:2])
    write_part(path, part if damage != "rows" else part._replace(table=part.table.slice(1)))
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
    elif damage == "record":
        path.with_suffix(".json").unlink()
    assert read(path, cells, budget) is None


def test_a_part_is_used_only_for_the_same_provenance(tmp_path):
    path = tmp_path / "part.parquet"
    assert not is_outdated(path, PROVENANCE)
    write_part(path, make_part(CELLS[:2]))
    other = {**PROVENANCE, "code": "2"}
    assert read(path, CELLS[:2]) is not None
    assert not is_outdated(path, PROVENANCE)
    assert read(path, CELLS[:2], provenance=other) is None
    assert is_outdated(path, other)
    # Killed between rows and record: the new rows are not taken for the old ones, nor used.
    write_table(path, make_part(CELLS[:2]).table)
    assert read(path, CELLS[:2], provenance=other) is None


def test_a_folder_is_taken_up_again_only_with_the_same_settings(tmp_path):
    settings = {"steps": 3}
    open_folder(tmp_path, settings)
    part, left_over = (tmp_path / "parts/amt" / f for f in ("0000.parquet", "0001.parquet.7.tmp"))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"part")
    left_over.write_bytes(b"half")

    open_folder(tmp_path, settings)
    assert part.exists()
    assert not left_over.exists()
    with pytest.raises(ValueError, match="other settings"):
        open_folder(tmp_path, {"steps": 4})
    assert part.exists()
    assert json.loads((tmp_path / "settings.json").read_text()) == {"settings": settings}
