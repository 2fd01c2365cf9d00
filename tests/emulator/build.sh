#!/bin/sh
# Builds the emulator: compiles kernels/*.cu, unmodified, with the host's C++ compiler, and links them with the
# stand-in driver to OUT/libcuda.so.1; `selftest` builds OUT/selftest from selftest.cu instead. What has not changed is
# not compiled again.
#     tests/emulator/build.sh OUT [selftest|driver] [extra compiler flags]
# CXX names the compiler [c++]; JOBS how many run at once [2]; KERNELS the folder of the .cu [kernels].
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernels=${KERNELS:-$(cd "$here/../.." && pwd)/kernels}
out=$1
what=${2:-driver}
shift
[ $# -gt 0 ] && shift
cxx=${CXX:-c++}
flags="-std=c++20 -O2 -g1 -fPIC -fvisibility=hidden -ffp-contract=off -fno-strict-aliasing -Wall -Wno-unknown-pragmas -Wno-sign-compare -Wno-subobject-linkage -Wno-unknown-warning-option -Wno-unused-function -Wno-unused-variable -DCUDA_EMU $*"
mkdir -p "$out"
out=$(cd "$out" && pwd)

hash() {
  cat "$@" | cksum | tr -d ' '
}
shared=$( (
  echo "$flags"
  "$cxx" --version
  cat "$0" "$here"/*.h
) | cksum | tr -d ' ')

# object SOURCE NAME FLAGS...: prints the object file of a source, compiling it if there is none for this content.
object() {
  source=$1 name=$2
  shift 2
  file=$out/$name.$shared.$(hash "$source" "$here"/*.h $includes).o
  echo "$file"
  if [ ! -f "$file" ]; then
    "$cxx" $flags "$@" -c "$source" -o "$file.$$.tmp" >&2 && mv "$file.$$.tmp" "$file"
  fi
}

# kernel SOURCE TARGET: as `object`, with a table of the kernels in the source. The preprocessor finds them, so that macros
# may define kernels. Kernels of another target than 75 get another symbol: the same names come twice.
kernel() {
  source=$1 target=$2
  name=$(basename "$source" .cu).sm$target
  names=$("$cxx" -x c++ -std=c++20 -E -P -DEMU_SCAN -DCUDA_EMU -D__CUDA_ARCH__=${target}0 -I"$here" -I"$kernels" \
    -include cuda_emu.h "$source" | tr '\n' ' ' | grep -oE 'EMU_GLOBAL +void +[A-Za-z0-9_]+ *\(' |
    sed -E 's/.*void +([A-Za-z0-9_]+) *\(/\1/')
  wrapper=$out/$name.$$.cpp
  {
    for k in $names; do [ "$target" = 75 ] || echo "#define $k ${k}__sm$target"; done
    echo "#include \"cuda_emu.h\""
    echo "#include \"$source\""
    for k in $names; do
      [ "$target" = 75 ] || echo "#undef $k"
      [ "$target" = 75 ] && symbol=$k || symbol=${k}__sm$target
      echo "EMU_KERNEL($symbol, \"$k\", $target)"
    done
  } > "$wrapper"
  mv "$wrapper" "$out/$name.cpp.$$"
  cmp -s "$out/$name.cpp.$$" "$out/$name.cpp" && rm "$out/$name.cpp.$$" || mv "$out/$name.cpp.$$" "$out/$name.cpp"
  includes="$source $(ls "$kernels"/*.cuh 2> /dev/null || true)"
  object "$out/$name.cpp" "$name" -D__CUDA_ARCH__=${target}0 -I"$here" -I"$kernels"
}

sources=$(ls "$kernels"/*.cu 2> /dev/null || true)
runtime=driver.cpp
[ "$what" = selftest ] && sources=$here/selftest.cu runtime=selftest.cpp

list=$out/objects.$$
rm -f "$list".*
trap 'rm -f "$list".*' EXIT
n=0
step() {
  n=$((n + 1))
  ( "$@" > "$list.$n" || echo failed > "$list.$n.bad" ) &
  [ $((n % ${JOBS:-2})) -ne 0 ] || wait
}
includes=
step object "$here/fibers.cpp" fibers
step object "$here/$runtime" "${runtime%.cpp}"
for source in $sources; do
  for target in $(sed -n '1s,^// targets:,,p' "$source" | grep . || echo 75); do step kernel "$source" "$target"; done
done
wait
if ls "$list".*.bad > /dev/null 2>&1; then
  echo "build.sh: a source does not compile" >&2
  exit 1
fi
objects=$(cat "$list".*)
if [ "$what" = selftest ]; then
  product=$out/selftest link=
else
  product=$out/libcuda.so.1 link="-shared -Wl,-soname,libcuda.so.1"
fi
stamp=$(echo "$objects" | cksum)
if [ ! -f "$product" ] || [ "$(cat "$product.stamp" 2> /dev/null)" != "$stamp" ]; then
  "$cxx" $flags $link $objects -o "$product.$$" -pthread -ldl
  mv "$product.$$" "$product"
  # Under the name that is looked for first, too: where there is a real driver, this one must be found.
  [ "$what" = selftest ] || ln -sf libcuda.so.1 "$out/libcuda.so"
  echo "$stamp" > "$product.stamp"
  find "$out" -name '*.o' -mtime +2 -exec rm {} +
fi
