"""What the configurations of all training runs share; each task adds its own fields beside its task."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UserError
from .data import DataConfig
from .optimiser import OptimConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training run.

    task: which of the tasks. out: folder of the run. data, optim: see DataConfig, OptimConfig.
    init: folders of earlier runs, model folders or published weights whose matching tensors are loaded, in order.
    seed: of everything random.
    eval_minutes, save_minutes, log_steps: time between evaluations and between checkpoints; steps between lines of
        the log.
    """

    task: str
    out: str
    data: DataConfig
    optim: OptimConfig
    init: tuple[str, ...] = ()
    seed: int = 1
    eval_minutes: float = 5.0
    save_minutes: float = 2.0
    log_steps: int = 20

    def need(self, **settings: object) -> None:
        """Raises UserError for the first of these settings, by name with `__` for the dots, that is not given."""
        for name, value in settings.items():
            if not value:
                raise UserError(f"a {self.task} run needs `{name.replace('__', '.')}`")
