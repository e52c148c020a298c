"""Where text is prepared: in this process, in several, or on a cluster. It decides no token."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rewarm.recipe.section import Section

__all__ = ["PrepareRecipe", "SlurmRecipe"]


class SlurmRecipe(Section):
    """What Slurm is asked for, for each task."""

    partition: str = Field(min_length=1, description="where tasks run")
    time: str = Field("24:00:00", min_length=1, description="limit of a task, as sbatch takes it")
    cpus_per_task: int = Field(2, gt=0, description="the tokenizer uses them all")
    mem_per_cpu_gb: int = Field(2, gt=0, description="GB for each CPU")
    qos: str | None = Field(None, min_length=1, description="quality of service; default: none")
    env_command: str | None = Field(
        None, description="shell line that activates the environment; default: this one"
    )
    sbatch: dict[str, str] = Field(
        default_factory=dict, description="further options of sbatch, without --"
    )


class PrepareRecipe(Section):
    """How text is prepared: the shards are the same bytes in any way."""

    executor: Literal["local", "ray", "slurm"] = Field(
        "local",
        description="of datatrove's: local (this machine), ray (a cluster at RAY_ADDRESS, or this "
        "machine), slurm (an array job; the same command goes on when it is done)",
    )
    workers: int | None = Field(
        None,
        gt=0,
        le=100_000,
        description="tasks at a time, one for each shard; default: local 1 (in this process, whose "
        "tokenizer uses all cores), else as many as there are",
    )
    slurm: SlurmRecipe | None = Field(None, description="what is asked for, with executor slurm")

    @model_validator(mode="after")
    def _slurm_is_asked_for(self) -> PrepareRecipe:
        if self.executor == "slurm" and self.slurm is None:
            raise ValueError("slurm needs to know where: [prepare.slurm] partition = …")
        if self.executor != "slurm" and self.slurm is not None:
            raise ValueError('[prepare.slurm] goes with executor = "slurm"')
        return self

    @property
    def in_this_process(self) -> bool:
        """Tell whether tasks run here, one after the other."""
        return self.executor == "local" and (self.workers or 1) == 1
