r"""Comparison of many tuners: one table, tests over targets, and their figures.

What is compared is one number of a tuner for each target, averaged over seeds, training runs, draws
of sources and random orders: the normalized regret after some epochs, or its *area*, the mean over
all queries. Targets of several databases are put together. A Friedman test says whether tuners
differ at all; Wilcoxon's signed-rank tests of all pairs, with Holm's correction, say which.

    comparison.csv, comparison.md     one row a tuner (`comparison_table`)
    pairs.csv                         p-values of all pairs
    differences.pdf, differences.png  critical-difference diagram
    figure.pdf, figure.png            regret against epochs, of the best tuners
    utility.csv, utility.md           regret of the utility of score and cost
    utility_by_target.csv             the same of each target (`amt.evaluation.utility`)

Source: Demsar (2006), Statistical Comparisons of Classifiers over Multiple Data Sets; Benavoli,
Corani, Mangili (2016), Should We Really Use Post-Hoc Tests Based on Mean-Ranks?
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hydra.experimental.callback import Callback
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.stats import friedmanchisquare, rankdata

from amt import databases
from amt.curves import LearningCurves
from amt.evaluation.figures import difference_figure, recommendation_figure, save_figure
from amt.evaluation.output import markdown
from amt.evaluation.runs import Job, run
from amt.evaluation.statistics import BUDGETS, label_of, methods_of, shown_budgets
from amt.evaluation.utility import utility_regrets, utility_table
from amt.files import atomic_write, read_json
from amt.tuners import TUNERS

TIE = 1e-3
"""Differences of normalized regret that count as none."""

_SHOWN = 16
_UTILITY = "utility_by_target.csv"


class Differences(NamedTuple):
    """Tests of whether tuners differ, over targets.

    Attributes:
        places: mean place of each tuner among all, from 1, the best first.
        p_value: of the Friedman test; NaN of fewer than three tuners.
        pairs: p-values of Wilcoxon's signed-rank tests of all pairs, corrected by Holm.
    """

    places: pd.Series
    p_value: float
    pairs: pd.DataFrame


def by_target(results: pd.DataFrame, query: int | None = None) -> pd.DataFrame:
    """Normalized regret of each target (rows) and tuner (columns), in the order of tables.

    Args:
        query: after so many epochs; None for the area, the mean over all.

    Raises:
        ValueError: a tuner has no results of a target that another has.
    """
    rows = results if query is None else results.loc[results["query"] == query]
    # An order, a seed or a draw of sources counts as much as another of its target.
    keys = ["database", "target"]
    means: Any = rows.pivot_table("normalized_regret", keys, "method")
    for tuner in (table := means[methods_of(results)]):
        known = np.isfinite(table[tuner])
        if not known.all():
            target = "/".join(map(str, table.index[~known][0]))
            raise ValueError(f"{tuner} has no regret on {target}")
    return table


def differences(table: pd.DataFrame) -> Differences:
    """Test whether tuners differ, from a table of `by_target`."""
    from scikit_posthocs import posthoc_wilcoxon  # pyright: ignore

    places = pd.Series(rankdata(table, axis=1).mean(0), table.columns).sort_values(kind="stable")
    p_value = np.nan
    if table.shape[1] > 2:
        p_value = float(friedmanchisquare(*table.to_numpy().T).pvalue)
    # Where a pair differs on no target, half of the zeros count for either: a p-value of 1.
    pairs = posthoc_wilcoxon(
        list(table.to_numpy().T), zero_method="zsplit", method="asymptotic", p_adjust="holm"
    )
    names = list(table.columns)
    return Differences(places, p_value, pd.DataFrame(pairs.to_numpy(), names, names))


def comparison_table(
    results: pd.DataFrame,
    seconds: Mapping[str, float],
    memory: Mapping[str, float],
    *,
    reference: str,
    skipped: Mapping[str, str] | None = None,
    budgets: Sequence[int] = BUDGETS,
) -> pd.DataFrame:
    """One row a tuner, the best area first, and behind them those that could not run.

    Columns are `method`, `label`, the mean over targets of normalized regret (`regret_10` ...) and
    rank (`rank_10` ...) after some epochs, in percent the former, `area`, the mean `place` by area
    among the tuners, `win`, `tie` and `loss` of the reference against the tuner on the targets,
    `seconds` and bytes of `memory` of its own for a run, and a `note`.

    Args:
        seconds, memory: of each tuner.
    """
    areas = by_target(results)
    table = pd.DataFrame({"area": 100 * areas.mean()})
    for budget in shown_budgets(set(results["query"]), budgets):
        rows = results.loc[results["query"] == budget]
        means = rows.groupby(["database", "target", "method"])[["normalized_regret", "rank"]].mean()
        of_method = means.groupby("method").mean()
        table[f"regret_{budget}"] = 100 * of_method["normalized_regret"]
        table[f"rank_{budget}"] = of_method["rank"]
    table["place"] = rankdata(areas, axis=1).mean(0)
    if reference in areas:
        ahead = areas.sub(areas[reference], axis=0)
        table["win"] = (ahead > TIE).sum()
        table["tie"] = (ahead.abs() <= TIE).sum()
        table["loss"] = (ahead < -TIE).sum()
    table["seconds"], table["memory"] = pd.Series(seconds), pd.Series(memory)
    table["note"] = ""
    table = table.sort_values("area", kind="stable").rename_axis("method").reset_index()
    if skipped:
        missing = pd.DataFrame({"method": list(skipped), "note": list(skipped.values())})
        table = pd.concat([table, missing], ignore_index=True)
    table.insert(1, "label", [label_of(method) for method in table["method"]])
    return table


def markdown_of_comparison(table: pd.DataFrame) -> str:
    """The table of `comparison_table` in Markdown."""
    heads, rows = entries_of_comparison(table)
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def entries_of_comparison(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of `comparison_table`, the first column that of the labels."""
    budgets = _budgets(table)
    columns = [*(f"regret_{b}" for b in budgets), *(f"rank_{b}" for b in budgets)]
    heads = ["", *(f"regret {b} (%)" for b in budgets), *(f"rank {b}" for b in budgets)]
    heads += ["area (%)", "place", "win/tie/loss", "s/run", "MiB"]
    rows: list[list[str]] = []
    row: Any
    for _, row in table.iterrows():
        entries = _entries(row, [*columns, "area", "place"])
        own = f"{row['seconds']:.2f}", f"{row['memory'] / 2**20:.1f}"
        rows.append([*entries, *(("", "") if row["note"] else own)])
    return heads, rows


