import numpy as np
import pandas as pd
import pytest

from amt.evaluation.figures import difference_figure, recommendation_figure, save_figure, styles
from amt.evaluation.statistics import label_of
from tests.problems import METHODS, made_up_results


@pytest.fixture
def results() -> pd.DataFrame:
    return made_up_results(budget=5)


def test_every_method_has_a_label_and_a_style_of_its_own():
    assert len({label_of(method) for method in METHODS}) == len(METHODS)
    assert len(set(styles(len(METHODS)))) == len(METHODS)
    assert len(set(styles(45))) == 45
    neighbours = zip(styles(45)[1:], styles(45), strict=False)
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in neighbours)


def test_figure_has_one_line_a_method_in_each_panel(results):
    figure = recommendation_figure(results)
    assert len(figure.axes) == 2
    for axis, metric in zip(figure.axes, ("rank", "normalized_regret"), strict=True):
        assert len(axis.lines) == len(METHODS)
        amt = results[results["method"] == "amt"].groupby("query")[metric].mean()
        np.testing.assert_allclose(axis.lines[0].get_ydata(), amt)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [label_of(m) for m in METHODS]


def test_the_title_says_what_the_figure_shows(results):
    title = recommendation_figure(results).get_suptitle()
    assert title == "made up: 3 targets; bands: standard error of the mean over them"
    seeds = pd.concat([results, results.assign(seed=1)])
    title = recommendation_figure(seeds, title="HyperRec").get_suptitle()
    assert title.startswith("HyperRec: 3 targets, 6 cells (target, training run, seed); bands")
    one = recommendation_figure(results[results["split"] == 0])
    assert one.get_suptitle() == "made up: 1 target; no bands: one cell"


def test_forty_methods_need_no_table_of_names(results):
    method = results[results["method"] == "amt"]
    many = pd.concat([method.assign(method=f"tuner_{number}") for number in range(40)])
    figure = recommendation_figure(many)
    assert len(figure.axes[0].lines) == 40
    drawn = {(line.get_color(), str(line._dash_pattern)) for line in figure.axes[0].lines}
    assert len(drawn) == 40
    assert len(figure.legends[0].get_texts()) == 40


def test_epochs_on_a_logarithmic_axis(results):
    scales = {axis.get_xscale() for axis in recommendation_figure(results, log_x=True).axes}
    assert scales == {"log"}


def test_a_single_cell_is_drawn_without_error(results):
    figure = recommendation_figure(results[results["split"] == 0])
    assert np.isfinite(figure.axes[0].lines[0].get_ydata()).all()


@pytest.mark.parametrize("ending", ["pdf", "png"])
def test_the_same_figure_is_the_same_file(results, tmp_path, ending):
    for name in ("one", "two"):
        save_figure(recommendation_figure(results), tmp_path / f"{name}.{ending}")
    one, two = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("one", "two"))
    assert len(one) > 1000
    assert one == two


def test_bars_of_a_critical_difference_diagram_go_from_the_best_place_to_the_worst():
    """In the library's own order of a set of names, a figure would differ between processes."""
    pytest.importorskip("scikit_posthocs")
    names = [f"method {number}" for number in range(12)]
    far = np.abs(np.subtract.outer(np.arange(12), np.arange(12))) > 8
    pairs = pd.DataFrame(np.where(far, 0.0, 1.0), names, names)
    figure = difference_figure(pd.Series(np.linspace(1, 12, 12), names), pairs, "places")
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() == 2]
    assert [len(bar.get_xdata()) for bar in bars] == [9, 9, 9, 9]
    for bar in bars:
        assert (np.diff(bar.get_xdata()) > 0).all()
