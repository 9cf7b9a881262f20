"""Negative transfer: regret of tuners that learn from past tasks, the more of which are bad.

```sh
python experiments/negative_transfer.py                      # bundled, every third target
python experiments/negative_transfer.py database=hyperrec every=1 tuners=[task_regression,rgpe]
python experiments/negative_transfer.py kinds=[shuffled] shares=[0,0.1,0.5]
```

A bad source is a real one with its scores flipped in sign around the mean of each epoch, with that
mean for every configuration, or with its curves shuffled among them (`amt.evaluation.bad_sources`).
By default every third target, once. What is finished stays: the same command goes on where it was
stopped. Tables and figures are made by `amt.evaluation.negative_transfer`; all settings are in
`conf/negative_transfer.yaml`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in at2.py

from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from amt.evaluation.negative_transfer import transfer_run
from amt.evaluation.output import markdown
from amt.evaluation.progress import script_of_parts
from amt.evaluation.settings import run_main


@hydra.main(version_base=None, config_path="conf", config_name="negative_transfer")
def main(conf: DictConfig) -> None:
    values: Any = OmegaConf.to_container(conf, resolve=True)
    console = Console()
    with script_of_parts("negative_transfer.py", console) as progress:
        folder, table = transfer_run(values, progress)
    console.print(markdown(table), soft_wrap=True, highlight=False, markup=False)
    console.print(f"{folder / 'negative_transfer.md'}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run_main(main, "negative_transfer.py")
