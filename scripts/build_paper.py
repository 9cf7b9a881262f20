"""Figures, tables, numbers and (where latexmk is installed) the PDF of the paper, from results.

The runs are those of `paper/runs.yaml`. What is missing, not finished or of other settings is
named, with the command that computes it, and nothing of its part of the paper is made: a part is
made anew from all of its runs, or stays as it is. So it stays if its runs have fewer than three
seeds; every caption says how many there are.

    paper/figures/*.pdf    (and .svg of the published pairs)
    paper/tables/*.tex
    paper/numbers/*.tex    every number of the text, as macros
    paper/RESULTS.md       the tables in Markdown, those of paper/benchmarks.md included
    paper/main.pdf

`--run` computes the runs first: what is finished and of this code is not computed again.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from amt import databases
from amt.evaluation.comparison import (
    Differences,
    by_target,
    comparison_job,
    differences,
    markdown_of_comparison,
    write_comparison,
)
from amt.evaluation.fidelity_quality import fidelity_output
from amt.evaluation.figures import (
    difference_figure,
    inference_figure,
    kernel_figure,
    recommendation_figure,
    save_figure,
    title_of,
)
from amt.evaluation.negative_transfer import transfer_jobs, transfer_output
from amt.evaluation.output import markdown
from amt.evaluation.roi import roi_jobs, roi_output
from amt.evaluation.runs import Job, difference
from amt.evaluation.statistics import BUDGETS, CELL, label_of
from amt.evaluation.sweeps import budgets_of, collect, highlights, sweep_job
from amt.evaluation.tables import (
    latex_of_runs,
    latex_table,
    latex_tabular,
    latex_text,
    markdown_of_runs,
    markdown_table,
)
from amt.gp.grid import thinned

ROOT = Path(__file__).resolve().parents[1]
OURS = "task_regression"
SHOWN = 16  # tuners in the main table
SIGNIFICANT = 0.05
SEEDS = 3  # the fewest that a table is made of
INTRODUCTION = """\
# Results

<!-- Made by scripts/build_paper.py from results/; paper/benchmarks.md is written by hand. -->

Rank is that of the recommended configuration among all of the target's (0 is the best), regret its
distance from the best as a share of the range (`amt.evaluation.metrics`), after some epochs spent
on the target; mean and standard error over the cells (target, training run, seed), random search
averaged over 20 orders first. `paper/runs.yaml` has the settings.
"""


class Content(NamedTuple):
    """What a part of the paper is made of.

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


# Parts of the paper


def pairs(sources: Sources) -> Content:
    """The published pairs."""
    frames = {database: source.frames()[None] for database, source in sources.items()}
    figures = {f"at2-{name}": recommendation_figure(frame) for name, frame in frames.items()}
    sections = [f"### {title_of(name)}\n\n{_counted(f)}" for name, f in frames.items()]
    named = {title_of(name): frame for name, frame in frames.items()}
    sentences = []
    for name, frame in named.items():
        means = frame.groupby(["query", "method"])["rank"].mean().unstack()
        ours = means.loc[list(BUDGETS), OURS]
        best = means.drop(columns=OURS).loc[list(BUDGETS)]
        ahead = [b for b in BUDGETS if best.loc[b].min() < ours[b]]
        text = f"On {name} its mean rank after {_listed(BUDGETS)} epochs is {_numbers(ours)}"
        if ahead:
            first = best.mean().idxmin()
            text += f"; {latex_text(label_of(first))} has {_numbers(best[first])}"
        sentences.append(f"{text}.")
    return Content(
        figures,
        {"pairs": latex_table(named)},
        {"Summary": " ".join(sentences)},
        "\n".join(sections),
    )


