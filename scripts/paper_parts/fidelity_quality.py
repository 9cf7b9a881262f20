"""The part of the paper on how good a low fidelity is, and the table of its databases."""

from collections.abc import Sequence

from amt import databases
from amt.evaluation.fidelity_quality import fidelity_output
from amt.evaluation.figures import title_of
from amt.evaluation.output import markdown
from amt.evaluation.tables import latex_tabular, latex_text
from amt.gp.grid import thinned
from paper_parts.content import Content, Sources
from paper_parts.words import listed


def fidelity_quality(sources: Sources) -> Content:
    """What each epoch says of the best score; RESULTS.md has about twelve of them."""
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
    return Content(figures, tables, {"Summary": listed(sentences)}, "\n".join(sections))


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
