"""Rows of results, from the trajectories of a tuner.

One row is one query of one method in one cell and order: `query` counts from 1 and is the number of
epochs spent so far, `epoch` is that of the database, and `rank`, `regret` and `normalized_regret`
(`amt.evaluation.metrics`) are those of the configuration `recommended` after it. `log_density`,
`coverage50` and `coverage90` are of the forecast of final scores (`amt.search.replay.Forecast`),
NaN for methods that make none. `stop` has bit i set from the query on after which the method would
stop by utility i of `amt.search.stopping.UTILITIES`; it is -1 for those that cannot stop. `repeat`
is the training run of the database, -1 the mean of all.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from amt.evaluation.metrics import normalized_regret, rank, regret
from amt.evaluation.splits import Cell
from amt.search.replay import Forecast, Trajectory

SCHEMA = pa.schema(
    {
        "database": pa.string(),
        "split": pa.int32(),
        "sources": pa.string(),
        "target": pa.string(),
        "repeat": pa.int32(),
        "seed": pa.int32(),
        "method": pa.string(),
        "order": pa.int32(),
        "query": pa.int32(),
        "config": pa.int32(),
        "epoch": pa.int32(),
        "score": pa.float64(),
        "recommended": pa.int32(),
        "rank": pa.int32(),
        "regret": pa.float64(),
        "normalized_regret": pa.float64(),
        "log_density": pa.float64(),
        "coverage50": pa.float64(),
        "coverage90": pa.float64(),
        "stop": pa.int32(),
    }
)
KEYS = SCHEMA.names[:9]


def result_table(
    database: str, cells: Sequence[Cell], method: str, trajectory: Trajectory
) -> pa.Table:
    """Rows of a method's trajectory, whose leading axes are cells and orders."""
    tables = []
    for index, cell in enumerate(cells):
        target = cell.split.target
        curves = target.scores[0]
        for order in range(trajectory.score.shape[1]):
            config, epoch, score, recommended = (
                np.asarray(leaf)[index, order] for leaf in trajectory[:4]
            )
            forecast: dict[str, Any] = dict.fromkeys(Forecast._fields, np.full(len(score), np.nan))
            if trajectory.forecast is not None:
                leaves = trajectory.forecast._asdict().items()
                forecast = {name: np.asarray(leaf)[index, order] for name, leaf in leaves}
            stop = np.full(len(score), -1)
            if trajectory.stop is not None:
                stopped = np.logical_or.accumulate(np.asarray(trajectory.stop)[index, order])
                stop = stopped @ (1 << np.arange(stopped.shape[1]))
            columns = {
                **_key_columns(database, cell, method, order, len(score)),
                "config": config,
                "epoch": target.epochs[epoch],
                "score": score,
                "recommended": recommended,
                "rank": rank(curves, recommended),
                "regret": regret(curves, recommended),
                "normalized_regret": normalized_regret(curves, recommended),
                **forecast,
                "stop": stop,
            }
            arrays = [pa.array(columns[f.name]).cast(f.type) for f in SCHEMA]
            tables.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
    return in_order(pa.concat_tables(tables))


def key_table(
    database: str, cells: Sequence[Cell], method: str, *, orders: int, budget: int
) -> pa.Table:
    """The columns `KEYS` of `result_table`."""
    keys = [
        pa.table({k: pa.array(v).cast(SCHEMA.field(k).type) for k, v in columns.items()})
        for cell in cells
        for order in range(orders)
        for columns in [_key_columns(database, cell, method, order, budget)]
    ]
    return in_order(pa.concat_tables(keys))


def in_order(table: pa.Table) -> pa.Table:
    """Rows by split, repeat, seed, method as they first appear, order and query; as one chunk."""
    methods = table["method"].to_pylist()
    place = {name: number for number, name in enumerate(dict.fromkeys(methods))}
    columns = ["query", "order", "seed", "repeat", "split"]
    query, order, *cell = (table[column].to_numpy() for column in columns)
    rows = np.lexsort((query, order, [place[name] for name in methods], *cell))
    return table.take(pa.array(rows)).combine_chunks()


def _key_columns(database: str, cell: Cell, method: str, order: int, budget: int) -> dict[str, Any]:
    return {
        "database": [database] * budget,
        "split": np.full(budget, cell.split.index),
        "sources": [",".join(cell.split.sources.tasks)] * budget,
        "target": [cell.split.target.tasks[0]] * budget,
        "repeat": np.full(budget, cell.split.repeat),
        "seed": np.full(budget, cell.seed),
        "method": [method] * budget,
        "order": np.full(budget, order),
        "query": np.arange(1, budget + 1),
    }