def _counted(frame: pd.DataFrame) -> str:
    """The table of a database in Markdown, and what it is of."""
    targets, cells = frame["target"].nunique(), len(frame[CELL].drop_duplicates())
    sources = frame["sources"].str.count(",").max() + 1
    of_targets = f"{targets} target{'s' * (targets > 1)} with {sources} sources"
    return f"{of_targets}, {cells} cell{'s' * (cells > 1)}.\n\n{markdown_table(frame)}"


def comparison(sources: Sources) -> Content:
    """All tuners, leave-one-out."""
    settings = next(iter(sources.values())).settings
    folders = [source.jobs[None].folder for source in sources.values()]
    with tempfile.TemporaryDirectory() as made:
        table: Any = write_comparison(folders, Path(made), settings["reference"])
    frames = {name: source.frames()[None] for name, source in sources.items()}
    found = differences(by_target(pd.concat(list(frames.values()), ignore_index=True)))
    run = table[table["note"] == ""]
    budgets = [b for b in BUDGETS if f"regret_{b}" in table]
    figures = {"comparison-differences": _differences(found, settings["reference"])}
    for name, frame in frames.items():
        areas = frame.groupby("method")["normalized_regret"].mean().sort_values(kind="stable")
        best = frame["method"].isin({*areas.index[:7], OURS})
        figures[f"comparison-{name}"] = recommendation_figure(frame.loc[best])
    heads = ["", *(f"{b}" for b in budgets), "area", "place", "win/tie/loss", "s/run"]
    rows = [_comparison_row(row, budgets) for _, row in run.iterrows()]
    of_ours = run["method"].tolist().index(OURS)
    main = rows[:SHOWN] if of_ours < SHOWN else [*rows[:SHOWN], rows[of_ours]]
    columns = "l" + "r" * (len(heads) - 1)
    missing = [
        rf"\multicolumn{{{len(heads)}}}{{l}}{{{latex_text(row['label'])}: not run, "
        rf"{latex_text(row['note'])}}} \\"
        for _, row in table[table["note"] != ""].iterrows()
    ]
    behind, lost = _behind(frames, budgets)
    which = {1: "every task", 2: "every second task", 3: "every third task"}
    ours = run.iloc[of_ours]
    numbers = {
        "Targets": str(sum(f["target"].nunique() for f in frames.values())),
        "Tuners": str(len(run)),
        "Which": which.get(settings["every"], f"one in {settings['every']} tasks"),
        "Area": f"{ours['area']:.1f}",
        "Summary": _places(run, found.pairs),
        "Lost": lost,
    }
    tables = {
        "comparison": latex_tabular(heads, main, columns),
        "comparison-all": latex_tabular(heads, [*rows, *missing], columns),
        "behind": behind,
    }
    return Content(figures, tables, numbers, markdown_of_comparison(table))


def _differences(found: Differences, reference: str) -> Figure:
    """The critical-difference diagram of the best tuners and of the reference."""
    best = list(found.places.index)[:SHOWN]
    shown = [name for name in found.places.index if name in {*best, reference}]
    title = (
        f"Mean place among {len(found.places)} tuners by area under the regret; "
        f"Friedman p = {found.p_value:.0e}\n"
        "a bar joins tuners that do not differ (Wilcoxon, Holm, 5%)"
    )
    return difference_figure(found.places.loc[shown], found.pairs.loc[shown, shown], title)


def _comparison_row(row: Any, budgets: Sequence[int]) -> list[str]:
    numbers = [f"{row[name]:.1f}" for name in (*(f"regret_{b}" for b in budgets), "area", "place")]
    record = "/".join(f"{row[name]:.0f}" for name in ("win", "tie", "loss"))
    label = latex_text(row["label"])
    label = rf"\textbf{{{label}}}" if row["method"] == OURS else label
    return [label, *numbers, record, f"{row['seconds']:.2f}"]


