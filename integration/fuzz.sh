#!/bin/sh
# Runs each fuzz target for FUZZ_SECONDS or, if FUZZ_RUNS is given, for that many inputs from a fixed seed (the same ones every time).
# Needs a nightly compiler; says so where there is none.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-20}
limit="-max_total_time=$seconds"
[ -z "${FUZZ_RUNS:-}" ] || limit="-runs=$FUZZ_RUNS -seed=1"
tools=$(mkdir -p "${CARGO_TARGET_DIR:-target}/cache" && cd "${CARGO_TARGET_DIR:-target}/cache" && pwd)/cargo-fuzz
PATH="$PATH:$HOME/.cargo/bin:$tools/bin"
[ -d tests/fuzz ] || { echo 'fuzz: there are no fuzz targets'; exit 1; }
if ! cargo +nightly --version >/dev/null 2>&1; then
  echo 'SKIPPED: fuzz targets need a nightly compiler (rustup toolchain install nightly)'
  exit 0
fi
if ! command -v cargo-fuzz >/dev/null; then
  echo "fuzz: building cargo-fuzz into $tools" >&2
  cargo install -q --locked --root "$tools" cargo-fuzz || { echo 'SKIPPED: cargo-fuzz could not be installed'; exit 0; }
fi
for fuzz_target in $(cargo +nightly fuzz list --fuzz-dir tests/fuzz); do
  echo "== $fuzz_target, $limit"
  # The committed corpus is read; what is found goes to a copy under target.
  found=${CARGO_TARGET_DIR:-target}/fuzz/$fuzz_target
  mkdir -p "$found"
  corpus=''
  [ -d "tests/fuzz/corpus/$fuzz_target" ] && corpus=tests/fuzz/corpus/$fuzz_target
  # shellcheck disable=SC2086 # an absent corpus is no argument
  cargo +nightly fuzz run --fuzz-dir tests/fuzz "$fuzz_target" "$found" $corpus -- \
    $limit -max_len=65536 -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1
done
