#!/bin/sh
# Runs all tests and ends with one line: how many passed and failed, and what was skipped and why. Exit status 1 if any failed or did not build.
# Arguments, if any, are names of files in integration/tests: then only those run.
set -u
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
out=$target/test-output.txt
: >"$out"
ulimit -n "$(ulimit -Hn)"
broken=''

run() { # what command...
  what=$1
  shift
  echo "== $what" | tee -a "$out"
  { "$@" 2>&1; echo "exit status of $what: $?"; } | tee -a "$out"
  tail -n 1 "$out" | grep -q ': 0$' || broken="$broken, $what"
}

run 'release build' cargo build --release -p belay
[ -z "$broken" ] || { echo 'belay does not build'; exit 1; }
export BELAY_BIN="$(cd "$target" && pwd)/release/belay"
# The second core is for the servers; one scenario at a time keeps time limits honest.
if [ $# = 0 ]; then
  run 'unit tests' cargo test -p belay -p belay-model --no-fail-fast
  run 'scenarios on real servers' nice -n 5 cargo test -p belay-integration --no-fail-fast -- --test-threads=1
else
  for file in "$@"; do
    run "scenarios: $file" nice -n 5 cargo test -p belay-integration --no-fail-fast --test "$file" -- --test-threads=1
  done
fi

echo
grep -ah '^SKIPPED: ' "$out" | sort | uniq -c | sed 's/^/  /'
grep -ahE '^test .* (FAILED|failed)$' "$out" | sed 's/^/  /'
awk -v broken="$broken" '
  /^test result: / { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) g += $i } }
  END {
    # A suite that did not build or crashed has no result line; it counts as one failure.
    if (broken != "" && f == 0) f = 1
    if (g > 0) printf "%d ignored\n", g
    if (broken != "") printf "not green: %s\n", substr(broken, 3)
    printf "%d passed, %d failed\n", p, f
    exit (f > 0 || p == 0)
  }' "$out"
