#!/usr/bin/env bash
#SBATCH --job-name=collagan-reproduce
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR2@120
#SBATCH --open-mode=append
# sbatch [sbatch options] slurm/reproduce.sh [CONFIG] --data SHARDS --out DIR [reproduce options]
# Reproduces the paper on one node, one training after the other. `collagan reproduce --slurm` submits this script as its
# last job: it does what the other jobs have not done, evaluates, and writes tables and figures.
set -euo pipefail
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p' | tail -1)
. "$(dirname "$script")/common.sh"

exec ${container[@]+"${container[@]}"} collagan reproduce "$@"
