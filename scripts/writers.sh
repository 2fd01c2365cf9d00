# The commands that write files, for scripts that disturb them; to be sourced. Expects `build`, a folder with the four commands,
# `repository`, and a folder of the script's own as the current one. RUNNER=wine runs a build for Windows (scripts/wine_prefix.sh).

model=$repository/models/tiny-stories-f16.gguf
for i in $(seq 60); do echo "The dog and the big girl ran to house number $i and were happy."; done > text

end=
[[ ! -e $build/powerinfer-run.exe ]] || end=.exe
read -ra runner <<< "${RUNNER:-}"
program() { started=("${runner[@]}" "$build/powerinfer-$1$end"); }
program profile && merge=("${started[@]}") && profile=("${started[@]}" -t 2)
program split && split=("${started[@]}" -t 2)
program bench && bench=("${started[@]}" -t 1)
program run && run=("${started[@]}" -t 2 --device cpu)

# Sets `command` to what writes $2.
command_of() { # WRITER OUTPUT
  case $1 in
    profile) command=("${profile[@]}" -m "$model" -f text -c 64 --samples 400 --checkpoint-seconds 0 -o "$2") ;;
    merged) command=("${merge[@]}" --merge reference.profile -o "$2") ;;
    plot) command=("${merge[@]}" --show reference.profile --plot "$2") ;;
    report) command=("${merge[@]}" --show reference.profile --report "$2") ;;
    plan) command=("${split[@]}" --dry-run --shape mistral-7b --hardware "$repository/hardware/rtx-4090-ddr5.toml" --plot "$2") ;;
    variant) command=("${split[@]}" -m "$model" --profile reference.profile --no-kl -o "$2") ;;
    quantized) command=("${split[@]}" -m "$model" --type q8_0 --quantize-only -o "$2") ;;
    packed) command=("${split[@]}" -m reference.variant --predictor reference.sign -o "$2") ;;
    sign) command=("${profile[@]}" -m "$model" --predictor sign --samples-from reference.profile -o "$2") ;;
    lowrank)
      command=("${profile[@]}" -m "$model" --predictor lowrank --predictor-size 32 --samples-from reference.profile -o "$2")
      ;;
    # The cache is a folder, in which the file has a name of its own.
    synthetic) command=("${bench[@]}" --synthetic test-4 --cache-dir "$(dirname "$2")" -p 1 -n 0 -r 1) ;;
    session) command=("${run[@]}" -p "$(head -n 20 text)" -n 1 --temp 0 --prompt-cache "$2") ;;
    # A conversation that is typed into a pipe; `exec` keeps its process the one to kill.
    saved)
      printf 'hi\nand more\n/save %s\n' "$2" > said
      command=(bash -c 'exec "$@" < said' - "${run[@]}" -cnv --chat-template chatml -n 4 --temp 0)
      ;;
    hardware) command=("${bench[@]}" --measure-hardware "$2") ;;
    *) die "$1: no such writer" ;;
  esac
}
writers=${ONLY:-profile merged plot report plan variant quantized packed sign lowrank session saved synthetic hardware}

die() { echo "$(basename "$0"): $*" >&2; exit 1; }
# The file that a writer is to write in its own folder, which bears its name.
output_of() { # WRITER
  [[ $1 != synthetic ]] && echo "$1/out" || echo "$1/synthetic-test-q4_0-d0.10-l4-s0-v1-variant.gguf"
}
# Runs the writer to its end.
whole() { # WRITER OUTPUT
  command_of "$1" "$2"
  "${command[@]}" > whole.out 2> whole.err || { cat whole.err >&2; die "$1: failed without being disturbed"; }
}
temporary() { find "$1" -name '*.partial' | wc -l; }

# What writers read.
whole profile reference.profile
whole variant reference.variant
whole sign reference.sign
