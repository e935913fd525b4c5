#!/usr/bin/env bash
# Makes a stand-in for the driver's library and asks the vLLM of the environment $1 for its flags.
set -Eeuo pipefail
# nm fails for the first file that is no library, and goes on.
find "$1" -name '*.so*' -exec nm -D --undefined-only {} + > /tmp/symbols 2> /dev/null || true
awk '$1 == "U" && $2 ~ /^cu[A-Z][A-Za-z0-9]*(_v[0-9]+)?$/ { print $2 }' /tmp/symbols | sort -u > /tmp/names
grep -vE '^cu(blas|dnn|fft|rand|solver|sparse|file|pti|tensor)' /tmp/names |
  sed 's/.*/int &(void) { return 100; }  \/\/ no device/' > /tmp/driver.c
gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o /tmp/libcuda.so.1 /tmp/driver.c
"$1/bin/vllm" --help
exec "$1/bin/vllm" serve --help=all
