# Sourced by the batch scripts: finds the project and the collagan command, starts ranks, decides whether a job is requeued.

# `project` is the checkout that the batch script has found. Nothing else is sourced: the submission folder may hold anything.
# (The last task of an array has the id of the whole array, which lists every task: all have the same command.)
project=$(cd "$project" && pwd)

# A prefix of every command, such as `apptainer exec --nv image.sif`; further options of srun, such as pyxis's --container-image.
read -ra container <<<"${COLLAGAN_CONTAINER:-}"
read -ra step_options <<<"${COLLAGAN_SRUN:-}"
in_container() { [ ${#container[@]} -gt 0 ] || [[ ${COLLAGAN_SRUN:-} == *--container-image* ]]; }

# refuse_step_container SCRIPT WHY: end with an error where the container is an option of srun.
refuse_step_container() {
    [[ ${COLLAGAN_SRUN:-} == *--container-image* ]] || return 0
    echo "slurm: $1 knows containers by COLLAGAN_CONTAINER only: $2" >&2
    exit 2
}

if ! in_container && ! command -v collagan >/dev/null; then
    if [ ! -x "$project/.venv/bin/collagan" ]; then
        echo "slurm: no collagan on PATH and no $project/.venv; activate the environment that has it, or run 'make setup' in $project, if that is a checkout" >&2
        exit 2
    fi
    PATH="$project/.venv/bin:$PATH"
fi
export PATH

# The id of this job, or of this task of an array, and how often it was requeued.
job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"
job="${job:-$SLURM_JOB_ID}"
restarts="${SLURM_RESTART_COUNT:-0}"

. "$project/cluster/env.sh" # for this shell; before COLLAGAN_NODES is set, since other nodes may have other interfaces
COLLAGAN_NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\n' ' ')
MASTER_ADDR=${COLLAGAN_NODES%% *}
# A requeued job must not meet ranks of its former start on the same port, nor two jobs of one node each other.
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 10 + restarts) % 10000))
# Ranks of this start prove that they belong to it. By the environment: everybody on a node sees command lines.
COLLAGAN_RENDEZVOUS_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export MASTER_ADDR MASTER_PORT COLLAGAN_NODES COLLAGAN_RENDEZVOUS_SECRET
export SLURM_EXPORT_ENV=ALL # tasks get this shell's environment, whatever sbatch --export says
# On clusters that do not constrain devices, a job that asked for no GPU would use those of other jobs.
[ "${SLURM_GPUS_PER_NODE:-}" != 0 ] || export CUDA_VISIBLE_DEVICES=

