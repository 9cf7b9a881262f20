"""The part of the paper that compares all tuners, each task in turn being the target."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from amt.evaluation.comparison import (
    Differences,
    by_target,
    differences,
    markdown_of_comparison,
    write_comparison,
)
from amt.evaluation.figures import difference_figure, recommendation_figure, title_of
from amt.evaluation.statistics import BUDGETS, label_of
from amt.evaluation.tables import latex_tabular, latex_text
from paper_parts.content import OURS, Content, Sources
from paper_parts.words import listed, listed_tuners

SHOWN = 16  # tuners in the main table
SIGNIFICANT = 0.05


def comparison(sources: Sources) -> Content:
    """Regrets, places and tests of all tuners, each task in turn being the target."""
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
        text += f", behind {listed_tuners(ahead, '{:.2f}')}"
    else:
        # One that chooses the same, and stops, has the same area.
        after = areas[areas > areas[OURS]].sort_values()[:1]
        text += f", the smallest of all; next is {listed_tuners(after, '{:.2f}')}"
    text += f", and a mean place of {places[OURS]:.1f} among {len(run)}"
    text += f", behind {listed_tuners(before, '{:.1f}')}. " if len(before) else ", the best. "
    certain = pairs[OURS].drop(OURS) < SIGNIFICANT
    worse = [m for m in certain.index[certain] if areas[m] > areas[OURS]]
    better = [m for m in certain.index[certain] if areas[m] < areas[OURS]]
    text += f"Of the other {len(run) - 1} tuners {len(worse)} are significantly worse"
    text += f", {listed([latex_text(label_of(m)) for m in better])} better" if better else ""
    return f"{text}{'' if better else ', none better'}, and {int((~certain).sum())} do not differ."


def _behind(frames: Mapping[str, Any], budgets: Sequence[int]) -> tuple[str, str]:
    """Where other tuners have the smaller mean regret, as a table and in a sentence."""
    rows, lost = [], []
    for name, frame in frames.items():
        means = 100 * frame.groupby(["query", "method"])["normalized_regret"].mean().unstack()
        for budget in budgets:
            at = means.loc[budget]
            ahead = at[at < at[OURS] - 0.05].sort_values()
            shown = listed_tuners(ahead[:2], "{:.1f}") if len(ahead) else "none"
            first = title_of(name) if budget == budgets[0] else ""
            rows.append([first, str(budget), f"{at[OURS]:.1f}", str(len(ahead)), shown])
            if len(ahead):
                lost.append((at[OURS] - ahead.iloc[0], name, budget, at[OURS], ahead[:2]))
        rows.append(r"\midrule")
    sentences = [
        f"on {title_of(name)} after {budget} epochs it has {ours:.1f}\\%, and "
        f"{listed_tuners(ahead, '{:.1f}')}"
        for _, name, budget, ours, ahead in sorted(lost, key=lambda entry: -entry[0])[:3]
    ]
    heads = ["", "epochs", "ours", "ahead", "the best of them"]
    text = "; ".join(sentences) if sentences else "nowhere in these tables"
    return latex_tabular(heads, rows[:-1], "lrrrl"), text
