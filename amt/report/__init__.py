"""Reports: one HTML page of the results in a folder and of the states of live tuners.

```sh
python -m amt.report results/compare                              # writes report.html there
python -m amt.report tuner.npz --sources bundled --repeat 0 --tasks mnist segment
```

The page needs nothing beside itself, neither other files nor a network. Of the results of
`amt.evaluation` it has tables, figures, settings, and what was run on what machine; of a tuner's
state the history and the trials under way, and given its sources, what it recommends, predicts and
has learned of the past tasks.
"""

from amt.report.write import write_report

__all__ = ["write_report"]