def _places(run: Any, pairs: Any) -> str:
    """Where task regression stands, in sentences."""
    areas, places = (run.set_index("method")[n] for n in ("area", "place"))
    ahead = areas[areas < areas[OURS]]
    before = places[places < places[OURS]].sort_values()
    text = f"Task regression has a mean area of {areas[OURS]:.2f}\\%"
    if len(ahead):
        text += f", behind {_named(ahead, '{:.2f}')}"
    else:
        text += f", the smallest of all; next is {_named(areas.drop(OURS)[:1], '{:.2f}')}"
    text += f", and a mean place of {places[OURS]:.1f} among {len(run)}"
    text += f", behind {_named(before, '{:.1f}')}. " if len(before) else ", the best. "
    certain = pairs[OURS].drop(OURS) < SIGNIFICANT
    worse = [m for m in certain.index[certain] if areas[m] > areas[OURS]]
    better = [m for m in certain.index[certain] if areas[m] < areas[OURS]]
    text += f"Of the other {len(run) - 1} tuners {len(worse)} are significantly worse"
    text += f", {_listed([latex_text(label_of(m)) for m in better])} better" if better else ""
    return f"{text}{'' if better else ', none better'}, and {int((~certain).sum())} do not differ."


def _behind(frames: Mapping[str, Any], budgets: Sequence[int]) -> tuple[str, str]:
    """Where other tuners have the smaller mean regret, as a table and in a sentence."""
    rows, lost = [], []
    for name, frame in frames.items():
        means = 100 * frame.groupby(["query", "method"])["normalized_regret"].mean().unstack()
        for budget in budgets:
            at = means.loc[budget]
            ahead = at[at < at[OURS] - 0.05].sort_values()
            shown = _named(ahead[:2], "{:.1f}") if len(ahead) else "none"
            first = title_of(name) if budget == budgets[0] else ""
            rows.append([first, str(budget), f"{at[OURS]:.1f}", str(len(ahead)), shown])
            if len(ahead):
                lost.append((at[OURS] - ahead.iloc[0], name, budget, at[OURS], ahead[:2]))
        rows.append(r"\midrule")
    sentences = [
        f"on {title_of(name)} after {budget} epochs it has {ours:.1f}\\%, and "
        f"{_named(ahead, '{:.1f}')}"
        for _, name, budget, ours, ahead in sorted(lost, key=lambda entry: -entry[0])[:3]
    ]
    heads = ["", "epochs", "ours", "ahead", "the best of them"]
    text = "; ".join(sentences) if sentences else "nowhere in these tables"
    return latex_tabular(heads, rows[:-1], "lrrrl"), text


def roi(sources: Sources) -> Content:
    """What past tasks are worth."""
    figures, sections, rows, sentences = {}, [], [], []
    for name, source in sources.items():
        table, figures[f"roi-{name}"] = roi_output(source.settings, source.frames())
        sections.append(f"### {title_of(name)}\n\n{markdown(table)}")
        by = table.set_index(["within", "method", "sources"]).sort_index()
        near, far = sorted(set(table["within"]))
        none = "freeze_thaw"
        own = [m for m in source.settings["tuners"] if m == OURS]
        for method, count in [*((m, 0) for m in source.settings["without"])] + [
            (m, c) for m in own for c in sorted(source.jobs) if c
        ]:
            entries = [latex_text(title_of(name)) if not rows or rows[-1] == r"\midrule" else ""]
            entries += [latex_text(label_of(method)), str(count)]
            for within in (near, far):
                at = by.loc[(within, method, count)]
                entries += [f"{at['epochs']:.0f} $\\pm$ {at['error']:.0f}"]
                entries += [f"{100 * at['reached']:.0f}"]
            at = by.loc[(far, method, count)]
            entries.append(_projects(at[f"projects_{none}"]) if count else "")
            rows.append(entries)
        rows.append(r"\midrule")
        most = max(source.jobs)
        few = min(count for count in source.jobs if count)
        at, one = (by.loc[(far, OURS, count)] for count in (most, few))
        sentences.append(
            f"On {title_of(name)} a project comes within {100 * far:.0f}\\% of the best after "
            f"{at['epochs']:.0f} epochs with {most} past tasks, {one['epochs']:.0f} with {few}, "
            f"and {by.loc[(far, none, 0), 'epochs']:.0f} with none ({label_of(none)}); "
            f"collecting all of them pays after {_projects(at[f'projects_{none}'])} projects, "
            f"{few} after {_projects(one[f'projects_{none}'])}."
        )
    heads = ["", "tuner", "past tasks"]
    heads += [h for within in (near, far) for h in (rf"{100 * within:.0f}\%", r"reached (\%)")]
    heads.append("projects")
    return Content(
        figures,
        {"roi": latex_tabular(heads, rows[:-1], "llrrrrrr")},
        {"Summary": " ".join(sentences)},
        "\n".join(sections),
    )


