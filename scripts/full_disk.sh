#!/usr/bin/env bash
# Has each command that writes files write to a disk that is too small, and looks at what is left: the command says in one line which
# file cannot be written, ends with exit code 1 where the file is what it was to do, what was there before is there still, and no
# temporary file is.
#
#     scripts/full_disk.sh [BUILD]
#
# BUILD is a folder with the four commands [default: target/release]. ONLY="profile plot" takes only those writers. RUNNER=wine runs a
# build for Windows, in a folder of its own for Wine: what Wine's server sees of disks is what its first program saw. The disks are
# mounted where nobody else sees them (unshare -rm). Prints a line per writer; exits with 1 at the first that does otherwise.
set -euo pipefail

if [[ ${1:-} == -* ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
if [[ ! ${APART:-} ]]; then
  APART=1 exec unshare -rm "$0" "$@"
fi
repository=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "${1:-$repository/target/release}" && pwd)
work=$(mktemp -d)
leave() {
  [[ ! ${WINEPREFIX:-} ]] || wineserver -k || true
  cd /
  umount "$work"/*/ 2> /dev/null || true
  rm -rf "$work"
}
trap leave EXIT
if [[ ${RUNNER:-} == *wine* ]]; then
  "$repository/scripts/wine_prefix.sh" "$work/wine" 2> /dev/null
  export WINEPREFIX=$work/wine WINEDEBUG=-all
else
  unset WINEPREFIX
fi
cd "$work"
. "$repository/scripts/writers.sh"

printf '%-10s %10s %10s  %s\n' writer bytes room said
for writer in $writers; do
  mkdir "$writer"
  out=$(output_of "$writer")
  whole "$writer" "$out"
  bytes=$(stat -c %s "$out")
  rm "$out"
  # What is never replaced has nothing before it.
  before=
  case $writer in synthetic | hardware | session | saved) ;; *) before=old ;; esac
  # A page is for what was there before.
  room=$((bytes / 8192 * 4096))
  mount -t tmpfs -o size=$((room + 4096)) tmpfs "$writer"
  if [[ $before ]]; then echo $before > "$out"; else head -c 4000 /dev/zero > "$writer/filler"; fi
  command_of "$writer" "$out"
  code=0
  "${command[@]}" > full.out 2> full.err || code=$?
  line=$(grep -E 'cannot be written|disk' full.err | tail -n 1 | tr '\\' / || true)
  # Where the size is known it is refused before, by the name of the folder.
  [[ $line == *"$out"* || $writer == synthetic && $line == *"$writer: "* ]] || { cat full.err >&2; die "$writer: does not say which file cannot be written"; }
  # The text of a session is there all the same, and a conversation goes on.
  [[ $code -eq 1 || $writer == session || $writer == saved ]] || die "$writer: ends with $code"
  if [[ $before ]]; then
    [[ $(cat "$out") == "$before" ]] || die "$writer: what was there before is gone"
  else
    [[ ! -e $out ]] || die "$writer: a part of a file"
  fi
  left=$(find "$writer" -type f ! -name out ! -name filler ! -name out.part | wc -l)
  [[ $left -eq 0 ]] || { ls -la "$writer" >&2; die "$writer: $left files stay"; }
  printf '%-10s %10d %10d  %s\n' "$writer" "$bytes" "$room" "${line#error: }"
  umount "$writer"
done
echo "every writer says that the disk is full and leaves what was there"
