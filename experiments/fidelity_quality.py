"""How good a low fidelity is: what each epoch says about the best score, and the cheapest to trust.

```sh
python experiments/fidelity_quality.py                                  # bundled, some seconds
python experiments/fidelity_quality.py -m database=bundled,hyperrec,lcbench
python experiments/fidelity_quality.py database=losses.csv +database_options.minimise=true
```

All tasks and configurations of the database count; nothing is fitted. What the columns are is in
`amt.evaluation.fidelity_quality`; all settings are in `conf/fidelity_quality.yaml`.
"""

import sys
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from amt.evaluation.fidelity_quality import fidelity_run
from amt.evaluation.settings import run_main


@hydra.main(version_base=None, config_path="conf", config_name="fidelity_quality")
def main(conf: DictConfig) -> None:
    values: Any = OmegaConf.to_container(conf, resolve=True)
    console = Console()
    try:
        folder, table = fidelity_run(values)
    except (KeyError, ValueError, FileNotFoundError) as error:
        sys.exit(f"fidelity_quality.py: {error.args[0] if isinstance(error, KeyError) else error}")
    best: Any = table.loc[table["recommended"]].iloc[0]
    console.print(
        f"{values['database']}: the cheapest epoch that is good enough is {best['epoch']}, at "
        f"{best['cost']:.1%} of the cost: "
        f"information {best['information']:.2f} (from {best['information_lower']:.2f}), "
        f"rank correlation {best['rank_correlation']:.2f}, "
        f"wrong most similar task {best['wrong_nearest']:.0%}",
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"{folder / 'fidelity_quality.md'}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run_main(main, "fidelity_quality.py")