def _projects(count: float) -> str:
    return f"{count:,.0f}" if np.isfinite(count) else "no number of"


def fidelity_quality(sources: Sources) -> Content:
    """How good a low fidelity is; RESULTS.md has about twelve epochs and the recommended one."""
    figures, sections, rows, sentences = {}, [], [], []
    for name, source in sources.items():
        table, figures[f"fidelity_quality-{name}"] = fidelity_output(source.settings)
        shown = table["recommended"] | table.index.isin(thinned(len(table), 12))
        sections.append(f"### {title_of(name)}\n\n{markdown(table.loc[shown])}")
        best = table.loc[table["recommended"]].iloc[0]
        for row in (table.iloc[0], best):
            rows.append(
                [
                    latex_text(title_of(name)) if row is not best else "",
                    f"{row['epoch']:.0f}",
                    f"{100 * row['cost']:.0f}",
                    *(
                        f"{row[c]:.2f} ({row[f'{c}_lower']:.2f}, {row[f'{c}_upper']:.2f})"
                        for c in ("rank_correlation", "top_recall", "information")
                    ),
                    f"{100 * row['wrong_nearest']:.0f}",
                ]
            )
        rows.append(r"\midrule")
        last = table["epoch"].max()
        sentences.append(
            f"on {title_of(name)} epoch {best['epoch']:.0f} of {last:.0f} "
            f"({100 * best['cost']:.0f}\\% of the cost, after which the most similar task is still "
            f"wrong in {100 * best['wrong_nearest']:.0f}\\% of the cases)"
        )
    heads = ["", "epoch", r"cost (\%)", "rank correlation", "top-10 recall", "information"]
    tables = {
        "fidelity_quality": latex_tabular([*heads, r"wrong (\%)"], rows[:-1], "lrrrrrr"),
        "databases": _databases(list(sources)),
    }
    return Content(figures, tables, {"Summary": _listed(sentences)}, "\n".join(sections))


def _databases(names: Sequence[str]) -> str:
    rows = []
    for name in names:
        curves = databases.load(name)
        tasks, configs, epochs = curves.scores.shape
        repeats = 1 if curves.repeats is None else len(curves.repeats)
        counts = (tasks, configs, epochs, len(curves.space), repeats)
        cost = "no" if curves.cost is None else "yes"
        rows.append([latex_text(title_of(name)), *map(str, counts), cost])
    heads = ["", "tasks", "configurations", "epochs", "hyperparameters", "runs", "costs"]
    return latex_tabular(heads, rows, "lrrrrrr")


