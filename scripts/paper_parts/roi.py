"""The part of the paper on what past tasks are worth."""

import numpy as np

from amt.evaluation.figures import title_of
from amt.evaluation.output import markdown
from amt.evaluation.roi import roi_output
from amt.evaluation.statistics import label_of
from amt.evaluation.tables import latex_tabular, latex_text
from paper_parts.content import OURS, Content, Sources


def roi(sources: Sources) -> Content:
    """The epochs that past tasks save, and the number of projects after which they pay."""
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
