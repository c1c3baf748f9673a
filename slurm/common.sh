# Sourced by the batch scripts: finds the project and the collagan command, and starts ranks.

# `project` is the checkout that the batch script has found. All that is sourced is there: the submission folder may hold anything.
# (The last task of an array has the id of the whole array, which lists every task: all have the same command.)
project=$(cd "$project" && pwd)
. "$project/slurm/defaults.sh"
. "$project/slurm/failures.sh"

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

# A task starts with its node's environment and ignores USR2, the warning: by default it kills a process that has no
# handler (yet), such as torchrun, or Python in its first second. It is repeated (`follow`), so none is missed. The text is passed on, since a container may not see the file.
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

# find_gpus: set `gpus` to the GPUs of each node that are for ranks, `held_gpus` to those that the job holds, and `asked_gpus` if it asked
# for a number. One that did not, but for the whole node (--exclusive), holds all; its steps get what they ask for (`step_gpus`).
declare -A gpus_on
step_gpus=()
find_gpus() {
    local said hosts held node count
    said=$(scontrol --details show job "$job" 2>/dev/null) || said=''
    while read -r hosts held; do
        count=$(grep -o 'gpu:[^,(]*' <<<"$held" | sed 's/.*://' | paste -sd+) || true
        for node in $(scontrol show hostnames "$hosts"); do gpus_on[$node]=$((${count:-0})); done
    done < <(sed -n 's/^ *Nodes=\([^ ]*\) .* GRES=\(.*\)/\1 \2/p' <<<"$said")
    held_gpus=${SLURM_GPUS_ON_NODE:-0}
    for count in ${gpus_on[@]+"${gpus_on[@]}"}; do [ "$count" -ge "$held_gpus" ] || held_gpus=$count; done
    gpus=$held_gpus asked_gpus=1
    if [[ $said =~ TresPerNode=[^[:space:]]*gpu([^[:space:],]*[:=]([0-9]+))? ]]; then
        gpus=${BASH_REMATCH[2]:-1}
    elif [[ ${SLURM_GPUS:-} =~ ^[0-9]+$ ]]; then
        gpus=$((SLURM_GPUS / SLURM_NNODES))
    elif [[ ! $said =~ TresPer[A-Za-z]*=[^[:space:]]*gpu ]]; then
        asked_gpus=''
        if [ "$gpus" != 0 ]; then
            step_gpus=(--gpus-per-node="$gpus")
        elif [[ $said == *OverSubscribe=NO* ]] && ! grep -q gpu < <(sinfo -h -o %G); then # Slurm knows of no GPUs: all that are there
            gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ') || gpus=0
            held_gpus=$gpus
        fi
    fi
}
find_gpus

# need_gpus SCRIPT: end with an error where the job got no GPU by chance: on a node without one, or beside other jobs.
need_gpus() {
    if [ -n "$asked_gpus" ] || [ "$gpus" != 0 ] || ! sinfo -h -p "${SLURM_JOB_PARTITION:-}" -o %G 2>/dev/null | grep -q gpu; then return 0; fi
    echo "slurm: this job has no GPU on $SLURM_JOB_NODELIST, but partition $SLURM_JOB_PARTITION has some; submit $1 with" \
        "--gpus-per-node=N, or with --gpus-per-node=0 to use CPUs" >&2
    exit 2
}

# Ranks of a node: the tasks that were asked for, or one for each GPU, as far as there are CPUs.
cpus_on_node=''
for part in ${SLURM_JOB_CPUS_PER_NODE//,/ }; do
    if [ -z "$cpus_on_node" ] || [ "${part%%(*}" -lt "$cpus_on_node" ]; then cpus_on_node=${part%%(*}; fi
done
tasks="${SLURM_NTASKS:-$((SLURM_NNODES * ${SLURM_NTASKS_PER_NODE:-1}))}"
per_node=$((tasks / SLURM_NNODES))
asked_tasks=${SLURM_NTASKS:-${SLURM_NTASKS_PER_NODE:-}}
launcher="${COLLAGAN_LAUNCHER:-srun}"
case "$launcher" in
srun | torchrun) ;;
*)
    echo "slurm: COLLAGAN_LAUNCHER=$launcher: choose srun or torchrun" >&2
    exit 2
    ;;
