#!/usr/bin/env bash
#SBATCH --job-name=collagan-pack
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# sbatch slurm/pack.sh                                                          `celeba` from $COLLAGAN_ROOT, or from data/CelebA
# sbatch --array=0-15 [sbatch options] slurm/pack.sh RECIPE [pack options]      each task packs its part of the shards
# sbatch [--dependency=afterok:JOB] slurm/pack.sh RECIPE --merge                ... and this makes a data set of them
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
refuse_step_container pack.sh "the command runs in the batch script, not in a step"

part=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    number=$(((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN) / SLURM_ARRAY_TASK_STEP))
    last=$((SLURM_ARRAY_TASK_MIN + (SLURM_ARRAY_TASK_COUNT - 1) * SLURM_ARRAY_TASK_STEP))
    if [ "$last" != "$SLURM_ARRAY_TASK_MAX" ]; then
        echo "slurm: a list in --array does not say how many parts there are; give the whole range again, like --array=0-15" \
            "(what is packed already is not packed again)" >&2
        exit 2
    fi
    part=(--part "$number/$SLURM_ARRAY_TASK_COUNT")
fi
read_words "$@"
words=("$@")
if [ -z "$first$help" ]; then
    known=$(sed -n 's/^root: *//p' "$project/shards/celeba.yaml") # where the recipe looks
    if [ -z "$root" ] && [ -n "${COLLAGAN_ROOT:-}" ]; then
        root=$COLLAGAN_ROOT words+=(--root "$root")
    elif [ -z "$root" ] && [ ! -d "$known" ]; then
        echo "slurm: which RECIPE? CelebA is not in $PWD/$known; submit with a recipe (celeba --root DIR, folder --root DIR, a YAML file)," \
            "or with COLLAGAN_ROOT set to CelebA's folder" >&2
        exit 2
    fi
    words=(celeba "${words[@]}")
    why="RECIPE celeba, from ${root:-$known} into ${out:-packed/celeba}"
    say_chosen "pack.sh RECIPE [--root DIR] [--out DIR]"
fi
exec ${container[@]+"${container[@]}"} collagan pack --workers "${SLURM_CPUS_PER_TASK:-0}" ${part[@]+"${part[@]}"} ${words[@]+"${words[@]}"}
