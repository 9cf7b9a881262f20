"""The content of a part of the paper, and the results that it is computed from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from amt.evaluation.runs import Job

OURS = "task_regression"
"""The tuner that the paper is about."""


class Content(NamedTuple):
    """The figures, tables, numbers and text of a part of the paper.

    Attributes:
        figures, tables: by the names of their files; tables in LaTeX.
        numbers: by the names of their macros, without a backslash; LaTeX.
        markdown: the section of RESULTS.md.
    """

    figures: Mapping[str, Figure]
    tables: Mapping[str, str]
    numbers: Mapping[str, str]
    markdown: str


class Source(NamedTuple):
    """The results of an experiment on one database: its settings, and the runs by their names."""

    settings: dict[str, Any]
    jobs: dict[Any, Job]

    def frames(self) -> dict[Any, Any]:
        """The rows of each run."""
        return {n: pd.read_parquet(j.folder / "results.parquet") for n, j in self.jobs.items()}


Sources = Mapping[str, Source]