esac
if [ -z "$asked_tasks" ]; then
    most=$((cpus_on_node / ${SLURM_CPUS_PER_TASK:-1}))
    per_node=$((gpus < most ? gpus : most))
    [ "$per_node" -ge 1 ] || per_node=1
elif [ "$launcher" = torchrun ]; then # one task on each node starts all its ranks; GPUs beyond the tasks get ranks, too
    if [ "$per_node" = 1 ] && [ "$gpus" -gt 1 ]; then per_node=$gpus; fi
    if [ "$per_node" = 0 ] || [ $((tasks % SLURM_NNODES)) != 0 ]; then
        echo "slurm: torchrun starts as many ranks on every node, but there are $tasks tasks for $SLURM_NNODES nodes; set --ntasks-per-node" >&2
        exit 2
    fi
fi
if [ -z "$asked_tasks" ] || [ "$launcher" = torchrun ]; then tasks=$((SLURM_NNODES * per_node)); fi
[ "$launcher" != torchrun ] || unset SLURM_GPUS_PER_TASK # meant for one rank, but the task holds all ranks of a node

# warn_of_idle_gpus HELD RANKS: say if each node has more GPUs than ranks.
warn_of_idle_gpus() {
    [ "$1" -gt "$2" ] || return 0
    echo "slurm: warning: this job holds $1 GPUs of each node and has $2 rank(s) there, so the others stay idle; submit with" \
        "--ntasks-per-node=$1 to use them, with --oversubscribe --gpus-per-node=$2 to leave them to other jobs" >&2
}

# follow PID: wait for a step, passing the warning on to its tasks; srun's exit code.
follow() {
    exec 8<> <(:) # nobody writes there: reading it sleeps without a process
    while kill -0 "$1" 2>/dev/null; do
        # Again and again: tasks that have not started, or have no handler yet, miss it.
        if [ -n "${warned:-}" ] && [ $((SECONDS % 5)) = 0 ]; then scancel --signal=USR2 "$job" 2>/dev/null || true; fi
        read -r -t 1 -u 8 _ || true
    done
    exec 8>&-
    wait "$1" # the shell remembers it
}

# ranks COMMAND...: `collagan COMMAND...` on every rank of the allocation; srun's exit code.
ranks() {
    # srun does not take them from the allocation by itself: a rank would have one core. (With these two, CPUs are not those of a rank.)
    local cpus=0
    [ -n "${SLURM_HINT:-}${SLURM_THREADS_PER_CORE:-}" ] || cpus=$((cpus_on_node / ((tasks + SLURM_NNODES - 1) / SLURM_NNODES)))
    cpus=${SLURM_CPUS_PER_TASK:-$cpus}
    local options=(--kill-on-bad-exit=1 ${step_gpus[@]+"${step_gpus[@]}"})
    local command=(collagan)
    local how="$itself"
    [ ${#container[@]} = 0 ] || how="$with_workers"
    if [ "$launcher" = srun ] && [ -z "$asked_tasks" ]; then options+=(--ntasks="$tasks" --ntasks-per-node="$per_node"); fi
    if [ "$launcher" = torchrun ]; then
        options+=(--nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1)
        cpus=$((cpus == 0 ? 0 : cpus_on_node))
        how="$with_workers"
        # The static rendezvous: with c10d, agents unpickle whatever a stranger puts into their store. It knows the nodes, and
        # nothing tells one agent of another's ranks that died; ranks notice themselves, and end with an error.
        command=(torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$per_node" --max-restarts="${COLLAGAN_MAX_RESTARTS:-3}"
            --rdzv-backend=static --rdzv-id="$SLURM_JOB_ID.$restarts" --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT"
            -m -- collagan_dist)
    fi
    [ "$cpus" != 0 ] || cpus=''
    log_begin=$(log_size) # what srun says of nodes comes behind it
    srun "${options[@]}" ${cpus:+--cpus-per-task="$cpus"} ${step_options[@]+"${step_options[@]}"} \
        bash -c "$task$how" bash ${container[@]+"${container[@]}"} "${command[@]}" "$@" &
    follow $! || return
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
