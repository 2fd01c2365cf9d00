#!/usr/bin/env bash
# gpu_check.sh under the emulator, so that it does on a card what it is meant to: all steps of the first part with tiny shapes,
# then with a test that fails, a step that hangs, a full disk, and SIGTERM in the middle; every other step must have its row.
# Builds the commands, the tests and the emulator for debugging; minutes. Needs Rust and a C++20 compiler.
#
#     scripts/rehearse_gpu_check.sh [OUT]    results of the first run are kept in OUT [target/rehearsal]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/rehearsal}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
built=$(cargo test --locked --no-run --test gpu --message-format json-render-diagnostics | sed -nE 's/.*"executable":"([^"]+)".*/\1/p')
bin=$(dirname "$(grep -E '/powerinfer-run$' <<< "$built")")
tests=$(grep -E '/gpu-[0-9a-f]+$' <<< "$built")
export EMU_VRAM=${EMU_VRAM:-256M}

# The commands, but that less of the device is measured: each of its threads is emulated.
mkdir "$work/bin"
ln -s "$bin"/powerinfer-* "$work/bin"
rm "$work/bin/powerinfer-bench"
cat > "$work/bin/powerinfer-bench" << SCRIPT
#!/bin/sh
case "\$*" in *--measure-hardware*) export EMU_VRAM=190M ;; esac
exec "$bin/powerinfer-bench" "\$@"
SCRIPT
# The test program with an error of the device, or a kernel that takes ten minutes, in one module each. Of whole tokens, which
# the emulator takes minutes for, one test is enough.
cat > "$work/tests" << SCRIPT
#!/bin/sh
export POWERINFER_UNDER_EMULATOR=1
case "\$1 \$FAULTS" in
  "norm:: 1") export EMU_FAIL=kernel:norm=700 ;;
  "rope:: 1") export EMU_FAIL=kernel:rope_store=stall:600000 ;;
esac
if [ "\$1" = hybrid:: ]; then
  shift
  set -- hybrid::hybrid_with_layers_on_the_cpu "\$@"
fi
exec "$tests" "\$@"
SCRIPT
chmod +x "$work/tests" "$work/bin/powerinfer-bench"

failed=0
check() { # NAME OPTIONS...: runs gpu_check.sh into a folder of that name
  echo "== $1"
  scripts/with_card.sh scripts/gpu_check.sh --tiny --bin "$work/bin" --tests "$work/tests" --out "$work/$1" --threads 2 "${@:2}"
}
wants() { # NAME STEP RESULT
  local is
  is=$(awk -F'\t' -v step="$2" '$1 == step { print $2 }' "$work/$1/results.tsv")
  [ "$is" = "$3" ] || { echo "rehearse_gpu_check.sh: $1: $2: ${is:-no row} instead of $3" >&2; failed=1; }
}

check all || true
for step in $(scripts/gpu_check.sh --list); do
  case $step in
    unpack) ;;
    # Builds without it have none.
    kernels) [[ $("$bin/powerinfer-bench" --help) != *--kernels* ]] || wants all kernels ok ;;
    driver) command -v nvidia-smi > /dev/null || wants all driver skipped ;;
    *) wants all "$step" ok ;;
  esac
done

FAULTS=1 check faults --limit 20 --only test-norm test-rope test-select text-cuda text-again || true
wants faults test-norm failed
wants faults test-rope "timed out"
for step in test-select text-cuda text-again; do wants faults "$step" ok; done

FAULTS=1 check ended --only test-norm test-rope test-select &
until grep -q test-norm "$work/ended/results.tsv" 2> /dev/null; do sleep 0.2; done
sleep 2
# The script is the child of the shell that runs the function.
kill -TERM "$(cat "/proc/$!/task/$!/children")"
wait $! || true
wants ended test-norm failed
wants ended test-rope "cut off"

if unshare -rm true 2> /dev/null; then
  # Room for logs and not for a model.
  export -f check
  export work
  mkdir "$work/disk"
  unshare -rm bash -c 'mount -t tmpfs -o size=512k tmpfs "$work/disk" && check full --work "$work/disk" \
    --only test-norm layers-model layers-100 test-select text-cuda text-again' || true
  wants full layers-model failed
  wants full layers-100 skipped
  for step in test-norm test-select text-cuda text-again; do wants full "$step" ok; done
else
  echo "== no disk can be filled here"
fi

mkdir -p "$out"
cp "$work"/all/* "$out"
ls -l "$out"
exit $failed
