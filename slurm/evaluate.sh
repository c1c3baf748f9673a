#!/usr/bin/env bash
#SBATCH --job-name=collagan-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# sbatch [sbatch options] slurm/evaluate.sh MODEL [evaluate options]      scores a run folder or an exported one, over all ranks
set -euo pipefail
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\([^ ]*\).*/\1/p' | tail -1)
. "$(dirname "$script")/common.sh"

ranks evaluate "$@"
