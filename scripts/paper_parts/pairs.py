"""The part of the paper on the published pairs of sources and a target."""

import pandas as pd

from amt.evaluation.figures import recommendation_figure, title_of
from amt.evaluation.statistics import BUDGETS, CELL, label_of
from amt.evaluation.tables import latex_table, latex_text, markdown_table
from paper_parts.content import OURS, Content, Sources
from paper_parts.words import listed, listed_numbers


def pairs(sources: Sources) -> Content:
    """Ranks and regrets on the published pairs of sources and a target."""
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
        text = f"On {name} its mean rank after {listed(BUDGETS)} epochs is {listed_numbers(ours)}"
        if ahead:
            first = best.mean().idxmin()
            text += f"; {latex_text(label_of(first))} has {listed_numbers(best[first])}"
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
