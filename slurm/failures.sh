# Sourced by common.sh: what becomes of a job when a step has ended. Its record is RUN/logs/slurm-<job>.txt.

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

# keep KEY VALUE: note what was chosen, for later starts of this job.
keep() {
    if [ "$restarts" = 0 ] && [[ $2 != *$'\n'* ]]; then echo "# $1: $2" >>"$run/logs/slurm-$job.txt"; fi
}

# earlier KEY FOLDER: print what the first start kept, whose record is below FOLDER/* or in --out: a restart takes the same,
# whatever has come since.
earlier() {
    local file
    [ "$restarts" != 0 ] || return 0
    for file in "${out:+$out/logs/slurm-$job.txt}" "$2"/*/logs/slurm-"$job".txt; do
        if [ -f "$file" ]; then
            sed -n "s/^# $1: //p" "$file" | tail -1
            return
        fi
    done
}

# The size of this job's log where it is a file, into which srun writes what it knows of its tasks.
log_size() {
    [ ! -f "/proc/$$/fd/2" ] || stat -L -c %s "/proc/$$/fd/2"
}

# What srun, Slurm and the ranks said in the last step of its end.
said_of_the_end() {
    [ -n "${log_begin:-}" ] || return 0
    tail -c "+$((log_begin + 1))" "/proc/$$/fd/2" 2>/dev/null |
        grep -aE '^srun: error: | CANCELLED AT | Terminating StepId|rank [0-9]+ \(host .* has not come to ' || true
}

# lost: print the nodes that Slurm lost in the last step, or could not start it on.
lost() {
    local nodes
    nodes=$(said_of_the_end | sed -nE 's/^srun: error: (Node failure on|.* failed on node) ([^ :]+).*/\2/p' | paste -sd,)
    [ -z "$nodes" ] || scontrol show hostnames "$nodes" | sort -u | paste -sd,
}

# blamed: print the node where the last step failed, if it is known. Where a script knows, `failed_on`. Lost by Slurm; or else a task
# ended there by itself, and none did elsewhere (code 4 is that of a rank that lost another one; TERM, and KILL after it, come from
# Slurm); or else all ranks that were waited for are there.
blamed() {
    local line node what told='' nodes=''
    if [ -n "${failed_on:-}" ]; then
        echo "$failed_on"
        return
    fi
    node=$(lost)
    if [ -n "$node" ]; then
        echo "$node"
        return
    fi
    while IFS= read -r line; do
        [[ ! $line =~ CANCELLED\ AT|Terminating\ StepId ]] || told=1
        [[ $line =~ ^srun:\ error:\ ([^\ :]+):\ tasks?\ [^:]+:\ (.*)$ ]] || continue
        node=${BASH_REMATCH[1]} what=${BASH_REMATCH[2]}
        case "$what" in
        Terminated | "Exited with exit code 4" | "Exited with exit code 75" | "Exited with exit code 143") continue ;;
        Killed | "Exited with exit code 137") [ -z "$told" ] || continue ;;
        Exited*) [ "$launcher" = srun ] || continue ;; # agents of torchrun give up wherever the rank died
        esac
        nodes+=" $(scontrol show hostnames "$node" | paste -sd' ')"
    done < <(said_of_the_end)
    [ -n "$nodes" ] || nodes=$(said_of_the_end | sed -nE 's/.*rank [0-9]+ \(host ([^,]+), pid [0-9]+\) has not come to .*/\1/p')
    nodes=$(printf '%s\n' $nodes | sort -u)
    if [ -n "$nodes" ] && [[ " $COLLAGAN_NODES " == *" $nodes "* ]]; then echo "$nodes"; fi # one of the job's
}

# lost_before: note which nodes of the start before are down, if that one noted no end: its batch script was lost with them.
lost_before() {
    local last down
    last=$(grep -v '^#' "$run/logs/slurm-$job.txt" 2>/dev/null | tail -1) || return 0
    [[ $last =~ \ start\ $((restarts - 1))\ \ ([^\ ]+)\ \ .*\ meeting\ at\  ]] || return 0
    down=$(sinfo -hN -n "${BASH_REMATCH[1]}" -t down,no_respond,fail -o %N 2>/dev/null | sort -u | paste -sd,) || return 0
    [ -z "$down" ] || note "the start before ended with the loss of $down"
}

# failed_nodes: print the nodes of the failures in the record, a line for each failure.
failed_nodes() {
    local list
    for list in $(sed -nE 's/.* (FAILED with code [0-9]+ on|ended .*with the loss of) ([^ ;:]+).*/\2/p' "$run/logs/slurm-$job.txt" 2>/dev/null); do
        scontrol show hostnames "$list"
    done
}

