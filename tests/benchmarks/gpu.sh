#!/usr/bin/env bash
# What a short time on a GPU is for: the card's own rates, the tests, the demo, the benchmarks. From the root of the repository:
#   tests/benchmarks/gpu.sh FOLDER [rates|tests|demo|profile|compiled|WORKLOAD]...
# Prints as it goes and writes each part's output into FOLDER, so that what was done stays where it is cut off. PYTHON names the
# interpreter, LIMIT the most seconds of a part.
set -uo pipefail
out=$1
shift
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 WISEPATCH_PLUGINS=0 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
[ $# -gt 0 ] || set -- rates tests demo W1-GPU W5-GPU W3-GPU W1-GPU-L profile compiled
failed=0
for part in "$@"; do
  began=$SECONDS
  case $part in
    rates) command=("$python" -m tests.benchmarks.gpu_rates) ;;
    tests)
      command=("$python" -m pytest -q -m gpu -p no:cacheprovider -p no:benchmark -p no:xdist --tb=short --durations=5)
      command+=(-o faulthandler_timeout=60 tests/test_gpu.py tests/models/test_patch_embedding.py)
      ;;
    demo) command=("$python" -m wisepatch demo --store "$(mktemp -d)/store") ;;
    profile | compiled) command=("$python" -m tests.benchmarks.gpu_profile "$part") ;;
    *) command=("$python" -m tests.benchmarks "$part" --json) ;;
  esac
  echo "== $part"
  timeout "${LIMIT:-300}" "${command[@]}" > >(tee "$out/$part.txt") 2> >(tee "$out/$part.err" >&2)
  status=$?
  [ $status -eq 0 ] || failed=1
  echo "== $part: exit $status after $((SECONDS - began)) s"
done
exit $failed
