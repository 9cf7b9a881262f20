# ruff: noqa: E402
"""Tuning on new tasks after learning from past ones, as in the AT2 paper.

```sh
python experiments/at2.py                                      # bundled database, about a minute
python experiments/at2.py database=lcbench kernel.config=matern
python experiments/at2.py database=hyperrec split=leave_one_out seeds=5
```

For each split and seed: learn the model from the source tasks, then spend `budget` epochs on the
target, one at a time. The rank and regret of the configuration that is recommended after each
epoch go to `results.parquet`, beside those of the trivial baselines; a run that is stopped goes on
where it was. All settings are in `conf/at2.yaml`.

Source: Xiao, Xing, Neiswanger (2021), section 5.
"""

from time import perf_counter

_START = perf_counter()

import os

# Every factorization is small: more threads of OpenBLAS, below those of XLA, only wait for each
# other, sometimes forever. It reads this when it is loaded, before the imports below return.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
import jax
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from amt import databases, results
from amt.experiment import METHODS, Cell, Experiment, Settings, make_cells, make_chunks, make_splits
from amt.plotting import LABELS, recommendation_figure, save_figure

ROOT = Path(__file__).resolve().parents[1]


@hydra.main(version_base=None, config_path="conf", config_name="at2")
def main(conf: DictConfig) -> None:
    values: dict[str, Any] = OmegaConf.to_container(conf, resolve=True)  # pyright: ignore
    output, log_x = values.pop("output"), values.pop("log_x")
    jax.config.update("jax_enable_x64", values["precision"] == "float64")
    console = Console()
    try:
        settings = read_settings(values)
        curves = databases.load(values["database"])
        curves = curves if values["repeat"] is None else curves.repeat(values["repeat"])
        splits = make_splits(values["database"], curves, kind=values["split"], pair=values["pair"])
        cells = make_cells(splits, seeds=values["seeds"])
        chunks = make_chunks(cells, size=values["chunk"])
        folder = output_folder(values) if output is None else Path(output).resolve()
        if results.open_folder(folder, values, provenance(cells)):
            console.print("Data, code or versions have changed: computing anew.")
    except (KeyError, ValueError, FileNotFoundError) as error:
        sys.exit(f"at2.py: {error.args[0] if isinstance(error, KeyError) else error}")

    experiment = Experiment(settings, chunk=max(len(chunk) for chunk in chunks))
    frame, computed = run(values["database"], chunks, experiment, folder, console)
    seconds = {**experiment.seconds, "all": perf_counter() - _START}
    results.write_json(
        folder / "timings.json",
        {
            "seconds": seconds,
            "chunks_computed": computed,
            "chunks_reused": len(chunks) - computed,
            "fits_not_converged": experiment.not_converged,
            "machine": platform.platform(),
            "host": platform.node(),
            "cores": os.cpu_count(),
            "device": str(jax.devices()[0].device_kind),
            "python": platform.python_version(),
            "jax": jax.__version__,
        },
    )
    figure = recommendation_figure(frame, log_x=log_x)
    for ending in ("pdf", "png"):
        save_figure(figure, folder / f"figure.{ending}")
    report(frame, seconds, computed, len(chunks), experiment.not_converged, console)
    for file in ("figure.pdf", "figure.png", "results.parquet"):
        console.print(f"{folder / file}", soft_wrap=True, highlight=False)


def run(
    database: str, chunks: list[list[Cell]], experiment: Experiment, folder: Path, console: Console
) -> tuple[pd.DataFrame, int]:
    """All rows, and how many chunks were computed; the others were there already."""
    tables, computed = [], 0
    columns = TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("chunks", total=len(chunks))
        for number, cells in enumerate(chunks):
            path = folder / "parts" / f"{number:04d}.parquet"
            table = results.read_part(
                path, database, cells, methods=METHODS, budget=experiment.settings.budget
            )
            if table is None:
                trajectories = experiment.run(
                    cells,
                    lambda stage, n=number: progress.update(bar, description=f"chunk {n}: {stage}"),
                )
                table = results.result_table(database, cells, trajectories)
                results.write_table(path, table)
                computed += 1
            tables.append(table)
            progress.advance(bar)
    merged = results.merge_parts(tables)
    results.write_table(folder / "results.parquet", merged)
    return merged.to_pandas(), computed


def read_settings(values: dict[str, Any]) -> Settings:
    """The part of the settings that a cell's numbers depend on."""
    inference = dict(values["inference"])
    options = dict(values["acquisition"])
    acquisition = options.pop("name")
    if acquisition != "ucb":
        options.pop("beta")
    return Settings(
        **values["kernel"],
        inference=inference.pop("name"),
        **inference,
        noise=values["noise"],
        precision=values["precision"],
        acquisition=acquisition,
        acquisition_options=options,
        budget=values["budget"],
    )


def output_folder(values: dict[str, Any]) -> Path:
    """Where results of these settings go."""
    kernels = "-".join(values["kernel"].values())
    digest = results.fingerprint(repr(sorted(values.items())))[:8]
    return ROOT / "results" / "at2" / values["database"] / f"{kernels}-{digest}"


def provenance(cells: list[Cell]) -> dict[str, str]:
    """What numbers depend on beside the settings."""
    splits = {cell.split.index: cell.split for cell in cells}.values()
    data = [a for s in splits for a in (s.sources.scores, s.sources.features, s.target.scores)]
    return {
        "data": results.fingerprint(*data),
        "code": results.code_fingerprint(),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "platform": jax.default_backend(),
    }


def report(
    frame: pd.DataFrame,
    seconds: dict[str, float],
    computed: int,
    chunks: int,
    not_converged: int,
    console: Console,
) -> None:
    """Print what came out, and how long it took."""
    summary = results.summarize(frame).set_index(["method", "query"])
    budgets = [b for b in (10, 25, 50, 100) if b in summary.index.levels[1]]  # pyright: ignore
    budgets = budgets or [summary.index.levels[1].max()]  # pyright: ignore
    cells = len(frame[["split", "seed"]].drop_duplicates())
    titles = {"rank": ("Rank", 1), "normalized_regret": ("Normalized regret (%)", 100)}
    for metric, (title, scale) in titles.items():
        table = Table(
            title=f"{title} of the recommended after some epochs, {cells} cells",
            box=SIMPLE_HEAD,
            show_edge=False,
            title_justify="left",
        )
        table.add_column("method", no_wrap=True)
        for budget in budgets:
            table.add_column(str(budget), justify="right", no_wrap=True)
        for method in METHODS:
            entries = []
            for budget in budgets:
                mean, error = scale * summary.loc[(method, budget), [metric, f"{metric}_error"]]
                entries.append(f"{mean:.1f}" if cells == 1 else f"{mean:.1f} ± {error:.1f}")
            table.add_row(LABELS[method], *entries)
        console.print(table)
        console.print()
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    console.print(f"{computed} of {chunks} chunks computed: {parts}", soft_wrap=True)
    if not_converged:
        console.print(f"{not_converged} fits had not converged: try more inference.steps")
    unscored = int(frame.loc[frame["method"] == "amt", "score"].isna().sum())
    if unscored:
        console.print(
            f"{unscored} queries of amt have no score: nothing was left to train, or the "
            "posterior was not finite"
        )


if __name__ == "__main__":
    main()
