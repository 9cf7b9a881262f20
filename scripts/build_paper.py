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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from amt.evaluation.figures import inference_figure, kernel_figure, save_figure
from amt.evaluation.runs import difference
from paper_parts.comparison import comparison
from paper_parts.content import Content, Sources
from paper_parts.fidelity_quality import fidelity_quality
from paper_parts.negative_transfer import negative_transfer
from paper_parts.pairs import pairs
from paper_parts.roi import roi
from paper_parts.sweep import sweep
from paper_runs import ROOT, commands, few_seeds, seeds_of, sources_of

INTRODUCTION = """\
# Results

<!-- Made by scripts/build_paper.py from results/; paper/benchmarks.md is written by hand. -->

Rank is that of the recommended configuration among all of the target's (0 is the best), regret its
distance from the best as a share of the range (`amt.evaluation.metrics`), after some epochs spent
on the target; mean and standard error over the cells (target, training run, seed), random search
averaged over 20 orders first. `paper/runs.yaml` has the settings.
"""

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