def negative_transfer(sources: Sources) -> Content:
    """Regret against the share of bad sources."""
    figures, sections, rows, sentences = {}, [], [], []
    budgets = BUDGETS[0], BUDGETS[-1]
    for name, source in sources.items():
        table, figures[f"negative_transfer-{name}"] = transfer_output(
            source.settings, source.frames()
        )
        sections.append(f"### {title_of(name)}\n\n{markdown(table)}")
        shares, kinds = source.settings["shares"], source.settings["kinds"]
        few, most = [s for s in shares if 0 < s < 1][-1], max(shares)
        shown = [(kinds[0], min(shares)), *((kind, s) for kind in kinds for s in (few, most))]
        by = table.set_index(["kind", "method", "share"])
        for number, method in enumerate(source.settings["tuners"]):
            entries = [latex_text(title_of(name)) if not number else "", label_of(method)]
            for kind, share in shown:
                at = [by.loc[(kind, method, share), f"regret_{b}"] for b in budgets]
                entries.append(" / ".join(f"{value:.1f}" for value in at))
            rows.append(entries)
        for method in source.settings["without"]:
            of_none = table[table["method"] == method].iloc[0]
            at = " / ".join(f"{of_none[f'regret_{b}']:.1f}" for b in budgets)
            rows.append(["", f"{label_of(method)} (no sources)", at, *[""] * (len(shown) - 1)])
        rows.append(r"\midrule")
        ours = [by.loc[("flipped", OURS, most), f"regret_{b}"] for b in BUDGETS]
        part = [by.loc[("flipped", OURS, few), f"regret_{b}"] for b in BUDGETS]
        without = table[table["method"] == "freeze_thaw"].iloc[0]
        sentences.append(
            f"On {title_of(name)}, {100 * few:.0f}\\% of flipped sources leave it at "
            f"{_numbers(part)}\\% after {_listed(BUDGETS)} epochs, and {100 * most:.0f}\\% at "
            f"{_numbers(ours)}\\%, where freeze-thaw without sources has "
            f"{_numbers([without[f'regret_{b}'] for b in BUDGETS])}\\%."
        )
    heads = ["", "", "all good", *(rf"{k}, {100 * s:.0f}\%" for k, s in shown[1:])]
    tables = {"negative_transfer": latex_tabular(heads, rows[:-1], "ll" + "r" * len(shown))}
    return Content(figures, tables, {"Summary": " ".join(sentences)}, "\n".join(sections))


def sweep(name: str, draw: Callable[[pd.DataFrame, Sequence[int]], Figure]) -> Any:
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


PARTS: Mapping[str, tuple[str, Callable[[Sources], Content]]] = {
    "pairs": ("Published pairs", pairs),
    "comparison": ("All tuners, leave-one-out", comparison),
    "roi": ("What past tasks are worth", roi),
    "fidelity_quality": ("How good a low fidelity is", fidelity_quality),
    "negative_transfer": ("Negative transfer", negative_transfer),
    "kernel_ablation": ("Kernels", sweep("kernel_ablation", kernel_figure)),
    "inference_ablation": ("Ways of inference", sweep("inference_ablation", inference_figure)),
}
"""Parts of the paper, as `paper/runs.yaml` calls them: their titles, and how they are made."""


# Words


def _listed(items: Sequence[Any]) -> str:
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _numbers(values: Sequence[float]) -> str:
    return _listed([f"{value:.1f}" for value in values])


def _named(values: Any, form: str) -> str:
    """Tuners, and a number of each."""
    return _listed([f"{latex_text(label_of(m))} ({form.format(v)})" for m, v in values.items()])


# Runs


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


# The paper


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--paper", type=Path, default=ROOT / "paper")
    parser.add_argument("--plan", type=Path, default=ROOT / "paper" / "runs.yaml")
    parser.add_argument("--run", action="store_true", help="compute the runs first")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(arguments)
    plan: Any = OmegaConf.to_container(OmegaConf.load(options.plan))
    if options.run:
        for part in options.parts:
            for command in commands(plan, part):
                print("python", *command, flush=True)
                subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    sections = {}
    for part in options.parts:
        title, make = PARTS[part]
        try:
            sources = dict(sources_of(plan, part, options.results.resolve()))
            faults = [
                f"{job.folder} {fault}"
                for source in sources.values()
                for job in source.jobs.values()
                if (fault := difference(job) or few_seeds(job))
            ]
        except FileNotFoundError as error:
            sources, faults = {}, [str(error)]
        if faults:
            print(f"{title}: stays as it is, as {len(faults)} of its runs are not there:")
            print("\n".join(f"  {fault}" for fault in faults[:5]))
            print("\n".join(f"  python {' '.join(line)}" for line in commands(plan, part)))
            continue
        content = with_seeds(make(sources), sources)
        write_content(options.paper, part, content)
        sections[part] = content.markdown
        print(f"{title}: made.")
    write_results(options.paper, sections)
    compile_pdf(options.paper)


