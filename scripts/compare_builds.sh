#!/usr/bin/env bash
# Compares what two builds of the four commands print and write, byte for byte: text, token ids, perplexities with all their
# digits, profiles, predictors, variants, plans, synthetic files, error messages. Takes minutes, and 500 MB in TMPDIR.
#
#     scripts/compare_builds.sh [--results] OLD_DIR NEW_DIR
#     scripts/compare_builds.sh target/before/release target/release
#
# A folder holds powerinfer-run, -bench, -profile and -split. One line per command: same, DIFFERENT with the first lines that
# differ, or BROKEN where the old build did not end as it should. Exits with 1 unless all are the same. --results compares
# standard output, exit statuses and written files, but not the words on standard error.
#
# Only measured numbers are blanked (times, tokens/s, GB/s), and the version in rows of bench. Flags that were renamed stand here
# as @words, see `spell`. Everything runs with --device cpu; with EMULATOR=FOLDER (of tests/emulator/build.sh; or
# OLD,NEW where kernels changed) some runs more are made on the emulated card. WORK=FOLDER, new or empty, keeps the files.
set -euo pipefail

results=
if [[ ${1:-} == --results ]]; then
  results=1
  shift
fi
if [[ $# -ne 2 ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
repository=$(cd "$(dirname "$0")/.." && pwd)
declare -A build help emulator
build[old]=$(cd "$1" && pwd)
build[new]=$(cd "$2" && pwd)
for side in old new; do
  for tool in run bench profile split; do
    program=${build[$side]}/powerinfer-$tool
    [[ -x $program ]] || { echo "compare_builds.sh: $program: is not there" >&2; exit 2; }
    help[$side/$tool]=$("$program" --help)
  done
done
if [[ ${WORK:-} ]]; then
  mkdir -p "$WORK"
  work=$(cd "$WORK" && pwd)
else
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
for side in old new; do
  mkdir -p "$work/$side/cache" "$work/out"
  ln -s "$repository/models" "$repository/tests" "$work/$side/"
  mkdir "$work/$side/hardware"
  # Nothing is planned with this key, and builds from before it refuse it.
  for file in "$repository"/hardware/*.toml; do
    sed '/^data_sheet_gb_s/d' "$file" > "$work/$side/hardware/${file##*/}"
  done
done
if [[ ${EMULATOR:-} ]]; then
  emulator[old]=$(cd "${EMULATOR%%,*}" && pwd)
  emulator[new]=$(cd "${EMULATOR##*,}" && pwd)
fi
n_same=0 n_different=0 n_broken=0

# An argument as this build spells it. A word that begins with @ is a flag that was renamed.
spell() { # SIDE TOOL ARGUMENT
  local known=${help[$1/$2]}
  case $3 in
    @parse-special) [[ $known == *--parse-special* ]] && echo --parse-special || echo --special ;;
    @hardware) [[ $known == *--machine* ]] && echo --machine || echo --hardware ;;
    @measure-hardware) [[ $known == *--measure-hardware* ]] && echo --measure-hardware || echo --hardware ;;
    *) printf '%s\n' "$3" ;;
  esac
}

