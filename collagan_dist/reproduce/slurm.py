"""`collagan reproduce --slurm`: a batch job for each missing run, and a last one that evaluates and writes the tables."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel

from collagan_dist import files, shell, structured
from collagan_dist.config import project_files
from collagan_dist.errors import ClusterError, ConfigError
from collagan_dist.reproduce import driver, run_status
from collagan_dist.reproduce.plan import PlannedRun, ReproduceOptions
from collagan_dist.reproduce.run_jobs import train_arguments

_LAST_JOB = "reproduce"  # the name of the job that writes the tables; no model has it
# The last job is one process: the resources that --slurm asks for a run's ranks are not for it.
_ONE_TASK = ("--nodes=1", "--ntasks=1", "--ntasks-per-node=1")


def submit(options: ReproduceOptions, sbatch_options: str) -> Iterator[str]:
    """Submit what is missing and not in the queue already; yield a line of text for each job.

    Raises ConfigError and ClusterError.
    """
    scripts, words = project_files.project_folder("slurm"), _split(sbatch_options)
    if shutil.which("sbatch") is None:
        raise ConfigError("--slurm: there is no sbatch here; run it on a login node of the cluster")
    with files.command_lock(options.out, "collagan reproduce"):
        runs, _ = driver.prepare(options)
        driver.write_configs(runs)
        queue = Queue(options.out)
        for run in runs:
            if run_status.is_trained(run):
                yield f"{run.name}: trained already"
            elif (job := queue.waiting(run.name)) is not None:
                yield f"{run.name}: job {job} is in the queue already"
            else:
                yield f"{run.name}: job {_submit_run(options, run, queue, scripts, words)}"
        if (job := queue.waiting(_LAST_JOB)) is not None:
            # It does not wait for the jobs that were submitted now.
            subprocess.run(["scancel", job], capture_output=True)
        # The last job starts however the others end: it trains itself what they have not.
        jobs = [job for run in runs if (job := queue.waiting(run.name)) is not None]
        after = [f"--dependency=afterany:{':'.join(jobs)}"] if jobs else []
        last = queue.submit(_LAST_JOB, [*words, *_ONE_TASK, *after], scripts / "reproduce.sh", _arguments(options))
        yield f"tables and figures: job {last}, after the others"


def _arguments(options: ReproduceOptions) -> list[str]:
    """Return the arguments of `collagan reproduce` that say the same as `options`."""
    words = [options.config, "--data", options.data, "--out", str(options.out)]
    words += ["--scale", repr(options.scale), "--seeds", str(options.seeds), "--columns", options.reading]
    words += ["--tables", ",".join(map(str, options.tables)), "--figures", ",".join(map(str, options.figures))]
    words += ["--models", ",".join(options.models)] if options.models else []
    words += [word for item in options.sets for word in ("--set", item)]
    return words + (["--ranks", str(options.ranks)] if options.ranks else [])


class _Jobs(RootModel[dict[str, Annotated[str, Field(pattern="^[0-9]{1,30}$")]]]):
    """The content of slurm.json."""


class Queue:
    """The jobs of a reproduction by the name of their run, stored in OUT/slurm.json."""

    def __init__(self, out: Path) -> None:
        self._path = out / "slurm.json"
        mend = "restore it, or remove it once no job of this reproduction waits or runs"
        self._jobs = structured.read(self._path, _Jobs, ClusterError, mend).root if self._path.is_file() else {}

    def waiting(self, name: str) -> str | None:
        """Return the job of a run if it waits or runs."""
        job = self._jobs.get(name)
        if job is None:
            return None
        found = subprocess.run(["squeue", "--noheader", "--jobs", job, "--format=%T"], capture_output=True, text=True)
        return job if found.returncode == 0 and found.stdout.strip() else None

    def submit(self, name: str, options: Sequence[str], script: Path, words: Sequence[str]) -> str:
        """Submit a job and return its id. Raises ClusterError."""
        command = ["sbatch", "--parsable", *options, str(script), *words]
        # The last job evaluates; slurm/train.sh would do so too, and twice is too often.
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLLAGAN_EVALUATE": "0"})
        if done.returncode:
            raise ClusterError(
                f"{shell.join(*command)}: {done.stderr.strip() or 'failed'}; correct the options of --slurm and run the same command"
            )
        job = done.stdout.strip().split(";")[0]
        self._jobs[name] = job
        files.write_json(self._path, self._jobs)
        return job


def _submit_run(options: ReproduceOptions, run: PlannedRun, queue: Queue, scripts: Path, words: Sequence[str]) -> str:
    """Submit a job that trains a run, after the job of the run that it needs."""
    first = queue.waiting(run.needs) if run.needs is not None else None
    # Without the second option Slurm keeps a job for ever whose dependency has failed.
    after = [f"--dependency=afterok:{first}", "--kill-on-invalid-dep=yes"] if first is not None else []
    name = [f"--job-name=collagan-{run.name}"]
    return queue.submit(run.name, [*name, *words, *after], scripts / "train.sh", train_arguments(run, options.data))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--slurm {text!r}: not a list of sbatch options ({error})") from None
