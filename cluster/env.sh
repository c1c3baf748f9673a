# The environment of a node, read on every node before each task. Values that are set already are kept.

# One thread a process unless the configuration says otherwise (runtime.threads, data.threads).
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# The interface that leads to the other nodes of the job (COLLAGAN_NODES, by common.sh). Left to themselves, gloo takes the
# one of the host's own name, which Debian resolves to loopback (127.0.1.1), and NCCL may take one that leads nowhere.
for node in ${COLLAGAN_NODES:-}; do
    [ "$node" != "${SLURMD_NODENAME:-$(hostname -s)}" ] || continue
    address=$(getent ahosts "$node" 2>/dev/null | sed -n '1s/ .*//p') || true
    interface=$(ip -o route get "${address:-$node}" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p') || true
    if [ -n "$interface" ] && [ "$interface" != lo ]; then
        export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-$interface}" NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-=$interface}"
        break
    fi
done
