"""Reads the logs of other tools, as tables in long form for `amt.databases.read_curves`.

```python
table = logs.lightning("lightning_logs", "val_loss", task="dataset")
curves = databases.read_curves(table, minimise=True)
```

| logs | call |
|---|---|
| W&B, exported histories | `wandb("export", "val/acc")` |
| W&B, a panel's CSV | `wandb_chart("chart.csv", "val/acc", {run: {...}, ...})` |
| W&B, from its API | `gather(((r.history(), r.config) for r in api.runs(...)), "val/acc", ...)` |
| MLflow, `mlruns` or `mlflow.db` | `mlflow("mlruns", "val_acc")` |
| TensorBoard, event files or CSV downloads | `tensorboard("runs", "val/acc")` |
| Lightning's CSVLogger | `lightning("lightning_logs", "val_acc")` |
| Keras' CSVLogger | `keras("logs", "val_accuracy")` |
| Ray Tune | `ray("ray_results", "val_acc")` |
| Optuna's `trials_dataframe` | `optuna_trials({"task": study.trials_dataframe(), ...})` |
| LCBench's JSON | `lcbench("data_2k_lw.json")` |
| HPO-B's JSON | `hpob("meta-train-dataset.json", "5860")` |
| YAHPO Gym, any other table | `read_curves(file, columns={...}, hyperparameters=[...])` |

Of YAHPO's `lcbench`, the last is `columns={"task": "OpenML_task_id", "score": "val_accuracy"}`,
`hyperparameters=["batch_size", "learning_rate", ...]`, and of Ray's or Optuna's tables the patterns
`["config/*"]` and `["params_*"]`.

A run's hyperparameters are those beside its log (`runs.settings_beside`), nested ones joined by
dots, or given as `hyperparameters={run: {...}}`. Its task is the hyperparameter that `task` names,
else the folder that has the folder of the run (of MLflow, the experiment). Runs of a task with the
same hyperparameters are its seeds. Epochs count from 1 in the table where the tool counts from 0.
"""

from amt.databases.logs.benchmarks import hpob, lcbench, optuna_trials
from amt.databases.logs.folders import keras, lightning, ray, tensorboard, wandb, wandb_chart
from amt.databases.logs.mlflow import mlflow
from amt.databases.logs.runs import gather

__all__ = [
    "gather",
    "hpob",
    "keras",
    "lcbench",
    "lightning",
    "mlflow",
    "optuna_trials",
    "ray",
    "tensorboard",
    "wandb",
    "wandb_chart",
]
