"""What the README shows works as it stands."""

import re
from pathlib import Path

from amt.databases import load

README = Path(__file__).parents[1] / "README.md"


def test_the_tuner_of_the_readme_finds_a_good_configuration():
    code = re.search(r"^## Tune\n\n```python\n(.*?)^```", README.read_text(), re.M | re.S)
    assert code is not None
    names: dict = {}
    exec(compile(code.group(1), "README.md", "exec"), names)
    target = load("bundled").repeat(0).select(tasks=["vowel"]).scores[0]
    chosen = target[names["tuner"].configs.index(names["best"])].max()
    assert (target.max(1) > chosen).mean() < 0.2
