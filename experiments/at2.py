# ruff: noqa: E402
"""Tuning on new tasks after learning from past ones, as in the AT2 paper.

```sh
python experiments/at2.py                                      # bundled database, about a minute
python experiments/at2.py database=lcbench kernel.config=matern inference=map
python experiments/at2.py database=hyperrec split=leave_one_out seeds=5
python experiments/at2.py tuners=[amt,task_regression] split=leave_one_out num_sources=4 draws=3
python experiments/at2.py database=losses.csv split=leave_one_out +database_options.minimise=true
python experiments/at2.py plugins=[mine.py] tuners=[amt,mine]  # mine.py registers a tuner
```

For each split and seed, each tuner (`amt.tuners`) learns from the source tasks, then spends
`budget` epochs on the target, one at a time. The rank and regret of the configuration that it
recommends after each epoch go to `results.parquet`; a run that is stopped goes on where it was, and
one with more tuners computes these alone. All settings are in `conf/at2.yaml`.

Source: Xiao, Xing, Neiswanger (2021), section 5.
"""

from time import perf_counter

_START = perf_counter()

import os

# Every factorization is small: more threads of OpenBLAS, below those of XLA, only wait for each
# other, sometimes forever. It reads this when it is loaded, before the imports below return.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from amt.evaluation.figures import recommendation_figure, save_figure
from amt.evaluation.progress import script_of_parts
from amt.evaluation.provenance import fingerprint
from amt.evaluation.runs import NOT_SHARED, Run, run
from amt.evaluation.settings import check_settings, run_main
from amt.evaluation.tables import console_tables

ROOT = Path(__file__).resolve().parents[1]


@hydra.main(version_base=None, config_path="conf", config_name="at2")
def main(conf: DictConfig) -> None:
    values: dict[str, Any] = OmegaConf.to_container(conf, resolve=True)  # pyright: ignore
    output, log_x = values.pop("output"), values.pop("log_x")
    folder = output_folder(values) if output is None else Path(str(output)).resolve()
    console = Console()
    with script_of_parts("at2.py", console) as progress:
        check_settings({"log_x": log_x})
        done = run(values, folder, progress)
    figure = recommendation_figure(done.frame, log_x=log_x)
    for ending in ("pdf", "png"):
        save_figure(figure, folder / f"figure.{ending}")
    if done.anew:
        console.print(f"Data, code or versions have changed: {', '.join(done.anew)} anew.")
    report(done, console)
    for file in ("figure.pdf", "figure.png", "results.parquet"):
        console.print(f"{folder / file}", soft_wrap=True, highlight=False)


def output_folder(values: dict[str, Any]) -> Path:
    """Where results of these settings go."""
    kernels, database = "-".join(values["kernel"].values()), Path(values["database"]).stem
    digest = fingerprint(repr(sorted((k, v) for k, v in values.items() if k not in NOT_SHARED)))[:8]
    return ROOT / "results" / "at2" / database / f"{kernels}-{digest}"


def report(done: Run, console: Console) -> None:
    """Print what came out, and how long it took."""
    for table in console_tables(done.frame, skipped=done.skipped):
        console.print(table)
        console.print()
    seconds = done.timings["seconds"] | {"this run": perf_counter() - _START}
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    parts = done.computed + done.reused
    console.print(f"{done.computed} of {parts} parts computed: {spent}", soft_wrap=True)
    for name, of_tuner in done.timings["tuners"].items():
        if of_tuner["not_converged"]:
            console.print(
                f"{of_tuner['not_converged']} fits of {name} had not converged: try more steps"
            )
        if of_tuner["r_hat"] is not None:
            console.print(
                f"{name}: largest R-hat {of_tuner['r_hat']:.3f}, "
                f"{of_tuner['divergences']} divergences"
            )
        rows = done.frame[done.frame["method"] == name]
        unscored = np.isnan(np.asarray(rows["score"])).sum()
        if unscored:
            console.print(
                f"{unscored} queries of {name} have no score: nothing was left to train, or the "
                "tuner's decision was not valid, such as of a posterior that is not finite"
            )


if __name__ == "__main__":
    run_main(main, "at2.py")