def console_of_comparison(table: pd.DataFrame, title: str) -> Table:
    """Regrets of the table of `comparison_table` for the terminal."""
    budgets = _budgets(table)
    shown = Table(
        title=f"{title}: normalized regret (%) after epochs",
        box=SIMPLE_HEAD,
        show_edge=False,
        title_justify="left",
    )
    shown.add_column("")
    for head in (*map(str, budgets), "area", "place", "win/tie/loss"):
        shown.add_column(head, justify="right", no_wrap=True)
    for _, row in table.iterrows():
        entries = _entries(row, [*(f"regret_{b}" for b in budgets), "area", "place"])
        shown.add_row(*map(escape, entries))
    return shown


def _budgets(table: pd.DataFrame) -> list[str]:
    return [c.removeprefix("regret_") for c in table if str(c).startswith("regret_")]


def _entries(row: Any, columns: Sequence[str]) -> list[str]:
    """Label, numbers, and wins, ties and losses of the reference, or why there are none."""
    if row["note"]:
        return [f"{row['label']} (not run: {row['note']})", *[""] * (len(columns) + 1)]
    record = "/".join(f"{row[name]:.0f}" for name in ("win", "tie", "loss") if name in row)
    return [row["label"], *(f"{row[name]:.1f}" for name in columns), record]


def comparison_job(settings: Mapping[str, Any]) -> Job:
    """The run of one job, a database and a number of sources.

    Args:
        settings: of `experiments/conf/compare.yaml`, as plain dicts, lists and values.
    """
    values = dict(settings)
    output = Path(values.pop("output")).resolve()
    every, repetitions = values.pop("every"), values.pop("repetitions")
    left_out = values.pop("left_out")
    for name in ("reference", "log_x"):
        values.pop(name)
    database, count = str(values["database"]), values["num_sources"]
    # Sources are drawn anew for each repetition, where they are drawn.
    values["seeds"], values["draws"] = (repetitions, 1) if count is None else (1, repetitions)
    if every > 1:
        tasks = databases.load(database, **values["database_options"]).num_tasks
        values["pair"] = list(range(0, tasks * values["draws"], every))
    if values["tuners"] is None:
        values["tuners"] = [n for n in TUNERS if TUNERS[n].extra is None and n not in left_out]
    elif values["tuners"] == ["all"]:
        values["tuners"] = [name for name in TUNERS if name not in left_out]
    return Job(output / f"{Path(database).stem}-{'all' if count is None else count}", values)