# A task starts with its node's environment and ignores USR2, Slurm's warning: by default it kills a process that has no
# handler (yet), such as torchrun, or Python in its first second. The text is passed on, since a container may not see the file.
task="trap '' USR2
$(cat "$project/cluster/env.sh")
"
itself='exec "$@"'
# Slurm signals the tasks, but (with cgroups) not their children: workers of torchrun get the warning from here. Its option
# --node-rank is each task's own.
with_workers='
export PET_NODE_RANK=$SLURM_NODEID
warn() { for pid in $(cat /proc/"$1"/task/*/children 2>/dev/null); do kill -USR2 "$pid" 2>/dev/null; warn "$pid"; done; }
"$@" &
child=$!
trap "warn $child" USR2
trap "kill -TERM $child" TERM
trap "kill -INT $child" INT
trap "kill -HUP $child" HUP
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do # a signal interrupted `wait`, the child still runs
    wait "$child"
    code=$?
done
if [ "$code" -gt 128 ]; then # the child may have ended too: bash remembers its exit code
    wait "$child"
    code=$?
fi
exit "$code"'

if [ "${SLURM_HET_SIZE:-1}" != 1 ]; then
    echo "slurm: a heterogeneous job ($SLURM_HET_SIZE components): its ranks do not train together; submit a job of one component" >&2
    exit 2
fi
tasks="${SLURM_NTASKS:-$((SLURM_NNODES * ${SLURM_NTASKS_PER_NODE:-1}))}"
per_node=$((tasks / SLURM_NNODES))
launcher="${COLLAGAN_LAUNCHER:-srun}"
case "$launcher" in
srun) ;;
torchrun) # one task on each node starts all its ranks; GPUs beyond the tasks get ranks, too
    if [ "$per_node" = 1 ] && [ "${SLURM_GPUS_ON_NODE:-0}" -gt 1 ]; then per_node=$SLURM_GPUS_ON_NODE; fi
    if [ "$per_node" = 0 ] || [ $((tasks % SLURM_NNODES)) != 0 ]; then
        echo "slurm: torchrun starts as many ranks on every node, but there are $tasks tasks for $SLURM_NNODES nodes; set --ntasks-per-node" >&2
        exit 2
    fi
    unset SLURM_GPUS_PER_TASK # meant for one rank, but the task holds all ranks of a node
    tasks=$((SLURM_NNODES * per_node))
    ;;
*)
    echo "slurm: COLLAGAN_LAUNCHER=$launcher: choose srun or torchrun" >&2
    exit 2
    ;;
esac

# warn_of_idle_gpus RANKS: say if this node has more GPUs than ranks.
warn_of_idle_gpus() {
    local gpus="${SLURM_GPUS_ON_NODE:-0}"
    [ "$gpus" -gt "$1" ] || return 0
    echo "slurm: warning: $gpus GPUs on each node but $1 rank(s), so the others stay idle; submit with --ntasks-per-node=$gpus" >&2
}
warn_of_idle_gpus "$per_node"

# ranks COMMAND...: `collagan COMMAND...` on every rank of the allocation; srun's exit code.
ranks() {
    local cpus="${SLURM_CPUS_PER_TASK:-}" # srun does not take them from the allocation by itself
    local options=(--kill-on-bad-exit=1)
    local command=(collagan)
    local how="$itself"
    [ ${#container[@]} = 0 ] || how="$with_workers"
    if [ "$launcher" = torchrun ]; then
        options+=(--nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1)
        cpus=${cpus:+$((cpus * per_node))}
        how="$with_workers"
        # The static rendezvous: with c10d, agents unpickle whatever a stranger puts into their store. It knows the nodes, and
        # nothing tells one agent of another's ranks that died; ranks notice themselves, and end with an error.
        command=(torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$per_node" --max-restarts="${COLLAGAN_MAX_RESTARTS:-3}"
            --rdzv-backend=static --rdzv-id="$SLURM_JOB_ID.$restarts" --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT"
            -m -- collagan_dist)
    fi
    srun "${options[@]}" ${cpus:+--cpus-per-task="$cpus"} ${step_options[@]+"${step_options[@]}"} \
        bash -c "$task$how" bash ${container[@]+"${container[@]}"} "${command[@]}" "$@" || return
    MASTER_PORT=$((MASTER_PORT + 1)) # for the next step
}

# one COMMAND...: `collagan COMMAND...` once, here.
one() {
    local first=()
    if [ ${#container[@]} = 0 ] && in_container; then first=(srun --nodes=1 --ntasks=1 "${step_options[@]}"); fi
    ${first[@]+"${first[@]}"} ${container[@]+"${container[@]}"} collagan "$@"
}

# planned NAME WORD...: set `run` to the folder that the last line of `plan` names. Without one, or if the words ask for a dry run,
# show the plan and end.
planned() {
    local said word
    said=$(sed -n "s/^# $1: //p" <<<"$plan" | tail -1)
    for word in "${@:2}"; do [ "$word" != --dry-run ] || said=''; done
    if [ -z "$said" ]; then
        printf '%s\n' "$plan"
        exit
    fi
    printf -v run %b "$said" # a newline is written as \n there
    [[ $run != -* ]] || run=./$run
    mkdir -p "$run/logs"
}

# Query `state` and `reason` of this job. Fails if Slurm does not answer, or if this is no longer the job's newest start:
# a node that was cut off from the network must neither count failures nor write.
ask_slurm() {
    local said
    said=$(scontrol --oneliner show job "$job" 2>/dev/null) || return
    [[ " $said " =~ \ Restarts=$restarts\  && $said =~ JobState=([^ ]*)\ Reason=([^ ]*) ]] || return
    state=${BASH_REMATCH[1]} reason=${BASH_REMATCH[2]}
}

# note TEXT: append a line about this start to RUN/logs/slurm-<job>.txt.
note() {
    local file="$run/logs/slurm-$job.txt"
    [ -s "$file" ] || echo "# Starts of job $job: when, number, nodes, what happened. After MAX_REQUEUE failures it stays ended." >"$file"
    printf '%s  start %s  %s  %s\n' "$(date '+%F %T')" "$restarts" "$SLURM_JOB_NODELIST" "$1" | tee -a "$file"
}

# requeue CODE: requeue this job, or exit with CODE where that is not allowed (sbatch --no-requeue).
requeue() {
    scontrol requeue "$job" || {
        echo "slurm: job $job cannot be started again by itself; the same sbatch line continues" >&2
        exit "$1"
    }
    exit 0
}

# mine FILE: whether this start of this job wrote RUN/requeue or RUN/failed, and not another job in the same folder.
mine() { grep -qs "slurm:$SLURM_JOB_ID, start $restarts\b" "$run/$1"; }

# elsewhere: whether another job, or a start without one, trains in RUN. Its lease alone says little: one that died left it there,
# but the file changes with each heartbeat of a start that lives.
elsewhere() {
    local seconds before
    before=$(stat -c %Y - 2>/dev/null <"$run/lease") || return
    for ((seconds = 0; seconds < 15; seconds++)); do
        grep -qsx 'state running' "$run/lease" && ! grep -q "^job slurm:$SLURM_JOB_ID, " "$run/lease" || return
        [ "$(stat -c %Y - <"$run/lease")" = "$before" ] || return 0
        sleep 1
    done
    return 1
}

# settle CODE: handle the exit code of a step; returns on success. After an interruption that saved, the job is requeued; after a
# failure too, up to MAX_REQUEUE times, unless a restart cannot help: 2 usage and configuration, 3 data, 5 checkpoint, 6 NaN.
settle() {
    local code=$1 failures final
    [ "$code" != 0 ] || mine requeue || return 0
    if ! ask_slurm; then
        echo "slurm: this start of job $job is not its newest any more, or Slurm does not answer" >&2
        exit "$code"
    fi
    # Cancelled or preempted: Slurm has already decided whether to requeue. After the time limit the decision is ours.
    if [ "$state" != RUNNING ] && [ "$reason" != TimeLimit ]; then
        note "ended by Slurm ($state)"
        exit "$code"
    fi
    if mine requeue; then
        note "asked to stop, saved; goes on by itself"
        requeue 75
    fi
    mine failed && final=$(sed -n 's/.*"exit_code": \([0-9]*\).*/\1/p' "$run/failed")
    case "${final:-$code}" in 2 | 3 | 5 | 6)
        note "ended with code ${final:-$code}, which a restart does not mend"
        exit "${final:-$code}"
        ;;
    esac
    if elsewhere; then
        note "another start trains in this folder: this one ends, no restart"
        exit 4
    fi
    failures=$(grep -c ' FAILED ' "$run/logs/slurm-$job.txt" 2>/dev/null) || true
    if [ "${failures:-0}" -ge "${MAX_REQUEUE:-3}" ]; then
        note "FAILED with code $code: the last of MAX_REQUEUE=${MAX_REQUEUE:-3} restarts; the same sbatch line continues"
        exit "$code"
    fi
    note "FAILED with code $code; restart $((${failures:-0} + 1)) of at most ${MAX_REQUEUE:-3}"
    requeue "$code"
}
