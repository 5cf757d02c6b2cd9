# Sourced by slurm_train.sh and slurm_test.sh:  slurm PARTITION JOB_NAME SCRIPT [ARGS...]
#
# Environment: GPUS (8, of all nodes), GPUS_PER_NODE (8 or GPUS), CPUS_PER_TASK (5), SRUN_ARGS (more options of srun, split at spaces).
slurm() {
  local partition="$1" job="$2"; shift 2
  if ! command -v srun >/dev/null; then
    echo "ERROR: srun not found: this is not a Slurm cluster's login node; use tools/dist_train.sh or tools/dist_test.sh" >&2
    return 1
  fi
  local gpus="${GPUS:-8}"
  local per_node="${GPUS_PER_NODE:-$(( gpus < 8 ? gpus : 8 ))}"
  local -a more=()
  read -r -a more <<<"${SRUN_ARGS:-}"
  exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${more[@]+"${more[@]}"} "$PYTHON" -u "$@" --launcher slurm
}