# Blanks what is measured, and the folder of the side.
blank() { # SIDE < IN > OUT
  sed -zE \
    -e "s#$work/$1/#WORK/#g" \
    -e 's/"(prefill|decode)_(s|ts)":[0-9.e+-]+/"\1_\2":#/g' \
    -e 's/"(avg_ns|stddev_ns|avg_ts|stddev_ts|gb_per_s|limit_gb_per_s|probe_gb_per_s|us|median_us|predictor_time|planned_ts|limit_ts|sheet_ts|cpu_busy|card_waits)":( ?)[0-9.e+-]+/"\1":\2#/g' \
    -e 's/"(samples_ns|samples_ts)":( ?)\[[^]]*\]/"\1":\2#/g' \
    -e 's/"(build|build_commit|test_time)":( ?)"[^"]*"/"\1":\2#/g' \
    -e 's/"build_number":( ?)[0-9]+/"build_number":\1#/g' |
    sed -E \
      -e 's/^load +[0-9.]+ s$/load #/' \
      -e 's/^(prefill|decode|profile) +[0-9.]+ s( +[0-9]+ tokens) +[0-9.]+ tokens\/s$/\1 #\2 #/' \
      -e 's/: written in [0-9.]+ s$/: written in # s/' \
      -e 's/^(predicted .*): [0-9.]+ t\/s, measured [0-9.]+: [+-]?[0-9.]+ %$/\1: #/' \
      -e 's/^([a-z_]+ = )[0-9.]+$/\1#/' |
    awk '
      # Rows of bench: a table, csv, or SQL. Columns by name.
      function measured(column) {
        return column ~ /^"?(build|build_commit|build_number|test_time|avg_ns|stddev_ns|samples_ns|avg_ts|stddev_ts|samples_ts|gb_per_s|limit_gb_per_s|probe_gb_per_s|us|median_us|predictor_time|planned_ts|limit_ts|sheet_ts|cpu_busy|card_waits)"?$/
      }
      /^build(_commit)?,/ { n_csv = split($0, csv, ","); print; next }
      n_csv && /^"/ {
        n = split($0, cell, "\",\"")
        for (i = 1; i <= n; i++) if (measured(csv[i]) && cell[i] != "") cell[i] = (i == 1 ? "\"" : "") "#"
        for (i = 1; i <= n; i++) printf "%s%s", cell[i], i < n ? "\",\"" : "\n"
        next
      }
      /^INSERT INTO/ {
        split($0, part, /[()]/)
        n = split(part[2], column, ", ")
        split(part[4], cell, ", ")
        for (i = 1; i <= n; i++) printf "%s=%s%s", column[i], measured(column[i]) ? "#" : cell[i], i < n ? ", " : "\n"
        next
      }
      /^\|/ {
        n = split($0, cell, /\|/)
        for (i = 2; i < n; i++) {
          gsub(/^[ :-]+|[ :-]+$/, "", cell[i])
          if (!in_table) title[i] = cell[i]
          else if (title[i] ~ /^(GB\/s|of limit|limit t\/s|plan t\/s|us|median us|of measured|of data sheet)$/ && cell[i] ~ /[0-9]/) cell[i] = "#"
          else if (title[i] == "t/s" && cell[i] ~ /^[0-9.]+ ± [0-9.]+$/) cell[i] = "#"
        }
        for (i = 2; i < n; i++) printf "| %s ", cell[i]
        print "|"
        in_table = 1
        next
      }
      { in_table = n_csv = 0; print }'
}

# Runs TOOL with ARGUMENTS as SIDE, IN as standard input.
run_side() { # SIDE TOOL ARGUMENT...
  local side=$1 tool=$2 argument status=0
  local -a arguments=()
  shift 2
  case $tool in run | bench) [[ " $* " == *" --device "* ]] || arguments+=(--device cpu) ;; esac
  for argument in "$@"; do arguments+=("$(spell "$side" "$tool" "$argument")"); done
  (
    cd "$work/$side"
    export XDG_CACHE_HOME=$work/$side/cache HOME=$work/$side
    [[ " $* " == *" --device cuda "* ]] && export LD_LIBRARY_PATH=${emulator[$side]}
    exec "${build[$side]}/powerinfer-$tool" "${arguments[@]}" < "${IN:-/dev/null}" > "$work/out/$side.1" 2> "$work/out/$side.2"
  ) || status=$?
  echo "$status" > "$work/out/$side.status"
  blank "$side" < "$work/out/$side.1" > "$work/out/$side.stdout"
  blank "$side" < "$work/out/$side.2" > "$work/out/$side.stderr"
}

# Prints what differs, if anything: FILE of both sides, under the name NAME.
differs() { # NAME OLD NEW
  local first
  cmp -s "$2" "$3" && return 0
  if [[ ! -e $2 || ! -e $3 ]]; then
    [[ -e $2 || -e $3 ]] && echo "$1: only one build wrote it"
  elif { [[ ! -s $2 ]] || grep -qI . "$2"; } && { [[ ! -s $3 ]] || grep -qI . "$3"; }; then
    # JSON on one line is shown key by key.
    diff <(sed '/^{"/s/,"/,\n"/g' "$2") <(sed '/^{"/s/,"/,\n"/g' "$3") | grep '^[<>]' | head -n 6 | cut -c 1-200 | sed "s#^#$1 #" || true
  else
    first=$(cmp -l "$2" "$3" 2> "$work/out/cmp" | head -n 1 || true)
    echo "$1: $(stat -Lc %s "$2") and $(stat -Lc %s "$3") bytes, which differ from byte $(awk '{ print $1 }' <<< "${first:-end}") on"
  fi
}

