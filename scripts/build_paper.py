"""Figures, tables and (where latexmk is installed) the PDF of the paper, from results.

For every database with results under `results/at2`, the latest of them is taken:

    paper/figures/at2-<database>.pdf   rank and regret against epochs spent (also .svg)
    paper/tables/at2.tex               the numbers at a few budgets, all databases
    paper/{figures,tables}/*_ablation  of the ablations, if they are under `results`
    paper/RESULTS.md                   all tables in Markdown, those of paper/benchmarks.md included
    paper/main.pdf

Tables of RESULTS.md whose results are not at hand stay as they are.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from amt.databases import DATABASES
from amt.evaluation.figures import recommendation_figure, save_figure
from amt.evaluation.statistics import CELL
from amt.evaluation.tables import latex_table, markdown_table

ROOT = Path(__file__).resolve().parents[1]
ABLATIONS = {
    "kernel_ablation": "Kernels",
    "inference_ablation": "Ways of inference",
}
INTRODUCTION = """\
# Results

<!-- Made by scripts/build_paper.py from results/; paper/benchmarks.md is written by hand. -->

Rank is that of the recommended configuration among all of the target's (0 is the best), regret its
distance from the best as a share of the range (`amt.evaluation.metrics`), after some epochs spent
on the target; mean and standard error over the cells (target, training run, seed), random search
averaged over 20 orders first.
"""


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
    sections = {}
    for database, frame in frames.items():
        for ending in ("pdf", "svg"):
            figure = figures / f"at2-{database}.{ending}"
            save_figure(recommendation_figure(frame), figure)
            print(f"{figure} from {latest[database]}")
        sections[database] = database_section(frame)
    (tables / "at2.tex").write_text(latex_table(frames))
    print(tables / "at2.tex")
    for name in ABLATIONS:
        made = options.results.parent / name
        if (made / "table.md").exists():
            shutil.copy(made / "figure.pdf", figures / f"{name}.pdf")
            shutil.copy(made / "table.tex", tables / f"{name}.tex")
            sections[name] = (made / "table.md").read_text()
            print(f"{figures / name}.pdf and {tables / name}.tex from {made}")
        else:
            print(f"No {name}: `.venv/bin/python experiments/{name}.py` makes it.")
    write_results(options.paper, sections)
    compile_pdf(options.paper)


def latest_results(folder: Path) -> dict[str, Path]:
    """The youngest results.parquet of each database, in the order of `DATABASES`."""
    found = {name: list((folder / name).glob("*/results.parquet")) for name in DATABASES}
    return {
        name: max(paths, key=lambda path: path.stat().st_mtime)
        for name, paths in found.items()
        if paths
    }


def database_section(frame: pd.DataFrame) -> str:
    """The table of a database in Markdown, and what it is of."""
    targets, cells = frame["target"].nunique(), len(frame[CELL].drop_duplicates())
    sources = frame["sources"].str.count(",").max() + 1
    of_targets = f"{targets} target{'s' * (targets > 1)} with {sources} sources"
    return f"{of_targets}, {cells} cell{'s' * (cells > 1)}.\n\n{markdown_table(frame)}"


def write_results(paper: Path, sections: Mapping[str, str]) -> None:
    """Write RESULTS.md, where sections that are not given stay as they are."""
    path = paper / "RESULTS.md"
    before = sections_of(path.read_text()) if path.exists() else {}
    titles = {name: database.title for name, database in DATABASES.items()} | ABLATIONS
    written = [INTRODUCTION]
    for name, title in titles.items():
        body = sections.get(name, before.get(name))
        if name not in sections:
            kept = "stays as it is" if name in before else "is left out"
            print(f"{path}: the table of {name} {kept}.")
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
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    if subprocess.run(command, cwd=paper).returncode:
        sys.exit(f"latexmk failed: see {paper / 'main.log'}")
    print(paper / "main.pdf")


if __name__ == "__main__":
    main()
