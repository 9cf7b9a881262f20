"""The parts of the paper on sweeps, of kernels and of ways of inference."""

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.figure import Figure

from amt.evaluation.sweeps import budgets_of, collect, highlights
from amt.evaluation.tables import latex_of_runs, markdown_of_runs
from paper_parts.content import Content, Sources


def sweep(
    name: str, draw: Callable[[pd.DataFrame, Sequence[int]], Figure]
) -> Callable[[Sources], Content]:
    """The part on a sweep of kernels or of ways of inference."""

    def of_sweep(sources: Sources) -> Content:
        jobs = [job for source in sources.values() for job in source.jobs.values()]
        table = collect(jobs[0].folder.parents[1])
        known = {(job.folder.parent.name, job.folder.name) for job in jobs}
        runs = table[["task", "config", "fidelity", "inference"]].agg("-".join, axis=1)
        there = [run in known for run in zip(table["database"], runs, strict=True)]
        shown = highlights(table.loc[there])
        figure = draw(table.loc[there], budgets_of(table))
        return Content({name: figure}, {name: latex_of_runs(shown)}, {}, markdown_of_runs(shown))

    return of_sweep
