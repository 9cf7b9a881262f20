"""The part of the paper on sources that mislead."""

from amt.evaluation.figures import title_of
from amt.evaluation.negative_transfer import transfer_output
from amt.evaluation.output import markdown
from amt.evaluation.statistics import BUDGETS, label_of
from amt.evaluation.tables import latex_tabular, latex_text
from paper_parts.content import OURS, Content, Sources
from paper_parts.words import listed, listed_numbers


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
            f"{listed_numbers(part)}\\% after {listed(BUDGETS)} epochs, and {100 * most:.0f}\\% at "
            f"{listed_numbers(ours)}\\%, where freeze-thaw without sources has "
            f"{listed_numbers([without[f'regret_{b}'] for b in BUDGETS])}\\%."
        )
    heads = ["", "", "all good", *(rf"{k}, {100 * s:.0f}\%" for k, s in shown[1:])]
    tables = {"negative_transfer": latex_tabular(heads, rows[:-1], "ll" + "r" * len(shown))}
    return Content(figures, tables, {"Summary": " ".join(sentences)}, "\n".join(sections))
