# Sourced by the batch scripts: where the project is, which collagan to run, how ranks meet.

# `script` is the batch script itself. It runs from a spool copy, so the scripts find it through the command that was
# submitted. (The last task of an array has the id of the whole array, which shows every task: all have the same command.)
project=$(cd "$(dirname "$script")/.." && pwd)

if ! command -v collagan >/dev/null; then
    if [ ! -x "$project/.venv/bin/collagan" ]; then
        echo "slurm: no collagan on PATH and no $project/.venv; run 'make setup' in $project" >&2
        exit 2
    fi
    PATH="$project/.venv/bin:$PATH"
fi
export PATH

# shellcheck source=../cluster/env.sh
. "$project/cluster/env.sh"

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -1)
# A restarted job must not meet the port of its first life, nor two jobs of one node each other.
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 10 + ${SLURM_RESTART_COUNT:-0}) % 10000))
export MASTER_ADDR MASTER_PORT
