# Sourced by dist_train.sh and dist_test.sh:  launch NPROC SCRIPT [ARGS...]  runs SCRIPT in NPROC processes with torchrun.
#
# Environment: NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), PORT (a free one; 29500 with several nodes, which must agree on it),
# MMSOC_PREFLIGHT (set: skip tools/preflight.py), PYTHON, OMP_NUM_THREADS (cores / NPROC). GPUs are chosen by CUDA_VISIBLE_DEVICES;
# without any the processes talk through gloo.
launch() {
  local nproc="$1"; shift
  if ! [[ "$nproc" =~ ^[1-9][0-9]*$ ]]; then
    echo "ERROR: NPROC is '$nproc': expected the number of processes (GPUs)" >&2
    return 2
  fi
  local nnodes="${NNODES:-1}" port="${PORT:-}"
  if [ -z "$port" ]; then
    if [ "$nnodes" = 1 ]; then
      port="$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
    else
      port=29500
    fi
  fi
  # Every process would start one thread per core and they would wait for each other.
  local threads=$(( $(getconf _NPROCESSORS_ONLN) / nproc ))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(( threads > 0 ? threads : 1 ))}"
  export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}"
  exec "$PYTHON" -m torch.distributed.run --nnodes="$nnodes" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" --nproc_per_node="$nproc" "$@" --launcher pytorch
}
