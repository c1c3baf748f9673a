# Sourced by the batch scripts: where the project is, which collagan to run, how ranks meet, what becomes of a job that failed.

# `script` is the batch script itself. It runs from a spool copy, so the scripts find it through the command that was
# submitted. (The last task of an array has the id of the whole array, which shows every task: all have the same command.)
project=$(cd "$(dirname "$script")/.." && pwd)

# Words before every command, as `apptainer exec --nv image.sif`; and more options of srun, as pyxis's --container-image.
read -ra container <<<"${COLLAGAN_CONTAINER:-}"
read -ra step_options <<<"${COLLAGAN_SRUN:-}"
in_container() { [ ${#container[@]} -gt 0 ] || [[ ${COLLAGAN_SRUN:-} == *--container-image* ]]; }

if ! in_container && ! command -v collagan >/dev/null; then
    if [ ! -x "$project/.venv/bin/collagan" ]; then
        echo "slurm: no collagan on PATH and no $project/.venv; run 'make setup' in $project" >&2
        exit 2
    fi
    PATH="$project/.venv/bin:$PATH"
fi
export PATH

# The name of this job, or of this task of an array, and how often it was started before.
job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"
job="${job:-$SLURM_JOB_ID}"
restarts="${SLURM_RESTART_COUNT:-0}"

. "$project/cluster/env.sh" # this shell's own: without COLLAGAN_NODES it names no interface, which could be another elsewhere
COLLAGAN_NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\n' ' ')
MASTER_ADDR=${COLLAGAN_NODES%% *}
# A restarted job must not meet the port of its first life, nor two jobs of one node each other.
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 10 + restarts) % 10000))
export MASTER_ADDR MASTER_PORT COLLAGAN_NODES
export SLURM_EXPORT_ENV=ALL # tasks get this shell's environment, whatever sbatch --export said of its own
# Where nothing hides the devices of others, a job that asked for none must not find them.
[ "${SLURM_GPUS_PER_NODE:-}" != 0 ] || export CUDA_VISIBLE_DEVICES=

# A task starts with its node's environment, and with Slurm's warning USR2 ignored: it would kill what does not handle it
# (yet), as torchrun and Python's first second. The text is handed over, since a container need not see the file.
task="trap '' USR2
$(cat "$project/cluster/env.sh")
"
itself='exec "$@"'
# Slurm signals the tasks, not (with cgroups) what they started: workers of torchrun get the warning from here.
with_workers='
warn() { for pid in $(cat /proc/"$1"/task/*/children 2>/dev/null); do kill -USR2 "$pid" 2>/dev/null; warn "$pid"; done; }
"$@" &
child=$!
trap "warn $child" USR2
trap "kill -TERM $child" TERM
trap "kill -INT $child" INT
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do # a signal ended the waiting, not the child
    wait "$child"
    code=$?
done
if [ "$code" -gt 128 ]; then # or both: bash remembers how the child ended
    wait "$child"
    code=$?
fi
exit "$code"'

tasks="${SLURM_NTASKS:-$((SLURM_NNODES * ${SLURM_NTASKS_PER_NODE:-1}))}"
per_node=$((tasks / SLURM_NNODES))
launcher="${COLLAGAN_LAUNCHER:-srun}"
case "$launcher" in
srun) ;;
torchrun) # one task a node holds them all; GPUs beyond the tasks get ranks, too
    if [ "$per_node" = 1 ] && [ "${SLURM_GPUS_ON_NODE:-0}" -gt 1 ]; then per_node=$SLURM_GPUS_ON_NODE; fi
    if [ "$per_node" = 0 ] || [ $((tasks % SLURM_NNODES)) != 0 ]; then
        echo "slurm: torchrun starts as many ranks on every node, but there are $tasks tasks for $SLURM_NNODES nodes; set --ntasks-per-node" >&2
        exit 2
    fi
    unset SLURM_GPUS_PER_TASK # of the one task that holds all ranks of a node
    tasks=$((SLURM_NNODES * per_node))
    ;;
*)
    echo "slurm: COLLAGAN_LAUNCHER=$launcher: choose srun or torchrun" >&2
    exit 2
    ;;
esac

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
        command=(torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$per_node" --max-restarts="${COLLAGAN_MAX_RESTARTS:-3}"
            --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID.$restarts" --rdzv-endpoint="$MASTER_ADDR:$MASTER_PORT" -m -- collagan_dist)
    fi
    srun "${options[@]}" ${cpus:+--cpus-per-task="$cpus"} ${step_options[@]+"${step_options[@]}"} \
        bash -c "$task$how" bash ${container[@]+"${container[@]}"} "${command[@]}" "$@" || return
    MASTER_PORT=$((MASTER_PORT + 1)) # the next step's
}

# one COMMAND...: `collagan COMMAND...` once, here.
one() {
    local first=()
    if [ ${#container[@]} = 0 ] && in_container; then first=(srun --nodes=1 --ntasks=1 "${step_options[@]}"); fi
    ${first[@]+"${first[@]}"} ${container[@]+"${container[@]}"} collagan "$@"
}

# Slurm's word of this job (`state`, `reason`). Fails when there is none, or when this is no longer the job's newest start:
# a node that was cut off must neither count nor write.
ask_slurm() {
    local said
    said=$(scontrol --oneliner show job "$job" 2>/dev/null) || return
    [[ " $said " =~ \ Restarts=$restarts\  && $said =~ JobState=([^ ]*)\ Reason=([^ ]*) ]] || return
    state=${BASH_REMATCH[1]} reason=${BASH_REMATCH[2]}
}

# note TEXT: a line about this start in RUN/logs.
note() {
    local file="$run/logs/slurm-$job.txt"
    [ -s "$file" ] || echo "# Starts of job $job: when, number, nodes, what happened. After MAX_REQUEUE failures it stays ended." >"$file"
    printf '%s  start %s  %s  %s\n' "$(date '+%F %T')" "$restarts" "$SLURM_JOB_NODELIST" "$1" | tee -a "$file"
}

# requeue CODE: have this job started again, or end with CODE where that is not allowed (sbatch --no-requeue).
requeue() {
    scontrol requeue "$job" || {
        echo "slurm: job $job cannot be started again by itself; the same sbatch line continues" >&2
        exit "$1"
    }
    exit 0
}

# mine MARK: whether this start of this job left RUN/requeue or RUN/failed, not another one in the same folder.
mine() { grep -qs "slurm:$SLURM_JOB_ID, start $restarts\b" "$run/$1"; }

# settle CODE: after a step; returns when it went well. A stop that saved is continued, a failure is tried again up to
# MAX_REQUEUE times, but not what a restart cannot mend: 2 usage and configuration, 3 data, 5 checkpoint, 6 NaN.
settle() {
    local code=$1 failures final
    [ "$code" != 0 ] || mine requeue || return 0
    if ! ask_slurm; then
        echo "slurm: this start of job $job is not its newest any more, or Slurm does not answer" >&2
        exit "$code"
    fi
    # Cancelled, preempted: Slurm has decided already what becomes of the job. Only the time limit leaves that to us.
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
    failures=$(grep -c ' FAILED ' "$run/logs/slurm-$job.txt" 2>/dev/null) || true
    if [ "${failures:-0}" -ge "${MAX_REQUEUE:-3}" ]; then
        note "FAILED with code $code: the last of MAX_REQUEUE=${MAX_REQUEUE:-3} restarts; the same sbatch line continues"
        exit "$code"
    fi
    note "FAILED with code $code; restart $((${failures:-0} + 1)) of at most ${MAX_REQUEUE:-3}"
    requeue "$code"
}