def comparison_run(
    settings: Mapping[str, Any], progress: Callable[[int, int, str], None]
) -> tuple[Path, pd.DataFrame]:
    """Run one job, and write its report.

    Args:
        settings: as of `comparison_job`.
        progress: as of `amt.evaluation.runs.run`.

    Returns:
        The folder of the job, and its table.
    """
    folder, values = comparison_job(settings)
    run(values, folder, progress)
    write_utility(folder, databases.load(values["database"], **values["database_options"]))
    return folder, write_comparison([folder], folder, settings["reference"])


def write_utility(folder: Path, curves: LearningCurves) -> None:
    """Write the regrets of utility of a job's results, from the curves of its database."""
    regrets = utility_regrets(pd.read_parquet(folder / "results.parquet"), curves)
    text = regrets.to_csv(index=False).encode()
    atomic_write(folder / _UTILITY, lambda f: f.write(text))


def write_comparison(folders: Sequence[Path], output: Path, reference: str) -> pd.DataFrame:
    """Write table, tests and figures of the results of some jobs, and return the table."""
    frames, seconds, memory, runs, skipped = [], {}, {}, {}, {}
    for folder in folders:
        frame = pd.read_parquet(folder / "results.parquet")
        timings: Any = read_json(folder / "timings.json")
        frames.append(frame)
        skipped |= timings["skipped"]
        for name, of_tuner in timings["tuners"].items():
            spent = sum(v for k, v in of_tuner["seconds"].items() if k != "compile")
            seconds[name] = seconds.get(name, 0.0) + spent
            of_run = of_tuner.get("memory", np.nan)  # which earlier results do not have
            memory[name] = np.fmax(memory.get(name, np.nan), of_run)
            runs[name] = runs.get(name, 0) + timings["cells"] * TUNERS[name].orders
    results: Any = pd.concat(frames, ignore_index=True)
    each = {name: seconds[name] / runs[name] for name in seconds}
    table = comparison_table(results, each, memory, reference=reference, skipped=skipped)
    texts = {
        "comparison.csv": table.to_csv(index=False),
        "comparison.md": markdown_of_comparison(table),
    }
    if all((folder / _UTILITY).exists() for folder in folders):
        regrets = pd.concat([pd.read_csv(folder / _UTILITY) for folder in folders])
        utility = utility_table(regrets)
        texts["utility.csv"] = utility.to_csv(index=False)
        texts["utility.md"] = markdown(utility.drop(columns="method"))
    best = [m for m in table["method"] if m in each][:_SHOWN]
    figures = {}
    if len(each) > 1:
        found: Any = differences(by_target(results))
        texts["pairs.csv"] = found.pairs.to_csv()
        shown = [
            m for m in found.places.index if m in {*list(found.places.index)[:_SHOWN], reference}
        ]
        figures["differences"] = difference_figure(
            found.places.loc[shown], found.pairs.loc[shown, shown], _title(results, found.p_value)
        )
    if results["database"].nunique() == 1:
        figures["figure"] = recommendation_figure(results.loc[results["method"].isin(best[:7])])
    for file, text in texts.items():
        atomic_write(output / file, lambda f, text=text: f.write(text.encode()))
    for name, figure in figures.items():
        for ending in ("pdf", "png"):
            save_figure(figure, output / f"{name}.{ending}")
    return table


def _title(results: pd.DataFrame, p_value: float) -> str:
    counts = results.groupby("database", sort=False)["target"].nunique()
    targets = ", ".join(
        f"{count} targets of {Path(str(name)).stem}" for name, count in counts.items()
    )
    return (
        f"Mean place by area under the regret, {results['method'].nunique()} tuners; {targets}\n"
        f"Friedman p = {p_value:.1g}; a bar joins tuners that do not differ (Wilcoxon, Holm, 5%)"
    )


class Report(Callback):
    """Puts the jobs of a comparison together when all are done, by the number of sources."""

    def on_multirun_end(self, config: Mapping[str, Any], **_: Any) -> None:
        output = Path(config["output"]).resolve()
        say = partial(Console().print, soft_wrap=True, highlight=False)
        try:
            folders = sorted(path.parent for path in output.glob("*-*/timings.json"))
            for sources in sorted({folder.name.rpartition("-")[2] for folder in folders}):
                of_all = [f for f in folders if f.name.rpartition("-")[2] == sources]
                together = output / f"sources_{sources}"
                together.mkdir(exist_ok=True)
                table = write_comparison(of_all, together, config["reference"])
                names = ", ".join(folder.name.rpartition("-")[0] for folder in of_all)
                Console().print(console_of_comparison(table, f"{names}; sources: {sources}"))
                say(str(together / "comparison.md"))
        except Exception as error:  # Hydra would only warn
            raise SystemExit(f"the report of the comparison failed: {error!r}") from error
