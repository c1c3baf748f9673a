#!/usr/bin/env bash
#SBATCH --job-name=collagan-sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
# sbatch slurm/sweep.sh                                              `stable` over the space `lambda`, into sweeps/
# sbatch [sbatch options] slurm/sweep.sh CONFIG [sweep options]      a Ray cluster over the nodes, and collagan sweep on it
# The job requeues itself. MAX_REQUEUE: restarts after failures (3). COLLAGAN_RAY_WAIT: seconds for all nodes to join (120).
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

refuse_step_container sweep.sh "the command must share /tmp and processes with its node's Ray"
if ! ${container[@]+"${container[@]}"} bash -c 'command -v ray' >/dev/null; then
    echo "slurm: no ray on PATH beside collagan: pip install 'collagan_dist[sweep]'" >&2
    exit 2
fi

need_gpus slurm/sweep.sh
read_words "$@"
words=("$@")
if [ -z "$first" ]; then
    first=stable words=(stable "$@") why="CONFIG stable"
fi
if [ -z "$space" ]; then
    space=lambda words+=(--space lambda) why+="${why:+, }--space lambda"
fi
choose_data sweeps
if [ -z "$out" ]; then
    names=("${first##*/}" "${space##*/}")
    out=sweeps/${names[0]%.*}-${names[1]%.*} why+="${why:+, }--out $out"
    words+=(--out "$out")
fi
say_chosen "sweep.sh CONFIG --space SPACE --data SHARDS --out DIR"

# Errors of the command are found before Ray starts.
plan=$(one sweep "${words[@]}" --dry-run)
planned out "${words[@]}"
echo "slurm: sweeps $first over $space into $run"
lost_before
note "starts Ray on $SLURM_NNODES nodes"
[ -z "$note_data" ] || keep data "$data" # also where Ray does not start: a restart takes the same

