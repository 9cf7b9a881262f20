"""The runs of `paper/runs.yaml`: their settings, folders, command lines and numbers of seeds."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from amt.evaluation.comparison import comparison_job
from amt.evaluation.negative_transfer import transfer_jobs
from amt.evaluation.roi import roi_jobs
from amt.evaluation.runs import Job
from amt.evaluation.sweeps import sweep_job
from paper_parts.content import Source

ROOT = Path(__file__).resolve().parents[1]
SEEDS = 3  # the fewest that a table is made of


def sources_of(plan: Mapping[str, Any], part: str, results: Path) -> Iterator[tuple[str, Source]]:
    """The results that a part of the paper needs, by database.

    Raises:
        FileNotFoundError: a database is not on this machine, or there is nothing of a sweep.
    """
    script, overrides = plan[part]["script"], plan[part]["settings"]
    if script.endswith("_ablation"):
        if not (results / script).is_dir():
            raise FileNotFoundError(f"{results / script} is missing")
        lists = OmegaConf.load(ROOT / f"experiments/conf/{script}.yaml").hydra.sweeper.params
        names = lists.pop("database").split(",")
        choices = [[f"{name}={v}" for v in values.split(",")] for name, values in lists.items()]
    else:
        names, choices = plan["databases"], []
    for database in names:
        jobs: dict[Any, Job] = {}
        for chosen in product(*choices):
            settings = composed(script, [*overrides, *chosen, f"database={database}"], results)
            jobs |= {chosen if choices else n: job for n, job in jobs_of(script, settings).items()}
        yield database, Source(settings, jobs)


def composed(script: str, overrides: Sequence[str], results: Path) -> dict[str, Any]:
    """The settings that a script is given by its command line, its output below `results`."""
    with initialize_config_dir(str(ROOT / "experiments/conf"), version_base=None):
        values: Any = OmegaConf.to_container(compose(script, list(overrides)), resolve=True)
    values["output"] = str(results / Path(values["output"]).relative_to("results"))
    return values


def jobs_of(script: str, settings: dict[str, Any]) -> dict[Any, Job]:
    """The runs of a script on a database."""
    if script == "fidelity_quality":  # computed here: it takes seconds
        return {}
    if script == "at2":
        values = dict(settings)
        folder = Path(values.pop("output")).resolve()
        values.pop("log_x")
        return {None: Job(folder, values)}
    if script == "compare":
        return {None: comparison_job(settings)}
    if script.endswith("_ablation"):
        return {None: sweep_job(settings)}
    return {"roi": roi_jobs, "negative_transfer": transfer_jobs}[script](settings)


def commands(plan: Mapping[str, Any], part: str) -> list[list[str]]:
    """The command lines that compute what a part needs."""
    script, overrides = plan[part]["script"], plan[part]["settings"]
    if script == "fidelity_quality":
        return []
    line = [f"experiments/{script}.py", *overrides]
    if script == "compare":
        return [[*line, f"database={','.join(plan['databases'])}"]]
    if script.endswith("_ablation"):
        return [line]
    return [[*line, f"database={database}"] for database in plan["databases"]]


def seeds_of(job: Job) -> int:
    """Number of random repetitions of each split of a run: seeds times draws of sources."""
    return job.values["seeds"] * job.values["draws"]


def few_seeds(job: Job) -> str | None:
    """The reason why a run has too few seeds for a published table; None if it has enough."""
    count = seeds_of(job)
    return f"has {count} of {SEEDS} seeds that a published table has" if count < SEEDS else None