def seeds_of(job: Job) -> int:
    """Number of random repetitions of each split of a run: seeds times draws of sources."""
    return job.values["seeds"] * job.values["draws"]


def few_seeds(job: Job) -> str | None:
    """The reason why a run has too few seeds for a published table; None if it has enough."""
    count = seeds_of(job)
    return f"has {count} of {SEEDS} seeds that a published table has" if count < SEEDS else None


def with_seeds(content: Content, sources: Sources) -> Content:
    """Add the number of seeds to a part of the paper that is made of runs."""
    counts = sorted({seeds_of(job) for source in sources.values() for job in source.jobs.values()})
    if not counts:
        return content
    seeds = " to ".join(map(str, counts[:1] + counts[1:][-1:]))
    markdown = f"{seeds} seeds of each split.\n\n{content.markdown}"
    return content._replace(numbers={**content.numbers, "Seeds": seeds}, markdown=markdown)


def write_content(paper: Path, part: str, content: Content) -> None:
    """Write figures, tables and numbers of a part of the paper."""
    for folder in ("figures", "tables", "numbers"):
        (paper / folder).mkdir(parents=True, exist_ok=True)
    for name, figure in content.figures.items():
        for ending in ("pdf", "svg") if part == "pairs" else ("pdf",):
            save_figure(figure, paper / "figures" / f"{name}.{ending}")
    for name, text in content.tables.items():
        (paper / "tables" / f"{name}.tex").write_text(text)
    prefix = part.split("_")[0]
    macros = [rf"\newcommand{{\{prefix}{name}}}{{{v}}}" for name, v in content.numbers.items()]
    if macros:
        lines = ["% Made by scripts/build_paper.py; do not edit.", *macros, ""]
        (paper / "numbers" / f"{part}.tex").write_text("\n".join(lines))


def write_results(paper: Path, sections: Mapping[str, str]) -> None:
    """Write RESULTS.md, where sections that are not given stay as they are."""
    path = paper / "RESULTS.md"
    before = sections_of(path.read_text()) if path.exists() else {}
    written = [INTRODUCTION]
    for name, (title, _) in PARTS.items():
        body = sections.get(name, before.get(name))
        if body is not None:
            written.append(f"## {title}\n\n{_begin(name)}\n\n{body.strip()}\n\n{_END}\n")
    benchmarks = paper / "benchmarks.md"
    if benchmarks.exists():
        written.append(benchmarks.read_text())
    path.write_text("\n".join(written))
    print(path)


def sections_of(results: str) -> dict[str, str]:
    """The sections of an earlier RESULTS.md that this script made."""
    pattern = rf"{_begin('(?P<name>[^ ]+)')}\n(?P<body>.*?){_END}"
    return {m["name"]: m["body"].strip() for m in re.finditer(pattern, results, re.DOTALL)}


def _begin(name: str) -> str:
    return f"<!-- table of {name} -->"


_END = "<!-- end of table -->"


def compile_pdf(paper: Path) -> None:
    """main.pdf, or a message where latexmk is not installed."""
    if shutil.which("latexmk") is None:
        print("latexmk is not installed: figures and tables are ready, the PDF is not made.")
        return
    command = ["latexmk", "-g", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    if subprocess.run(command, cwd=paper).returncode:
        sys.exit(f"latexmk failed: see {paper / 'main.log'}")
    print(paper / "main.pdf")


if __name__ == "__main__":
    main()