# Ray refuses clients without the token of this start. It is passed in the environment, which only its user can read, and is
# written to no file.
unset RAY_ADDRESS RAY_AUTH_TOKEN_PATH RAY_TMPDIR
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0 RAY_enable_metrics_collection=0
export RAY_START_HOOK=collagan_dist.sweep.ray_start.without_client_server
export COLLAGAN_START=$restarts COLLAGAN_GRACE
COLLAGAN_GRACE=$(($(scontrol show config | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p') * 2 / 3)) # seconds from TERM until Ray is ended

# Requests to stop are passed to the driver, which makes trials save. A container's own process may not forward USR2, or may die of it,
# so all processes below it are signalled.
driver='' stopping=${warned:+USR2}
below() { for pid in $(cat /proc/"$1"/task/*/children 2>/dev/null); do echo "$pid" && below "$pid"; done; }
tell() {
    stopping=$1
    [ -n "$driver" ] || return 0
    local who=''
    [ ${#container[@]} = 0 ] || who=$(below "$driver")
    kill -s "$1" ${who:-"$driver"} 2>/dev/null || true
}
trap 'tell USR2' USR2
trap 'tell TERM' TERM

# Each step reads this pipe and ends when it is closed: by end_ray, or when this shell ends in any way.
folder=$(mktemp -d "/tmp/ray-$SLURM_JOB_ID.$restarts.XXXXXX")
mkfifo "$folder/end"
exec 9<>"$folder/end"
declare -A step # by node: the process id of its srun
end_ray() {
    [ -n "$folder" ] || return 0
    exec 9>&-
    local i pid
    for ((i = 0; i < 150; i++)); do # a lost node that Slurm has not noticed yet does not answer
        kill -0 ${step[@]+"${step[@]}"} 2>/dev/null || break
        sleep 0.2
    done
    for pid in ${step[@]+"${step[@]}"}; do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "/tmp/ray-$SLURM_JOB_ID.$restarts".* # where nodes share /tmp: also the folders of lost nodes
    folder=
}
trap end_ray EXIT

read -ra nodes <<<"$COLLAGAN_NODES"
head=${SLURMD_NODENAME:-${nodes[0]}}
declare -A cpus # by node, from Slurm's list for all of them, such as 8(x3),4
i=0
for part in ${SLURM_JOB_CPUS_PER_NODE//,/ }; do
    times=1
    if [[ $part == *x* ]]; then times=${part#*x} times=${times%)}; fi
    for (( ; times > 0; times--)); do cpus[${nodes[$i]}]=${part%%(*} i=$((i + 1)); done
done

# start NODE HEAD: start Ray on a node, with HEAD `head` or the head's address. Its step gets all resources of the job there.
start() {
    local gpus=()
    if [ -z "$asked_gpus" ] && [ "${gpus_on[$1]:-0}" != 0 ]; then gpus=(--gpus-per-node="${gpus_on[$1]}"); fi
    env -u SLURM_GPUS -u SLURM_GPUS_PER_NODE -u SLURM_GPUS_PER_TASK -u SLURM_NTASKS -u SLURM_NPROCS -u SLURM_NTASKS_PER_NODE \
        srun --overlap --no-kill --nodes=1 --ntasks=1 --nodelist="$1" --cpus-per-task="${cpus[$1]}" \
        ${gpus[@]+"${gpus[@]}"} bash -c "$task$(cat "$project/slurm/ray_node.sh")" bash "$2" "${cpus[$1]}" ${container[@]+"${container[@]}"} \
        <"$folder/end" >"$folder/$1.txt" 2>&1 9>&- &
    step[$1]=$!
}
alive() { kill -0 "${step[$1]}" 2>/dev/null; }
ready() { grep -q '^ready ' "$folder/$1.txt" 2>/dev/null; }
pause() { read -r -t 1 -u 9 _ || true; } # sleeps one second without a process: nobody writes to the pipe

start "$head" head
while [ -z "$stopping" ] && alive "$head" && ! ready "$head"; do pause; done
address=$(sed -n 's/^ready //p' "$folder/$head.txt" | tail -1)
if [ -n "$address" ]; then
    for node in "${nodes[@]}"; do [ "$node" = "$head" ] || start "$node" "$address"; done
fi
began=$SECONDS
while [ -z "$stopping" ] && [ $((SECONDS - began)) -lt "${COLLAGAN_RAY_WAIT:-120}" ]; do
    coming=''
    for node in "${!step[@]}"; do ready "$node" || ! alive "$node" || coming=1; done
    [ -n "$coming" ] || break
    pause
done
there=()
for node in "${nodes[@]}"; do
    if ready "$node"; then
        there+=("$node")
    elif [ -n "${step[$node]-}" ]; then
        echo "slurm: no Ray on $node$(alive "$node" && echo ' yet')" >&2
        tail -8 "$folder/$node.txt" >&2
    fi
done

code=4 failed_on=$head # where Ray has not come up
[ -z "$stopping" ] || code=75 failed_on=''
if [ -n "$address" ] && [ -z "$stopping" ]; then
    note "Ray on ${#there[@]} of ${#nodes[@]} nodes, at $address"
    (
        trap '' USR2 # as tasks start
        unset MASTER_ADDR MASTER_PORT
        exec ${container[@]+"${container[@]}"} collagan sweep "${words[@]}" --ray "$address"
    ) 9>&- &
    driver=$!
    lost='' failed_on=''
    while kill -0 "$driver" 2>/dev/null; do
        pause
        if [ "$stopping" = USR2 ] && [ $((SECONDS % 5)) = 0 ]; then tell USR2; fi # repeated: its handler may not have been installed yet
        if ! alive "$head" && [ -z "$lost" ]; then
            lost=$SECONDS failed_on=$head
            echo "slurm: Ray ended on $head" >&2
            tail -8 "$folder/$head.txt" >&2
            tell TERM
        elif [ -n "$lost" ] && [ $((SECONDS - lost)) -gt 60 ]; then
            kill -KILL "$driver" 2>/dev/null || true
        fi
    done
    code=0
    wait "$driver" || code=$?
fi
end_ray
settle "$code"
note "done"
