#!/usr/bin/env bash
#SBATCH --job-name=collagan
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
# sbatch slurm/train.sh                                              `stable` on $COLLAGAN_DATA, or the one set in packed/
# sbatch [sbatch options] slurm/train.sh CONFIG [train options]      trains, evaluates, reports; requeues itself
# --exclusive: all of a node, a rank for each of its GPUs. To share nodes: sbatch --oversubscribe --gpus-per-node=1 ...
# COLLAGAN_LAUNCHER=torchrun: one task a node. COLLAGAN_EVALUATE=0: only train. MAX_REQUEUE: restarts after failures (3).
set -euo pipefail
trap 'warned=1' USR2 # Slurm's warning of the time limit, which may come at once
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

need_gpus slurm/train.sh
read_words "$@"
words=("$@")
if [ -z "$first" ]; then
    first=stable words=(stable "$@") why="CONFIG stable"
fi
choose_data runs
say_chosen "train.sh CONFIG --data SHARDS"

# Errors of the command are found before ranks start. As rank 0 of all, so that it checks whether they can share the batch: of ranks
# that nobody asked for there are as many as can.
until plan=$(TORCHELASTIC_RUN_ID=plan RANK=0 WORLD_SIZE=$tasks LOCAL_RANK=0 LOCAL_WORLD_SIZE=$per_node GROUP_RANK=0 one train "${words[@]}" --dry-run 2>&1); do
    code=$?
    if [ -n "$asked_tasks" ] || [ "$per_node" = 1 ] || ! grep -qE 'shared evenly|start fewer ranks' <<<"$plan"; then
        printf '%s\n' "$plan" >&2
        exit "$code"
    fi
    per_node=$((per_node - 1)) tasks=$((tasks - SLURM_NNODES))
done
planned run "${words[@]}"
echo "slurm: trains $first into $run, $(on_ranks)"
warn_of_idle_gpus "$held_gpus" "$per_node"
splits=$(sed -n 's/^# splits: //p' <<<"$plan") evaluates=1
if [ "${COLLAGAN_EVALUATE:-1}" != 0 ] && [ -n "$splits" ] && [[ " $splits " != *" test "* ]]; then
    evaluates=''
    echo "slurm: the data set has no split test, so the run will not be evaluated; collagan evaluate $run --split SPLIT does it on another"
fi
lost_before
note "$tasks ranks by $launcher, meeting at $MASTER_ADDR:$MASTER_PORT"
[ -z "$note_data" ] || keep data "$data"

trap : TERM # Slurm sends it to this shell too, which must outlive the ranks to handle their exit code
code=0
ranks train "${words[@]}" || code=$?
settle "$code"
if [ "${COLLAGAN_EVALUATE:-1}" != 0 ]; then
    [ -z "$evaluates" ] || ranks evaluate "$run" || code=$?
    settle "$code"
    one report "$run"
fi
note "done"
