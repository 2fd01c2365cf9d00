#!/usr/bin/env bash
# Archives for a release: the four commands, licences, README, manual pages and completions.
#
#   scripts/release.sh [OUT]                        this machine's target
#   scripts/release.sh --target T [--target T] [OUT]
#   scripts/release.sh --all [OUT]                  the five usual targets
#   scripts/release.sh --bin FOLDER [--target T] [OUT]   of commands that are built already
#
# Makes OUT/powerinfer-rs-VERSION-TARGET.tar.gz (.zip for Windows) and its .sha256 [target/dist]. Builds with --release --locked. Two archives
# of the same programs are the same, byte for byte. Programs must need nothing but the system's own libraries. What was packed is unpacked
# again and tells a story, before anything appears in OUT: itself, with qemu-aarch64 or Wine; what cannot run here is said.
#
# Targets that are named are built with cargo-zigbuild, so that any machine builds all of them, and Linux needs no newer glibc than that of
# 2012 (`pip install cargo-zigbuild`). Windows is built with MinGW's gcc where that is installed. NATIVE=1 builds named targets with this
# machine's own linker, as on a Mac. But for macOS they hold no names of functions, and none of this machine's paths. CARGO_TARGET_<T>_RUNNER
# runs what this machine cannot, as cargo has it.
set -euo pipefail
cd "$(dirname "$0")/.."

ALL=(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-pc-windows-gnu aarch64-apple-darwin x86_64-apple-darwin)
GLIBC=2.17
export MACOSX_DEPLOYMENT_TARGET=${MACOSX_DEPLOYMENT_TARGET:-11.0}

bin=
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?--bin needs a folder}; shift ;;
    --target) targets+=("${2:?--target needs a name of rustc}"); shift ;;
    --all) targets=("${ALL[@]}") ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    -*) echo "error: $1: is not known; scripts/release.sh --help lists what is" >&2; exit 2 ;;
    *) break ;;
  esac
  shift
done
[ $# -le 1 ] || { echo "error: $2: one folder is enough" >&2; exit 2; }
out=${1:-target/dist}
[ -z "$bin" ] || [ ${#targets[@]} -le 1 ] || { echo "error: --bin holds the commands of one target" >&2; exit 2; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-target}
# The time of the last commit, so that the archive does not depend on when it is made.
time=$(git log -1 --format=%ct 2>/dev/null || echo 0)
work=$(mktemp -d)
trap '[ ! -d "$work/wine" ] || wineserver -k || true; rm -rf "$work"' EXIT

has() { command -v "$1" >/dev/null; }

# Builds the commands for the target $1; says in $bin where they are.
build() {
  local target=$1
  # Paths of this machine are no part of a program.
  local flags="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$PWD=/powerinfer-rs ${RUSTFLAGS:-}"
  local tool=(build --target "$target")
  case $target in
    *-windows-gnu)
      if [ -z "${NATIVE:-}" ] && ! has x86_64-w64-mingw32-gcc; then
        tool=(zigbuild --target "$target")
      elif has x86_64-w64-mingw32-gcc; then
        export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc CC_x86_64_pc_windows_gnu=x86_64-w64-mingw32-gcc
      fi
      ;;
    *-linux-gnu) [ -n "${NATIVE:-}" ] || tool=(zigbuild --target "$target.$GLIBC") ;;
    *) [ -n "${NATIVE:-}" ] || tool=(zigbuild --target "$target") ;;
  esac
  if [ "${tool[0]}" = zigbuild ] && ! has cargo-zigbuild; then
    echo "error: $target: needs cargo-zigbuild; pip install cargo-zigbuild, or NATIVE=1 with a linker of its own" >&2
    exit 1
  fi
  # Names of functions are a fifth of a program. Cargo forgets profile.release.strip of a package that has a profile of its own.
  case $target in *-apple-*) ;; *) flags+=" -Cstrip=symbols" ;; esac
  RUSTFLAGS=$flags cargo "${tool[@]}" --release --locked --bins
  bin=$built/$target/release
}

