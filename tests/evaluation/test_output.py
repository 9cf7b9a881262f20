import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from amt.evaluation.output import markdown, write_output

TABLE = pd.DataFrame(
    {
        "method": ["amt", "rgpe"],
        "sources": [1, 28],
        "mean_regret": [0.012345, 140000.0],
        "projects": [np.inf, np.nan],
        "recommended": [False, True],
    }
)


def test_markdown_has_three_digits_and_nothing_where_a_number_is_missing():
    assert markdown(TABLE).splitlines() == [
        "| method | sources | mean regret | projects | recommended |",
        "|---|---|---|---|---|",
        "| amt | 1 | 0.0123 | inf |  |",
        "| rgpe | 28 | 140000 |  | yes |",
    ]


def test_table_and_figure_are_there_and_nothing_else(tmp_path):
    write_output(tmp_path / "new", "what", TABLE, Figure(figsize=(1, 1)))
    files = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in files] == ["what.csv", "what.md", "what.pdf", "what.png"]
    pd.testing.assert_frame_equal(pd.read_csv(files[0]), TABLE)
    assert files[2].read_bytes().startswith(b"%PDF")
    assert files[3].read_bytes().startswith(b"\x89PNG")
