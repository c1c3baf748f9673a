# One node of the Ray cluster of sweep.sh, run as a step of its own, so that the loss of one node ends no other.
# Arguments: `head` or the head's address; the CPUs of this node; a prefix of `ray` (a container's).
# Prints `ready HOST:PORT` when Ray is up, and runs until its standard input is closed. The batch script holds the other end of
# it, so everything here ends with the batch script, however that ends.

head=$1 cpus=$2
shift 2
tries=3
limit=90 # seconds for Ray to come up
# Trials must not take these for their own: their ranks are not tasks of srun and have a rendezvous of their own.
unset "${!SLURM_STEP@}" SLURM_PROCID SLURM_LOCALID SLURM_NODEID SLURM_NTASKS SLURM_NPROCS MASTER_ADDR MASTER_PORT

# Slurm ends the job by TERM, and by KILL after KillWait. Trials can save until the batch script closes the input, or COLLAGAN_GRACE
# seconds have passed.
told=
trap 'told=${told:-$SECONDS}' TERM

# A folder that no other user can enter: Ray makes its own, one below, accessible to all, and its sockets there need no token.
# Names are short, since paths of sockets must be. Folders of former starts exist if the node itself was lost.
for old in "/tmp/ray-$SLURM_JOB_ID".*; do
    number=${old#"/tmp/ray-$SLURM_JOB_ID."}
    if [ -O "$old" ] && [ "${number%%.*}" -lt "$COLLAGAN_START" ] 2>/dev/null; then rm -rf "$old"; fi
done
folder=$(mktemp -d "/tmp/ray-$SLURM_JOB_ID.$COLLAGAN_START.XXXXXX") || exit 1

# This node's address on the network that leads to the others.
route() { ip -o -4 route get "$1" 2>/dev/null | sed -n 's/.* src \([^ ]*\).*/\1/p'; }
named() { getent ahostsv4 "$1" | sed -n '1s/ .*//p'; }
address=
if [ "$head" != head ]; then
    address=$(route "${head%:*}")
else
    for node in $COLLAGAN_NODES; do
        [ "$node" = "$SLURMD_NODENAME" ] || address=$(route "$(named "$node")")
        [ -z "$address" ] || break
    done
fi
if [ -z "$address" ]; then # alone, or without iproute2
    address=$(named "$SLURMD_NODENAME")
    case "$address" in "" | 127.*) address=$(hostname -I | sed 's/ .*//') ;; esac
fi

# Twenty blocks of 500 ports below those of outgoing connections. A job tries the block of its id first, then the next ones, until
# it finds one without a listener.
busy() {
    local state place port
    while read -r _ place _ state _; do
        [ "$state" = 0A ] || continue
        port=$((16#${place##*:}))
        if [ "$port" -ge "$1" ] && [ "$port" -lt $(($1 + 500)) ]; then return 0; fi
    done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    return 1
}
choose_ports() {
    local i
    for ((i = 0; i < 20; i++)); do
        ports=$((10000 + (SLURM_JOB_ID * 3 + COLLAGAN_START + i) % 20 * 500))
        busy "$ports" || return 0
    done
    echo "ray: every block of 500 ports from 10000 to 19999 has one in use" >&2
    return 1
}

begin() {
    local where=(--address="$head")
    [ "$head" != head ] || where=(--head --port="$ports" --include-dashboard=false --dashboard-host=127.0.0.1 --dashboard-port=$((ports + 7)))
    # The two variables are ports that Ray opens where prometheus_client is installed.
    AUTOSCALER_METRIC_PORT=$((ports + 8)) DASHBOARD_METRIC_PORT=$((ports + 9)) \
        "$@" ray start --block --disable-usage-stats --node-ip-address="$address" --temp-dir="$folder/r" "${where[@]}" \
        --num-cpus="$cpus" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=200000000 \
        --node-manager-port=$((ports + 1)) --object-manager-port=$((ports + 2)) --runtime-env-agent-port=$((ports + 3)) \
        --dashboard-agent-grpc-port=$((ports + 4)) --dashboard-agent-listen-port=$((ports + 5)) \
        --metrics-export-port=$((ports + 6)) --min-worker-port=$((ports + 10)) --max-worker-port=$((ports + 499)) \
        </dev/null >"$folder/start.txt" 2>&1 &
    ray=$!
}

# End Ray, then every process that still has a file open in its folder: workers, and what trials started.
finish() {
    local i pid left patience=50
    [ -z "$told" ] || patience=10
    kill -TERM "$ray" 2>/dev/null
    for ((i = 0; i < patience; i++)); do
        kill -0 "$ray" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$ray" 2>/dev/null
    for ((i = 0; i < 50; i++)); do
        left=
        for pid in $(find /proc/[0-9]*/fd -lname "$folder/*" -printf '%h\n' 2>/dev/null | sed 's#/proc/\([0-9]*\)/fd#\1#' | sort -u); do
            cmp -s "/proc/$pid/cgroup" "/proc/$$/cgroup" || continue # not the driver, which belongs to another step and writes there too
            kill -KILL "$pid" 2>/dev/null && left=1
        done
        [ -n "$left" ] || break
        sleep 0.1
    done
}
leave() {
    finish
    rm -rf "$folder"
    exit "$1"
}

# over: whether the batch script has closed the input, or KILL is near. Waits one second.
over() {
    local code=0
    [ -z "$told" ] || [ $((SECONDS - told)) -lt "$COLLAGAN_GRACE" ] || return 0
    read -r -t 1 _ || code=$?
    [ "$code" = 1 ]
}

# With --no-kill, a job whose batch node is down continues without a batch script, and nothing would end it.
without_batch_script() {
    local said
    said=$(scontrol --oneliner show job "$SLURM_JOB_ID" 2>/dev/null) || return
    [[ " $said " =~ \ Restarts=$COLLAGAN_START\  && $said =~ JobState=RUNNING ]] || return
    [[ " $said " =~ \ BatchHost=([^ ]*) ]] || return
    local host=${BASH_REMATCH[1]}
    [[ " $said " =~ \ NodeList=([^ ]*) ]] || return
    ! scontrol show hostnames "${BASH_REMATCH[1]}" | grep -qx "$host"
}

for ((try = 1; try <= tries; try++)); do
    choose_ports || leave 1
    begin "$@"
    began=$SECONDS up=
    while kill -0 "$ray" 2>/dev/null; do
        ! over || leave 0
        if [ -z "$up" ] && grep -q "Ray runtime started" "$folder/start.txt"; then
            up=1
            echo "ready $address:$ports"
        elif [ -z "$up" ] && [ $((SECONDS - began)) -gt "$limit" ]; then
            break
        fi
    done
    [ -z "$told" ] || leave 0
    echo "ray: on $SLURMD_NODENAME it $([ -n "$up" ] && echo ended || echo "did not come up") (try $try of $tries):"
    tail -5 "$folder/start.txt"
    finish
    [ -z "$up" ] || [ "$head" != head ] || leave 1 # the cluster's state is lost with it
    until [ "$head" = head ] || timeout 5 bash -c "</dev/tcp/${head%:*}/${head##*:}" 2>/dev/null; do
        ! over || leave 0
        if without_batch_script; then
            echo "ray: the batch node is lost; the job is started again"
            scontrol requeue "$SLURM_JOB_ID" || scancel "$SLURM_JOB_ID"
            leave 1
        fi
    done
    rm -rf "$folder/r"
done
leave 1
