"""What past tasks are worth: epochs to come near the best, against the number of past tasks.

```sh
python experiments/roi.py                             # bundled, every third target, two draws
python experiments/roi.py database=hyperrec every=1 draws=3
python experiments/roi.py sources=[1,4,all] tuners=[task_regression,best_list]
```

No transfer is freeze-thaw optimization (the tuner `freeze_thaw`), which stands for 0 sources, and
random search. The cost of collecting the sources is counted, so that the later project after which
they have paid for themselves can be read off. By default every third target and two draws of
sources. What is finished stays: the same command goes on where it was stopped. Tables and figures
are made by `amt.evaluation.roi`; all settings are in `conf/roi.yaml`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in at2.py

from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from amt.evaluation.output import markdown
from amt.evaluation.progress import script_of_parts
from amt.evaluation.roi import roi_run
from amt.evaluation.settings import run_main


@hydra.main(version_base=None, config_path="conf", config_name="roi")
def main(conf: DictConfig) -> None:
    values: Any = OmegaConf.to_container(conf, resolve=True)
    console = Console()
    with script_of_parts("roi.py", console) as progress:
        folder, table = roi_run(values, progress)
    console.print(markdown(table), soft_wrap=True, highlight=False, markup=False)
    console.print(f"{folder / 'roi.md'}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run_main(main, "roi.py")