# Compares a command that should succeed; `refuses` one that should not.
check() { compare 0 "$@"; }
refuses() { compare 1 "$@"; }

compare() { # FAILS TOOL ARGUMENT...
  local fails=$1 tool=$2 shown found status file side
  shift 2
  printf -v shown '%q ' "$tool" "$@"
  for side in old new; do run_side "$side" "$tool" "$@"; done
  found=$(
    differs "exit status" "$work/out/old.status" "$work/out/new.status"
    differs stdout "$work/out/old.stdout" "$work/out/new.stdout"
    [[ $results ]] || differs stderr "$work/out/old.stderr" "$work/out/new.stderr"
    while [[ $# -gt 0 ]]; do
      case $1 in
        -o | --plot | --report | @measure-hardware)
          file=${2:-}
          if [[ $1 == @measure-hardware ]]; then
            for side in old new; do blank "$side" < "$work/$side/$file" > "$work/out/$side.file"; done
            differs "$file" "$work/out/old.file" "$work/out/new.file"
          elif [[ $tool != bench && $fails == 0 ]]; then
            [[ -e $work/old/$file ]] || echo "$file: was not written"
            differs "$file" "$work/old/$file" "$work/new/$file"
          fi
          ;;
        --synthetic)
          for file in "$work"/old/cache/powerinfer/*.gguf; do
            differs "${file##*/}" "$file" "$work/new/cache/powerinfer/${file##*/}"
          done
          rm -f "$work"/{old,new}/cache/powerinfer/*.gguf
          ;;
      esac
      shift
    done
  )
  status=$(< "$work/out/old.status")
  if [[ $status -gt 127 || $((status != 0)) != "$fails" ]]; then
    echo "BROKEN     $(cut -c 1-150 <<< "$shown")"
    echo "    the old build ended with $status: $(tail -n 1 "$work/out/old.stderr")"
    n_broken=$((n_broken + 1))
  elif [[ $found ]]; then
    echo "DIFFERENT  $(cut -c 1-150 <<< "$shown")"
    sed 's/^/    /' <<< "$found"
    n_different=$((n_different + 1))
  else
    echo "same       $(cut -c 1-150 <<< "$shown")"
    n_same=$((n_same + 1))
  fi
}

# Does the same in both folders: what the commands are given.
both() {
  local side
  for side in old new; do (cd "$work/$side" && "$@"); done
}

write_inputs() {
  local i
  for i in $(seq 40); do
    echo "Once upon a time there was a little girl named Lily, number $i. She loved to play in the park with her friend Tom and a big red ball."
    echo "\"Look, a bird!\" said Tom. They ran and ran, until $((i * 37 % 101)) steps later it was dark — and café über 日本 came by."
  done > story.txt
  for i in $(seq 30); do
    echo "<s>The cat number $((i * i)) sat down. It was a cold day in the forest, but the bear was warm.</s>"
  done > marked.txt
  mkdir -p corpus/more
  head -n 9 story.txt > long.txt
  head -n 30 story.txt > corpus/a.txt
  tail -n 30 story.txt > corpus/more/b.txt
  printf 'The dog and the cat' > prompt.txt
  printf 'Once upon a time\nTom had a dog\n/stats\n/help\n/nothing\n/reset\n\nThe sun\n/exit\nnever read\n' > lines.txt
  head -c 100000 models/tiny-stories-f16.gguf > truncated.gguf
  head -c 2000 /dev/zero > zeros.gguf
  { printf 'GGUF\003\000\000\000'; head -c 16 /dev/zero | tr '\000' '\377'; } > huge-counts.gguf
  { head -c 8 models/tiny-stories-f16.gguf; printf '\001'; tail -c +10 models/tiny-stories-f16.gguf; } > fewer-tensors.gguf
  { head -c 4 models/tiny-stories-f16.gguf; printf '\011'; tail -c +6 models/tiny-stories-f16.gguf; } > version-9.gguf
  printf 'name = "nothing"\n' > empty.toml
  sed 's/threads/treads/' hardware/rtx-3060-ddr4.toml > misspelt.toml
  : > empty.txt
  printf '\377\376 not UTF-8' > bytes.txt
}
both write_inputs

f16=models/tiny-stories-f16.gguf
variant=models/tiny-stories-q8_0-variant.gguf
isas=()
for isa in plain avx2 avxvnni avx512; do
  "${build[old]}/powerinfer-run" --device cpu --isa "$isa" -p a -n 1 > "$work/out/probe" 2>&1 && isas+=("$isa")
done

echo "# tokens"
check run --tokenize -p "Once upon a time, café 日本  two spaces"
check run --tokenize --no-bos -f story.txt
check run --tokenize @parse-special -f marked.txt
check run --tokenize -m "$f16" -f marked.txt
IN=story.txt check run --tokenize

echo "# text"
for seed in 1 2 3; do check run -p "Once upon a time" -n 100 -s "$seed" -t 2 --stats; done
for threads in 1 2 3; do check run -p "Once upon a time" -n 160 -s 7 --temp 0 -t "$threads" --json; done
for mode in dense exact; do
  for model in "$f16" "$variant"; do check run -m "$model" -f prompt.txt -n 80 -s 5 --temp 0.7 -t 2 --mode "$mode" --stats --json; done
done
check run -p "The" -n 80 -s 11 --temp 1.5 --top-k 0 --top-p 1 --min-p 0 -t 1
check run -p "The" -n 80 -s 12 --top-k 5 --top-p 0.5 --min-p 0.1 --repeat-penalty 1.3 --repeat-last-n -1 -t 2
check run -p "The end." -n 200 -s 13 --ignore-eos --no-display-prompt -t 1
check run -p "Lily" -n -1 -c 96 -s 14 -t 2 --stats
check run @parse-special -p "<s>Once</s><s>Once" -n 20 -s 15 -t 1 --json
check run -m "$f16" --activation silu -p "Once" -n 30 -s 16 -t 2 --stats
check run -m "$f16" --activation relu2 --mode dense -p "Once" -n 30 -s 16 -t 2 --stats
check run -m "$f16" --check-tensors -p "Once" -n 3 -s 16 -t 2
IN=story.txt check run -c 4096 -n 20 -s 17 -t 2 --stats
for type in f32 f16 q8_0; do check run --cache-type "$type" -f prompt.txt -n 100 -s 18 -t 2 --json; done
for size in 1 7 64; do check run -ub "$size" -f long.txt -n 40 -s 19 -t 2 --json; done
check run -b 16 -f long.txt -n 10 -s 19 -t 3 --json
for isa in "${isas[@]}"; do
  check run --isa "$isa" -f prompt.txt -n 60 -s 20 -t 2 --json
  check run --isa "$isa" -m "$f16" --mode dense -f prompt.txt -n 40 -s 20 -t 1 --json
done
IN=lines.txt check run -i -n 30 -s 21 -t 1 --stats
IN=lines.txt check run -i -n 40 -s 22 -t 2 -c 64 -p "Ben and Anna"
check run -ngl 0 -p "Once" -n 4 -s 1 -t 1

echo "# perplexity, divergence, rows"
check bench --perplexity story.txt -c 64 --mode dense,exact -t 1,2 -o csv
check bench -m "$f16" --perplexity marked.txt --parse-special -c 128 --mode dense,exact -t 2 -o json
check bench -m "$f16" --perplexity story.txt -c 96 --chunks 5 --mode dense --activation silu --cache-type f32 -t 2 -o jsonl
for type in f32 q8_0; do check bench --perplexity story.txt -c 64 --chunks 4 --mode dense,exact --cache-type "$type" -t 2 -o csv; done
for size in 5 33; do check bench --perplexity story.txt -c 128 --chunks 3 --mode dense,exact -ub "$size" -t 2 -o csv; done
for isa in "${isas[@]}"; do
  check bench --isa "$isa" --perplexity story.txt -c 64 --chunks 2 --mode dense,exact -t 2 -o csv
  check bench --isa "$isa" -m "$f16" --perplexity story.txt -c 64 --chunks 2 --mode dense -t 1 -o csv
done
check bench --kl story.txt -c 64 --chunks 4 --mode exact -t 2 -o csv
check bench --kl story.txt -c 64 --chunks 4 --mode dense,exact --kl-base "$f16" -t 2 -o csv
check bench --kl story.txt -c 64 --chunks 2 --mode dense --kl-base "$f16" --cache-type q8_0 -t 1 -o md
check bench -p 16,33 -n 8 -r 2 -t 1,2 --mode dense,exact -o csv
check bench -p 16 -n 4 -r 2 -t 1 --text random -o sql
check bench -p 8 -n 4 -r 1 -t 2 --text story.txt -o md
check bench -p 0 -n 4 -r 1 -t 1 --hot profile -o json
check bench -p 0 -n 4 -r 1 -t 1 --hot random -o json
check bench -p 0 -n 2 -r 1 -t 1 --predict -o csv
check bench @measure-hardware measured.toml -t 1

echo "# profiles"
check profile -m "$f16" -f story.txt -o story.profile -c 64 --samples 700 --plot story.png -t 2
check profile -m "$f16" -f corpus -o corpus.profile --tokens 1500 --seed 4 --samples 100 --samples-cap 300KiB -t 1
check profile -m "$variant" -f marked.txt --parse-special -o marked.profile -c 128 -t 3
check profile -m "$f16" --activation silu -f prompt.txt -o silu.profile -t 2
check profile -m "$f16" -f marked.txt --parse-special -o marked-f16.profile -c 96 --samples 200 -t 1
check profile -m "$f16" --random-tokens 700 --seed 9 -o random.profile -t 2
for part in 1 2 3; do check profile -m "$f16" -f story.txt -o "part$part.profile" -c 64 --samples 700 --shard "$part/3" -t 2; done
check profile --merge part2.profile part3.profile part1.profile -o merged.profile
check profile --merge story.profile marked-f16.profile -o sum.profile
check profile --show merged.profile --plot merged.png
check profile --compare story.profile random.profile

echo "# predictors"
for kind in sign lowrank mlp auto; do
  check profile -m "$f16" --predictor "$kind" --samples-from story.profile -o "$kind.predictor" -t 2
done
check profile -m "$f16" --predictor lowrank --predictor-size 96 --target 0.995 --samples-from story.profile --seed 3 -o rank96.predictor -t 1
check profile -m "$variant" --predictor sign --samples-from story.profile -o sibling.predictor -t 2

echo "# split"
for type in f16 bf16 q8_0 q4_0 q4_k_m; do
  check split -m "$f16" --profile story.profile --type "$type" -o "v-$type.gguf" -t 2
  check split -m "$f16" --quantize-only --type "$type" -o "q-$type.gguf" -t 2
done
check split -m "$f16" --profile merged.profile -o v.gguf --no-kl -t 1
check split -m q-bf16.gguf --profile story.profile --type q4_0 -o v-bf16-q4_0.gguf -t 2
for source in q8_0 q4_0 q4_k_m; do
  for down in q8_0 same lossless; do
    [[ $source/$down == q4_k_m/lossless ]] && continue
    check split -m "q-$source.gguf" --profile story.profile --down "$down" -o "v-$source-$down.gguf" -t 2
    check run -m "v-$source-$down.gguf" -f prompt.txt -n 40 -s 23 -t 2 --stats --json
  done
done
check split -m "$f16" --profile story.profile --type q8_0 --no-kl --hardware hardware/rtx-3060-ddr4.toml --vram-budget 22MiB -o v-planned.gguf -t 2
check split -m "$f16" --profile silu.profile --activation silu --type q8_0 --no-kl -o v-silu.gguf -t 2
for kind in sign lowrank mlp auto; do
  check split -m "$f16" --profile story.profile --predictor "$kind.predictor" --type q8_0 --no-kl -o "p-$kind.gguf" -t 2
  check run -m "p-$kind.gguf" --mode predicted -f prompt.txt -n 60 -s 24 -t 2 --stats --json
  check bench -m "p-$kind.gguf" --kl story.txt -c 64 --chunks 2 --mode exact,predicted -t 1 -o csv
done
check split -m v-q4_0.gguf --predictor rank96.predictor -o p-q4_0.gguf
check bench -m p-q4_0.gguf --perplexity story.txt -c 64 --chunks 3 --mode dense,exact,predicted -t 3 -o csv
check bench -m p-lowrank.gguf --kl story.txt -c 64 --chunks 2 --mode predicted --hot profile -t 2 -o csv
check bench -m p-lowrank.gguf -p 8 -n 8 -r 1 --mode predicted --predictor none -t 2 -o json
for type in f16 bf16 q8_0 q4_0 q4_k_m; do
  check bench -m "q-$type.gguf" --perplexity story.txt -c 64 --chunks 2 --mode dense,exact -t 2 -o csv
  check bench -m "v-$type.gguf" --perplexity story.txt -c 64 --chunks 2 --mode dense,exact -t 1 -o csv
  check bench -m "v-$type.gguf" --kl story.txt -c 64 --chunks 1 --mode exact -t 2 -o csv
done
for isa in "${isas[@]}"; do
  for model in q-q4_0 q-q4_k_m v-q4_k_m v-q4_0-lossless p-mlp p-sign; do
    mode=exact
    [[ $model == p-* ]] && mode=predicted
    check run --isa "$isa" -m "$model.gguf" --mode "$mode" -f prompt.txt -n 24 -s 25 -t 2 --json
  done
done

echo "# small files of other shapes"
tiny=tests/golden/arch/llama.gguf
if [[ -e $repository/$tiny ]]; then
  check bench -m tests/golden/arch/llama-biases.gguf -p 9 -n 5 -r 1 --text random --mode dense,exact -t 2 -o json
  check bench -m "$tiny" --perplexity long.txt -c 32 --chunks 4 --mode dense,exact --activation relu --cache-type f32 -t 2 -o csv
  check profile -m "$tiny" --activation relu -f long.txt -o tiny.profile --samples 64 -t 2
  check split -m "$tiny" --activation relu --profile tiny.profile -o tiny-variant.gguf -t 2
  check split -m "$tiny" --activation relu --profile tiny.profile --type q8_0 -o tiny-variant-q8_0.gguf -t 2
  check bench -m tiny-variant.gguf --kl long.txt -c 32 --chunks 2 --mode dense,exact --kl-base "$tiny" --activation relu -t 2 -o csv
  check run -m "$tiny" -p "abc" -n 20 -s 26 --temp 0 -t 1 --json --stats
  check run -m tiny-variant-q8_0.gguf -p "the thing" -n 40 -s 26 -t 2 --json --stats
  check run --tokenize -m tests/golden/arch/arcee.gguf -f prompt.txt
  IN=lines.txt check run -m "$tiny" --conversation -n 12 -s 26 -t 1 --stats
  IN=lines.txt check run -m "$tiny" --conversation -n 12 -s 26 -c 128 -t 2 -p "Hello"
fi

echo "# plans"
machines=(rtx-4090-ddr5 rtx-3060-ddr4 rtx-2080ti-ddr4)
budgets=(2GiB 6GiB 9.5GB)
i=0
for shape in llama-2-7b mistral-7b falcon-40b llama-70b opt-30b opt-175b; do
  for mode in exact predicted dense; do
    machine=hardware/${machines[i % 3]}.toml
    check split --dry-run --json --shape "$shape:q4_0" --mode "$mode" -c 2048 --hardware "$machine"
    check split --dry-run --json --shape "$shape" --mode "$mode" --hardware "$machine" --vram-budget "${budgets[(i + i / 3) % 3]}"
    i=$((i + 1))
  done
  check split --dry-run --explain --shape "$shape:f16:0.2" --hardware "hardware/${machines[i / 3 % 3]}.toml" --vram-total 7GiB
  i=$((i + 1))
done
for budget in 18MiB 20MiB 24MiB; do
  check split -m "$f16" --profile story.profile --type q8_0 --dry-run --json --hardware hardware/rtx-3060-ddr4.toml --vram-budget "$budget"
  check split -m "$f16" --profile story.profile --predictor lowrank.predictor --mode predicted --dry-run --explain --hardware hardware/rtx-4090-ddr5.toml --vram-budget "$budget"
  check run -m p-mlp.gguf --mode predicted --dry-run --json --hardware hardware/rtx-2080ti-ddr4.toml --vram-budget "$budget"
  check run -m v-q4_0-lossless.gguf --dry-run --explain --hardware hardware/rtx-3060-ddr4.toml --vram-budget "$budget"
done
check run -m "$f16" --mode dense --dry-run --hardware hardware/rtx-3060-ddr4.toml -c 128 --cache-type q8_0

echo "# synthetic files"
for spec in test test:q8_0 test:f16:0.3 test:q4_k:0.05 test-3:bf16 test:f32; do
  check bench --synthetic "$spec" -p 9 -n 4 -r 1 -t 2 --mode dense,exact -o csv
  check bench --synthetic "$spec" --synthetic-plain -p 9 -n 4 -r 1 -t 1 --mode dense,exact -o csv
done
check bench --synthetic test --synthetic-seed 5 --synthetic-layers 2 -p 0 -n 3 -r 1 -t 1 -o json
check bench --synthetic test --cache-dir own-cache -p 5 -n 0 -r 1 -t 1 -o json
check bench --synthetic test --cache-dir own-cache -p 5 -n 0 -r 1 -t 1 -o json

echo "# what is refused"
for model in truncated.gguf zeros.gguf huge-counts.gguf fewer-tensors.gguf version-9.gguf missing.gguf corpus story.profile lowrank.predictor; do
  refuses run -m "$model" -p a -n 1
done
refuses profile -m truncated.gguf -f story.txt -o x.profile
refuses split -m zeros.gguf --quantize-only --type q8_0 -o x.gguf
refuses run -m "$variant" --mode predicted -p a -n 1
refuses run -p a -n 1 --temp -1
refuses run -p a -n 1 --top-p 2
refuses run -p a -n 1 -t 0
refuses run -p a -n 1 -c 1
refuses run -f missing.txt
refuses run -f bytes.txt -n 1
refuses run -p a --isa sse
refuses run -p a --cache-type q4_0
refuses run -p a --mode fast
refuses run -p a --device nothing
refuses run --conversation -n 4
refuses run -p a --activation gelu
refuses run -p a --dry-run --hardware empty.toml
refuses run -p a --dry-run --hardware misspelt.toml
refuses run -p a --dry-run --hardware missing.toml
refuses run -p a --dry-run --hardware hardware/rtx-3060-ddr4.toml --vram-budget 8
refuses run -p a --dry-run --hardware hardware/rtx-3060-ddr4.toml --vram-budget 17MiB
refuses run -p a --dry-run --hardware hardware/rtx-3060-ddr4.toml --vram-total 1MiB
refuses bench --perplexity prompt.txt -c 512
refuses bench --perplexity empty.txt
refuses bench --kl missing.txt
refuses bench -o xml
refuses bench --synthetic 9b
refuses bench --synthetic test:q9
refuses bench --synthetic test:q4_0:1.5
refuses profile -m "$f16" -f empty.txt -o x.profile
refuses profile -m "$f16" -f bytes.txt -o x.profile
refuses profile -m "$f16" -f story.txt -o x.profile --shard 4/3
refuses profile --merge story.profile marked.profile -o x.profile
refuses profile --merge missing.profile -o x.profile
refuses profile --show prompt.txt
refuses profile -m "$f16" --predictor sign --samples-from marked.profile -o x.predictor
refuses split -m "$variant" --profile story.profile -o x.gguf
refuses split -m "$f16" --profile story.profile --type q5_0 -o x.gguf
refuses split -m q-q8_0.gguf --profile story.profile --type q4_0 -o x.gguf
refuses split -m "$f16" --profile prompt.txt -o x.gguf
refuses split -m q-q4_k_m.gguf --profile story.profile --down lossless -o x.gguf
refuses split -m q-q8_0.gguf --quantize-only --type q4_0 -o x.gguf
refuses split --dry-run --shape gpt-5 --hardware hardware/rtx-3060-ddr4.toml

if [[ ${EMULATOR:-} ]]; then
  echo "# the emulated card"
  for budget in 20MiB 24MiB 200MiB; do
    check run --device cuda --hardware hardware/rtx-3060-ddr4.toml --vram-budget "$budget" -p "Once upon a time" -n 12 -s 27 -t 2 --json
  done
  check run --device cuda --hardware hardware/rtx-3060-ddr4.toml -m p-lowrank.gguf --mode predicted --vram-budget 24MiB -f prompt.txt -n 12 -s 28 -t 1 --json
  check run --device cuda --hardware hardware/rtx-3060-ddr4.toml -m "$f16" --mode dense --vram-budget 24MiB -f prompt.txt -n 12 -s 29 -t 2 --json
  check bench --device cuda @hardware hardware/rtx-3060-ddr4.toml --vram-budget 24MiB --perplexity story.txt -c 32 --chunks 1 --mode dense,exact -t 2 -o csv
fi

echo "$((n_same + n_different + n_broken)) commands: $n_same same, $n_different different, $n_broken broken"
[[ $((n_different + n_broken)) == 0 ]]
