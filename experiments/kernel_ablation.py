"""All 64 combinations of kernels on the published pairs of both databases.

```sh
python experiments/kernel_ablation.py                              # all, on this machine's cores
python experiments/kernel_ablation.py kernel.fidelity=at2 database=lcbench
python experiments/kernel_ablation.py cluster=slurm hydra.launcher.partition=cpu
```

A job is one combination on one database: the five pairs, and of HyperRec both training runs. What
is finished stays: the same command goes on where it was stopped, job by job and chunk by chunk.
Table and figure are made at the end (`amt.evaluation.reports`). Settings are in
`conf/kernel_ablation.yaml`.

Source: Xiao, Xing, Neiswanger (2021), for the combination that is compared with.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in at2.py

import hydra
from omegaconf import DictConfig, OmegaConf

from amt.compilation import use_compilation_cache
from amt.evaluation.settings import run_main
from amt.evaluation.sweeps import sweep_run


@hydra.main(version_base=None, config_path="conf", config_name="kernel_ablation")
def main(conf: DictConfig) -> None:
    use_compilation_cache()
    sweep_run(OmegaConf.to_container(conf, resolve=True))  # pyright: ignore


if __name__ == "__main__":
    run_main(main, "kernel_ablation.py")
