#!/usr/bin/env bash
#SBATCH --job-name=collagan
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=USR2@120
#SBATCH --open-mode=append
# sbatch [sbatch options] slurm/train.sh CONFIG [train options]
set -euo pipefail
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p' | tail -1)
. "$(dirname "$script")/common.sh"

srun --kill-on-bad-exit=1 collagan train "$@"
