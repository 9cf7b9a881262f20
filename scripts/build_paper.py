"""Figures, tables and (where latexmk is installed) the PDF of the paper, from results.

For every database with results under `results/at2`, the latest of them is taken:

    paper/figures/at2-<database>.pdf   rank and regret against epochs spent
    paper/tables/at2.tex               the numbers at a few budgets, all databases
    paper/{figures,tables}/*_ablation  of the ablations, if they are under `results`
    paper/main.pdf
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from amt.databases import DATABASES
from amt.evaluation.experiment import METHODS
from amt.evaluation.figures import LABELS, recommendation_figure, save_figure
from amt.evaluation.store import CELL, shown_budgets, summarize

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "at2")
    parser.add_argument("--paper", type=Path, default=ROOT / "paper")
    options = parser.parse_args(arguments)

    latest = latest_results(options.results)
    command = ".venv/bin/python experiments/at2.py database="
    for database in DATABASES:
        if database not in latest:
            print(f"No results for {database}: `{command}{database}` makes them.")
    if not latest:
        sys.exit(f"There is nothing to build from under {options.results}.")

    figures, tables = options.paper / "figures", options.paper / "tables"
    figures.mkdir(parents=True, exist_ok=True)
    tables.mkdir(exist_ok=True)
    frames = {database: pd.read_parquet(path) for database, path in latest.items()}
    for database, frame in frames.items():
        figure = figures / f"at2-{database}.pdf"
        save_figure(recommendation_figure(frame), figure)
        print(f"{figure} from {latest[database]}")
    (tables / "at2.tex").write_text(results_table(frames))
    print(tables / "at2.tex")
    for name in ("kernel_ablation", "inference_ablation"):
        made = options.results.parent / name
        if (made / "table.tex").exists():
            shutil.copy(made / "figure.pdf", figures / f"{name}.pdf")
            shutil.copy(made / "table.tex", tables / f"{name}.tex")
            print(f"{figures / name}.pdf and {tables / name}.tex from {made}")
        else:
            print(f"No {name}: `.venv/bin/python experiments/{name}.py` makes it.")
    compile_pdf(options.paper)


def latest_results(folder: Path) -> dict[str, Path]:
    """The youngest results.parquet of each database, in the order of `DATABASES`."""
    found = {name: list((folder / name).glob("*/results.parquet")) for name in DATABASES}
    return {
        name: max(paths, key=lambda path: path.stat().st_mtime)
        for name, paths in found.items()
        if paths
    }


def results_table(frames: dict[str, pd.DataFrame]) -> str:
    """A LaTeX tabular of rank at some budgets, and normalized regret at the largest.

    The best mean of each column and database is bold.
    """
    shared = set.intersection(*(set(frame["query"]) for frame in frames.values()))
    budgets = shown_budgets(shared)
    columns = [("rank", b, 1) for b in budgets] + [("normalized_regret", budgets[-1], 100)]
    lines = [
        "% Made by scripts/build_paper.py; do not edit.",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        rf" & \multicolumn{{{len(budgets)}}}{{c}}{{rank after epochs}} & regret (\%) \\",
        " & ".join(["", *(str(budget) for _, budget, _ in columns)]) + r" \\",
    ]
    for database, frame in frames.items():
        summary = summarize(frame).set_index(["query", "method"])
        cells = len(frame[CELL].drop_duplicates())
        title = f"{database}, {cells} cell{'s' * (cells > 1)}"
        lines += [r"\midrule", rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{title}}}}} \\"]
        for method in METHODS:
            entries = []
            for metric, budget, scale in columns:
                at_budget = summary.loc[budget]
                mean, error = scale * at_budget.loc[method, [metric, f"{metric}_error"]]
                text = f"{mean:.1f}"
                if at_budget.loc[method, metric] == at_budget[metric].min():
                    text = rf"\textbf{{{text}}}"
                entries.append(text if cells == 1 else rf"{text} $\pm$ {error:.1f}")
            lines.append(" & ".join([LABELS[method], *entries]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def compile_pdf(paper: Path) -> None:
    """main.pdf, or a message where latexmk is not installed."""
    if shutil.which("latexmk") is None:
        print("latexmk is not installed: figures and tables are ready, the PDF is not made.")
        return
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    if subprocess.run(command, cwd=paper).returncode:
        sys.exit(f"latexmk failed: see {paper / 'main.log'}")
    print(paper / "main.pdf")


if __name__ == "__main__":
    main()
