# The environment of a node. Values that are set already are kept.

# One thread a process unless the configuration says otherwise (runtime.threads, data.threads).
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# Where the host's own name resolves to loopback (Debian writes 127.0.1.1 into /etc/hosts), gloo must be told which
# interface leads to the other nodes.
if [ -z "${GLOO_SOCKET_IFNAME:-}" ] && getent hosts "$(hostname)" | grep -q '^127\.'; then
    interface=$(ip -o route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -1)
    [ -z "$interface" ] || export GLOO_SOCKET_IFNAME="$interface"
fi
