"""Ways of inference on the published pairs of both databases, with the published kernels.

```sh
python experiments/inference_ablation.py                           # all, on this machine's cores
python experiments/inference_ablation.py inference=mle,svgp kernel.config=matern
python experiments/inference_ablation.py cluster=slurm hydra.launcher.partition=cpu
```

A job is one way of inference on the five pairs of one database. What is finished stays: the same
command goes on where it was stopped, job by job and chunk by chunk. Table and figure are made at
the end (`amt.evaluation.reports`). Settings are in `conf/inference_ablation.yaml`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in at2.py

import hydra
from omegaconf import DictConfig, OmegaConf

from amt.compilation import use_compilation_cache
from amt.evaluation.settings import run_main
from amt.evaluation.sweeps import sweep_run


@hydra.main(version_base=None, config_path="conf", config_name="inference_ablation")
def main(conf: DictConfig) -> None:
    use_compilation_cache()
    sweep_run(OmegaConf.to_container(conf, resolve=True))  # pyright: ignore


if __name__ == "__main__":
    run_main(main, "inference_ablation.py")
