#!/usr/bin/env bash
#SBATCH --job-name=collagan-evaluate
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# sbatch slurm/evaluate.sh                                                the newest run in runs/, on all GPUs of a node
# sbatch [sbatch options] slurm/evaluate.sh MODEL [evaluate options]      scores a run folder or an exported one, over all ranks
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

need_gpus slurm/evaluate.sh
read_words "$@"
words=("$@")
if [ -z "$first$help" ]; then
    first=$(earlier model runs)
    first=${first:-$(newest_run)}
    if [ -z "$first" ]; then
        echo "slurm: which MODEL? There is no run with a checkpoint in $PWD/runs; submit with the folder of a run or of an exported model" >&2
        exit 2
    fi
    words=("$first" "$@") why="MODEL $first (the newest run in runs/)" run=$first
    mkdir -p "$run/logs"
    note "evaluates this run"
    keep model "$first"
fi
say_chosen "evaluate.sh MODEL [evaluate options]"
[ -n "$help" ] || echo "slurm: evaluates $first, $(on_ranks)"
warn_of_idle_gpus "$held_gpus" "$per_node"
ranks evaluate "${words[@]}"
