"""All tuners on one protocol: every task in turn the target of all others, and of four drawn.

```sh
python experiments/compare.py profile=quick                    # own tuners, every third target
python experiments/compare.py profile=full                     # all targets, three repetitions
python experiments/compare.py profile=full tuners=[all]        # wrapped libraries too
python experiments/compare.py database=lcbench num_sources=null tuners=[amt,rgpe,asha]
python experiments/compare.py profile=full cluster=local       # jobs side by side
```

A job is one database and one number of sources. What is finished stays: the same command goes on
where it was stopped, tuner by tuner and chunk by chunk, and one with more tuners computes these
alone. Each job, and all databases together, get a table, tests and a critical-difference diagram
(`amt.evaluation.comparison`), and a table of the regret of U(b, y) = y - a (b / B)^c, y the best
score after b of the budget B, cost where known and else epochs: of tuners that can stop, such as
`task_regression_stopping`, at their stop, of others after the whole budget, and of all at the best
stop in hindsight (`amt.evaluation.utility`). All settings are in `conf/compare.yaml`.

Source: Xiao, Xing, Neiswanger (2021), section 5; Demsar (2006) for the tests; Lee et al. (2025),
Cost-Sensitive Freeze-Thaw Bayesian Optimization, for the utility.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in at2.py

from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from amt.evaluation.comparison import comparison_run, console_of_comparison
from amt.evaluation.progress import script_of_parts
from amt.evaluation.settings import run_main


@hydra.main(version_base=None, config_path="conf", config_name="compare")
def main(conf: DictConfig) -> None:
    values: dict[str, Any] = OmegaConf.to_container(conf, resolve=True)  # pyright: ignore
    console = Console()
    with script_of_parts("compare.py", console) as progress:
        folder, table = comparison_run(values, progress)
    console.print(console_of_comparison(table, folder.name))
    console.print(f"{folder / 'comparison.md'}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run_main(main, "compare.py")
