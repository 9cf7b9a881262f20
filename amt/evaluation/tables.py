"""Tables of results: for the terminal, in Markdown and in LaTeX."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from amt.evaluation.statistics import (
    BUDGETS,
    CELL,
    label_of,
    methods_of,
    shown_budgets,
    summarize,
)
from amt.evaluation.sweeps import CHOICES, budgets_of


def console_tables(
    results: pd.DataFrame,
    *,
    skipped: Mapping[str, str] | None = None,
    budgets: Sequence[int] = BUDGETS,
) -> list[Table]:
    """Rank and normalized regret of every method after some epochs.

    Args:
        skipped: methods without results, and why.
    """
    summary = summarize(results).set_index(["method", "query"])
    shown, cells = shown_budgets(set(results["query"]), budgets), _count(results)
    tables = []
    for metric, title, scale in (
        ("rank", "Rank", 1),
        ("normalized_regret", "Normalized regret (%)", 100),
    ):
        table = Table(
            title=f"{title} of the recommended after some epochs, {cells} cells",
            box=SIMPLE_HEAD,
            show_edge=False,
            title_justify="left",
        )
        table.add_column("method", no_wrap=True)
        for budget in shown:
            table.add_column(str(budget), justify="right", no_wrap=True)
        for method in methods_of(results):
            entries = (_entry(summary, (method, b), metric, scale, cells, "±") for b in shown)
            table.add_row(label_of(method), *entries)
        for method, why in (skipped or {}).items():
            table.add_row(f"{label_of(method)} (not run: {why})", *[""] * len(shown))
        tables.append(table)
    return tables


def markdown_table(results: pd.DataFrame, *, budgets: Sequence[int] = BUDGETS) -> str:
    """Rank of every method after some epochs, and its normalized regret."""
    heads, rows = entries_of_results(results, budgets=budgets)
    lines = [f"| | {' | '.join(heads[1:])} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def entries_of_results(
    results: pd.DataFrame, *, budgets: Sequence[int] = BUDGETS
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of `markdown_table`, the first column that of the methods."""
    summary = summarize(results).set_index(["method", "query"])
    shown, cells = shown_budgets(set(results["query"]), budgets), _count(results)
    heads = ["", *(f"rank {b}" for b in shown), *(f"regret {b} (%)" for b in shown)]
    rows = []
    for method in methods_of(results):
        entries = [
            _entry(summary, (method, budget), metric, scale, cells, "±")
            for metric, scale in (("rank", 1), ("normalized_regret", 100))
            for budget in shown
        ]
        rows.append([label_of(method), *entries])
    return heads, rows


def latex_table(frames: Mapping[str, pd.DataFrame], *, budgets: Sequence[int] = BUDGETS) -> str:
    """A LaTeX tabular of rank at some budgets, and normalized regret at the largest.

    The best mean of each column and database is bold.

    Args:
        frames: results of each database.
    """
    shared = set.intersection(*(set(frame["query"]) for frame in frames.values()))
    shown = shown_budgets(shared, budgets)
    columns = [("rank", b, 1) for b in shown] + [("normalized_regret", shown[-1], 100)]
    lines = [
        "% Made by scripts/build_paper.py; do not edit.",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        rf" & \multicolumn{{{len(shown)}}}{{c}}{{rank after epochs}} & regret (\%) \\",
        " & ".join(["", *(str(budget) for _, budget, _ in columns)]) + r" \\",
    ]
    for database, frame in frames.items():
        summary, cells = summarize(frame).set_index(["query", "method"]), _count(frame)
        title = f"{database}, {cells} cell{'s' * (cells > 1)}"
        lines += [r"\midrule", rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{title}}}}} \\"]
        for method in methods_of(frame):
            entries = []
            for metric, budget, scale in columns:
                at_budget = summary.loc[budget]
                mean, error = scale * at_budget.loc[method, [metric, f"{metric}_error"]]
                text = f"{mean:.1f}"
                if at_budget.loc[method, metric] == at_budget[metric].min():
                    text = rf"\textbf{{{text}}}"
                entries.append(text if cells == 1 else rf"{text} $\pm$ {error:.1f}")
            lines.append(" & ".join([label_of(method), *entries]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_tabular(heads: Sequence[str], rows: Sequence[Sequence[str] | str], columns: str) -> str:
    r"""A LaTeX tabular with its lines, from entries that are LaTeX already.

    Args:
        heads: of the columns.
        rows: entries of each row, or a line of LaTeX as it stands, such as `\midrule`.
        columns: of the tabular, such as `lrr`.
    """
    lines = [row if isinstance(row, str) else " & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        [
            "% Made by scripts/build_paper.py; do not edit.",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """A text whose special characters LaTeX shows as they are."""
    for character in "&%$#_":
        text = text.replace(character, rf"\{character}")
    return text.replace("±", r"$\pm$")


def latex_of_runs(table: pd.DataFrame) -> str:
    """A LaTeX tabular of `entries_of_runs`."""
    heads, rows = entries_of_runs(table)
    left = heads.index("place")
    columns = "l" * left + "r" * (len(heads) - left)
    return latex_tabular([*map(latex_text, heads)], [[*map(latex_text, r)] for r in rows], columns)


def markdown_of_runs(table: pd.DataFrame) -> str:
    """The table of `entries_of_runs` in Markdown."""
    heads, rows = entries_of_runs(table)
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def entries_of_runs(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and rows for `highlights`: what differs, ranks, regret, forecast and seconds."""
    differing = [c for c in CHOICES if len(set(table[c])) > 1] or ["database"]
    differing += ["place"]
    budgets = budgets_of(table)
    metrics = [("rank", b, 1, 1) for b in budgets] + [
        ("normalized_regret", budgets[-1], 100, 1),
        ("log_density", budgets[0], 1, 2),
        ("coverage90", budgets[0], 100, 0),
    ]
    heads = [*differing, *(f"rank {b}" for b in budgets), f"regret {budgets[-1]} (%)"]
    heads += [f"density {budgets[0]}", f"coverage {budgets[0]} (%)", "fit (s)", "loop (s)"]
    rows = []
    for _, row in table.iterrows():
        entries = [str(row[c]) for c in differing]
        for metric, budget, scale, digits in metrics:
            mean, error = (scale * row[f"{metric}_{budget}{end}"] for end in ("", "_error"))
            text = f"{mean:.{digits}f}"
            entries.append(text if np.isnan(error) else f"{text} ± {error:.{digits}f}")
        rows.append([*entries, f"{row['fit_seconds']:.1f}", f"{row['loop_seconds']:.2f}"])
    return heads, rows


def _entry(
    summary: pd.DataFrame,
    at: tuple[str, int],
    metric: str,
    scale: float,
    cells: int,
    plus_minus: str,
) -> str:
    mean, error = scale * summary.loc[at, [metric, f"{metric}_error"]]
    return f"{mean:.1f}" if cells == 1 else f"{mean:.1f} {plus_minus} {error:.1f}"


def _count(results: pd.DataFrame) -> int:
    return len(results[CELL].drop_duplicates())
