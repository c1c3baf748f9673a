#!/usr/bin/env bash
#SBATCH --job-name=collagan
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR2@120
# sbatch [sbatch options] slurm/train.sh CONFIG [train options]      trains, evaluates, reports; requeues itself
# COLLAGAN_LAUNCHER=torchrun: one task a node. COLLAGAN_EVALUATE=0: only train. MAX_REQUEUE: restarts after failures (3).
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

# Errors of the command are found before ranks start. As rank 0 of all, so that it checks whether they can share the batch.
plan=$(TORCHELASTIC_RUN_ID=plan RANK=0 WORLD_SIZE=$tasks LOCAL_RANK=0 LOCAL_WORLD_SIZE=$per_node GROUP_RANK=0 one train "$@" --dry-run)
planned run "$@"
note "$tasks ranks by $launcher, meeting at $MASTER_ADDR:$MASTER_PORT"

trap : TERM # Slurm sends it to this shell too, which must outlive the ranks to handle their exit code
code=0
ranks train "$@" || code=$?
settle "$code"
if [ "${COLLAGAN_EVALUATE:-1}" != 0 ]; then
    ranks evaluate "$run" || code=$?
    settle "$code"
    one report "$run"
fi
note "done"
