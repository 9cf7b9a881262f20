"""Kernels between tasks."""

from amt.kernels.task.at2 import AT2Task, task_distances
from amt.kernels.task.base import GivenGram, TargetObservations, TaskKernel, bordered
from amt.kernels.task.icm import ICM
from amt.kernels.task.latent import LatentTask
from amt.kernels.task.psd import project_psd
from amt.kernels.task.rank import RankAgreement, rank_distances
from amt.kernels.task.scaled import ScaledTask

__all__ = [
    "ICM",
    "AT2Task",
    "GivenGram",
    "LatentTask",
    "RankAgreement",
    "ScaledTask",
    "TargetObservations",
    "TaskKernel",
    "bordered",
    "project_psd",
    "rank_distances",
    "task_distances",
]
