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
# Slurm runs a spool copy. The project is where the submitted path leads, links followed; the path ends at one of the blanks.
said=$(scontrol --oneliner show job "$SLURM_JOB_ID" 2>/dev/null) said=${said#* Command=} project=${COLLAGAN_PROJECT:-}
said=${said%%$'\n'*} said=${said%% WorkDir=*}
for ((i = 1; i <= ${#said}; i++)); do
    if [ -n "$project" ] || [[ $said != /* || ${said:i:1} != [[:space:]]* && $i -lt ${#said} ]]; then continue; fi
    file=$(readlink -f "${said:0:i}") && [ -f "$file" ] && [ -f "${file%/*/*}/slurm/common.sh" ] && project=${file%/*/*} || true
done
if [ ! -f "$project/slurm/common.sh" ] || [ ! -f "$project/cluster/env.sh" ]; then
    echo "slurm: no slurm/common.sh beside ${project:-the submitted script (${said%% *})}; COLLAGAN_PROJECT=<checkout> says where it is" >&2
    exit 2
fi
. "$project/slurm/common.sh"
refuse_step_container reproduce.sh "the command runs in the batch script, not in a step"

exec ${container[@]+"${container[@]}"} collagan reproduce "$@"