# find_failed_twice: set `twice` to the nodes that failed twice in this job, and `excluded` to the job's list with them. One that was
# asked for stays, and so does one without which the job would have too few of that kind: it may need what others lack.
find_failed_twice() {
    local said node state kind other left required candidates
    local -A kinds=() usable=() not=()
    twice=''
    candidates=$(failed_nodes | sort | uniq -d)
    [ -n "$candidates" ] || return 0 # at the time limit there are only seconds
    said=$(scontrol --oneliner show job "$job" 2>/dev/null) || return 0
    [[ $said =~ \ ReqNodeList=([^ ]*)\ ExcNodeList=([^ ]*) ]] || return 0
    required=${BASH_REMATCH[1]} excluded=${BASH_REMATCH[2]#"(null)"}
    for node in $(scontrol show hostnames "$required") ${excluded:+$(scontrol show hostnames "$excluded")}; do not[$node]=1; done
    while read -r node state kind; do
        kinds[$node]=$kind
        [[ ! $state =~ ^(idle|mixed|allocated|completing)$ ]] || usable[$node]=1
    done < <(sinfo -hN -p "$SLURM_JOB_PARTITION" -o '%N %T %c %m %f %G' 2>/dev/null)
    for node in $candidates; do
        if [ -n "${not[$node]-}" ] || [ -z "${kinds[$node]-}" ]; then continue; fi
        left=0
        for other in "${!usable[@]}"; do
            if [ "$other" != "$node" ] && [ -z "${not[$other]-}" ] && [ "${kinds[$other]}" = "${kinds[$node]}" ]; then left=$((left + 1)); fi
        done
        if [ "$left" -ge "$SLURM_NNODES" ]; then not[$node]=1 twice+="${twice:+,}$node" excluded+="${excluded:+,}$node"; fi
    done
}

# exclude_failed_twice: keep this job off them, while it waits to be started again: Slurm takes it from such jobs alone. (TERM comes
# to all processes of a job that is requeued.)
exclude_failed_twice() {
    [ -n "$twice" ] || return 0
    if (trap '' TERM && scontrol update job="$job" excnodelist="$excluded"); then
        note "excluded from now on, since this job failed there twice: $twice"
    else
        echo "slurm: Slurm does not take excnodelist=$excluded for job $job, which failed twice on $twice" >&2
    fi
}

# requeue CODE: requeue this job, or exit with CODE where that is not allowed (sbatch --no-requeue).
requeue() {
    find_failed_twice
    scontrol requeue "$job" || {
        echo "slurm: job $job cannot be started again by itself; the same sbatch line continues" >&2
        exit "$1"
    }
    exclude_failed_twice
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
# failure too, up to MAX_REQUEUE times, unless a restart cannot help: 2 usage and configuration, 3 data, 5 checkpoint, 6 NaN; or is not
# wanted: 75 without a request of ours, as when a sweep has used up its time budget.
settle() {
    local code=$1 failures final node
    [ "$code" != 0 ] || mine requeue || return 0
    if ! ask_slurm; then
        echo "slurm: this start of job $job is not its newest any more, or Slurm does not answer" >&2
        exit "$code"
    fi
    # Cancelled or preempted: Slurm has already decided whether to requeue. After the time limit the decision is ours.
    if [ "$state" != RUNNING ] && [ "$reason" != TimeLimit ]; then
        node=$(lost)
        note "ended by Slurm ($state)${node:+ with the loss of $node}"
        if [[ $state = @(PENDING|COMPLETING) ]]; then # requeued
            find_failed_twice
            exclude_failed_twice
        fi
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
    75)
        note "ended by itself, saved; the same sbatch line continues"
        exit 75
        ;;
    esac
    if elsewhere; then
        note "another start trains in this folder: this one ends, no restart"
        exit 4
    fi
    node=$(blamed)
    failures=$(grep -c ' FAILED ' "$run/logs/slurm-$job.txt" 2>/dev/null) || true
    if [ "${failures:-0}" -ge "${MAX_REQUEUE:-3}" ]; then
        note "FAILED with code $code${node:+ on $node}: the last of MAX_REQUEUE=${MAX_REQUEUE:-3} restarts; the same sbatch line continues"
        exit "$code"
    fi
    note "FAILED with code $code${node:+ on $node}; restart $((${failures:-0} + 1)) of at most ${MAX_REQUEUE:-3}"
    requeue "$code"
}
