import numpy as np
import pandas as pd
import pytest

from amt.evaluation.experiment import METHODS
from amt.evaluation.figures import LABELS, STYLES, recommendation_figure, save_figure
from tests.problems import made_up_results


@pytest.fixture
def results() -> pd.DataFrame:
    return made_up_results(budget=5)


def test_every_method_has_a_label_and_a_style_of_its_own():
    assert set(LABELS) == set(STYLES) == set(METHODS)
    assert len(set(STYLES.values())) == len(METHODS)


def test_figure_has_one_line_a_method_in_each_panel(results):
    figure = recommendation_figure(results)
    assert len(figure.axes) == 2
    for axis, metric in zip(figure.axes, ("rank", "normalized_regret"), strict=True):
        assert len(axis.lines) == len(METHODS)
        amt = results[results["method"] == "amt"].groupby("query")[metric].mean()
        np.testing.assert_allclose(axis.lines[0].get_ydata(), amt)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [LABELS[m] for m in METHODS]


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