# How the target $1 is run on this machine, in $runner; fails where it cannot be.
runs() {
  local variable
  variable=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$1")_RUNNER
  # env starts what follows it: the shell of a Mac has no empty lists.
  runner=(env)
  if [ -n "${!variable:-}" ]; then
    read -ra runner <<<"env ${!variable}"
  elif [ "$1" = "$host" ] || { [ "$1" = x86_64-unknown-linux-musl ] && [ "$host" = x86_64-unknown-linux-gnu ]; }; then
    return 0
  elif [ "$1" = aarch64-unknown-linux-gnu ] && [ "${host##*-}" = gnu ] && has qemu-aarch64; then
    runner=(env qemu-aarch64 -L /usr/aarch64-linux-gnu)
  elif [ "$1" = x86_64-pc-windows-gnu ] && has wine && has x86_64-w64-mingw32-gcc; then
    runner=(env wine)
    if [ -z "${WINEPREFIX:-}" ]; then
      scripts/wine_prefix.sh "$work/wine" >/dev/null 2>&1
      export WINEPREFIX=$work/wine
    fi
    export WINEDEBUG=-all
  else
    return 1
  fi
}

# Pages and completions, from a build for this machine: they are the same for all.
docs() {
  [ ! -e "$work/docs" ] || return 0
  local from=$1
  if [ "$2" != "$host" ]; then
    cargo build --release --locked --bins
    from=$built/release
  fi
  scripts/release_docs.sh --bin "$from" "$work/docs"
}

# The time from a start to the version, the least of five, in milliseconds.
start_up() {
  python3 - "$@" --version <<'EOF'
import subprocess, sys, time
def once():
    begin = time.perf_counter()
    subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin
print(f"{1e3 * min(once() for _ in range(5)):.1f}")
EOF
}

# Packs the commands in $bin for the target $1, and tries what was packed.
pack() {
  local target=$1 name=powerinfer-rs-$version-$1 exe="" ending=tar.gz command programs=() story
  case $target in *-windows-*) exe=.exe ending=zip ;; esac
  mkdir -p "$work/$name"
  for command in run profile split bench; do
    install -m 755 "$bin/powerinfer-$command$exe" "$work/$name/"
    programs+=("$work/$name/powerinfer-$command$exe")
  done
  python3 scripts/release_needs.py "${programs[@]}"
  install -m 644 LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md "$work/$name/"
  python3 scripts/release_licences.py "$target" >"$work/$name/THIRD-PARTY.txt"
  docs "$bin" "$target"
  cp -R "$work/docs/." "$work/$name/"
  python3 scripts/release_pack.py "$work/$name" "$work/$name.$ending" "$time"

  if runs "$target"; then
    mkdir "$work/again"
    (cd "$work/again" && python3 -c 'import shutil, sys; shutil.unpack_archive(sys.argv[1])' "$work/$name.$ending")
    # Python's unzip leaves out what may be executed.
    chmod +x "$work/again/$name/"powerinfer-*
    for command in profile split bench; do
      "${runner[@]}" "$work/again/$name/powerinfer-$command$exe" --version >/dev/null
    done
    story=$(cd "$work/again" && "${runner[@]}" "./$name/powerinfer-run$exe" -p "Once upon a time" -n 16 --temp 0 --device cpu </dev/null 2>/dev/null)
    [ "${#story}" -gt 30 ] || { echo "error: $name: the packed powerinfer-run tells no story: $story" >&2; exit 1; }
    echo "$name: starts in $(start_up "${runner[@]}" "$work/again/$name/powerinfer-run$exe") ms${runner[1]:+ with ${runner[1]}}; tells: $story"
    rm -rf "$work/again"
  else
    echo "$name: cannot be run on this machine, and was not"
  fi
  mkdir -p "$out"
  mv "$work/$name.$ending" "$work/$name.$ending.sha256" "$out/"
  rm -rf "${work:?}/$name"
  echo "$out/$name.$ending: $(wc -c <"$out/$name.$ending") bytes, sha256 $(cut -d ' ' -f 1 "$out/$name.$ending.sha256")"
}

if [ -n "$bin" ]; then
  pack "${targets[0]:-$host}"
elif [ ${#targets[@]} = 0 ]; then
  cargo build --release --locked --bins
  bin=$built/release
  pack "$host"
else
  for target in "${targets[@]}"; do
    build "$target"
    pack "$target"
  done
fi
