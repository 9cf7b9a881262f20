# ruff: noqa: E402
"""Tuning on new tasks after learning from past ones, as in the AT2 paper.

```sh
python experiments/at2.py                                      # bundled database, about a minute
python experiments/at2.py database=lcbench kernel.config=matern inference=map
python experiments/at2.py database=hyperrec split=leave_one_out seeds=5
python experiments/at2.py database=losses.csv split=leave_one_out +database_options.minimise=true
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

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from amt.evaluation import store as results
from amt.evaluation.experiment import METHODS
from amt.evaluation.figures import LABELS, recommendation_figure, save_figure
from amt.evaluation.runs import Run, run

ROOT = Path(__file__).resolve().parents[1]


@hydra.main(version_base=None, config_path="conf", config_name="at2")
def main(conf: DictConfig) -> None:
    values: dict[str, Any] = OmegaConf.to_container(conf, resolve=True)  # pyright: ignore
    output, log_x = values.pop("output"), values.pop("log_x")
    folder = output_folder(values) if output is None else Path(output).resolve()
    console = Console()
    columns = TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn()
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
            bar = progress.add_task("chunks")
            done = run(
                values,
                folder,
                lambda number, total, stage: progress.update(
                    bar, completed=number, total=total, description=f"chunk {number}: {stage}"
                ),
            )
    except (KeyError, ValueError, FileNotFoundError) as error:
        sys.exit(f"at2.py: {error.args[0] if isinstance(error, KeyError) else error}")
    figure = recommendation_figure(done.frame, log_x=log_x)
    for ending in ("pdf", "png"):
        save_figure(figure, folder / f"figure.{ending}")
    if done.anew:
        console.print("Data, code or versions have changed: computed anew.")
    report(done, console)
    for file in ("figure.pdf", "figure.png", "results.parquet"):
        console.print(f"{folder / file}", soft_wrap=True, highlight=False)


def output_folder(values: dict[str, Any]) -> Path:
    """Where results of these settings go."""
    kernels, database = "-".join(values["kernel"].values()), Path(values["database"]).stem
    digest = results.fingerprint(repr(sorted(values.items())))[:8]
    return ROOT / "results" / "at2" / database / f"{kernels}-{digest}"


def report(done: Run, console: Console) -> None:
    """Print what came out, and how long it took."""
    summary = results.summarize(done.frame).set_index(["method", "query"])
    budgets = results.shown_budgets(set(done.frame["query"]))
    cells = done.timings["cells"]
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
    seconds = done.timings["seconds"] | {"this run": perf_counter() - _START}
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    chunks = done.computed + done.reused
    console.print(f"{done.computed} of {chunks} chunks computed: {parts}", soft_wrap=True)
    if done.timings["not_converged"]:
        console.print(f"{done.timings['not_converged']} fits had not converged: try more steps")
    if done.timings["r_hat"] is not None:
        console.print(
            f"largest R-hat {done.timings['r_hat']:.3f}, {done.timings['divergences']} divergences"
        )
    unscored = int(done.frame.loc[done.frame["method"] == "amt", "score"].isna().sum())
    if unscored:
        console.print(
            f"{unscored} queries of amt have no score: nothing was left to train, or the "
            "posterior was not finite"
        )


if __name__ == "__main__":
    main()
