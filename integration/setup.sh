#!/bin/sh
# Installs what the tests and the demonstration need on Debian 12: servers, load generators, clients of other languages, and, unpacked under target/cache
# with nothing of them installed, MySQL 9 from Debian unstable and OceanBase seekdb from PyPI. Does nothing where all is there. Needs root, or sudo.
#   integration/setup.sh          everything
#   integration/setup.sh run      only what `make run` needs
set -eu
cd "$(dirname "$0")/.."
part=${1:-all}
cache=${CARGO_TARGET_DIR:-target}/cache
mkdir -p "$cache"
say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

if [ "$(id -u)" = 0 ]; then
  as_root() { "$@"; }
elif command -v sudo >/dev/null; then
  as_root() { sudo "$@"; }
else
  as_root() { fail "root is needed for: $*"; }
fi

# --- Debian packages -------------------------------------------------------------------------------------------------------
need() { # command-or-file package
  case "$1" in
    /*) [ -e "$1" ] && return 0;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null && return 0;;
  esac
  packages="$packages $2"
}
packages=''
need mariadbd mariadb-server
need mariadb mariadb-client
[ -e /usr/lib/libgalera_smm.so ] || need /usr/lib/galera/libgalera_smm.so galera-4
need rsync rsync
need openssl openssl
need ip iproute2
need ps procps
need gcc gcc
need g++ g++
need make make
need curl curl
need /etc/ssl/certs/ca-certificates.crt ca-certificates
if [ "$part" = all ]; then
  need haproxy haproxy
  need sysbench sysbench
  need debootstrap debootstrap
  need strace strace
  need perf linux-perf
  need valgrind valgrind
  need python3 python3
  python3 -c 'import ensurepip' 2>/dev/null || packages="$packages python3-venv"
  need node nodejs
  need npm npm
fi
if [ -n "$packages" ]; then
  command -v apt-get >/dev/null || fail "this is no Debian; install yourself:$packages"
  say "installing:$packages"
  # The packages' own services must not start: the tests run servers of their own. A policy that is there already stays.
  policy=/usr/sbin/policy-rc.d
  made_policy=''
  if [ ! -e $policy ]; then
    made_policy=1
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
  fi
  remove_policy() { [ -z "$made_policy" ] || as_root rm -f $policy; }
  trap remove_policy EXIT
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update || say "apt-get update failed; trying with the lists that are there"
  # shellcheck disable=SC2086 # a list of words
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $packages >"$cache/apt.log" 2>&1 \
    || { tail -20 "$cache/apt.log" >&2; fail "apt-get failed"; }
  remove_policy
  trap - EXIT
fi

# --- Rust --------------------------------------------------------------------------------------------------------------------
PATH="$PATH:$HOME/.cargo/bin"
enough() { # is cargo at least 1.95?
  command -v cargo >/dev/null || return 1
  version=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  [ -n "$version" ] || return 1
  # shellcheck disable=SC2086 # two words
  set -- $version
  [ "$1" -gt 1 ] || [ "$2" -ge 95 ]
}
if ! enough; then
  # Debian 12's own Rust (1.63) is too old for edition 2024.
  if command -v rustup >/dev/null; then
    say "installing Rust 1.95 with rustup"
    rustup -q toolchain install stable --profile minimal -c rustfmt -c clippy || fail "rustup failed"
  else
    say "installing rustup and stable Rust for this user"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs >"$cache/rustup-init.sh" \
      || fail "Rust 1.95 or later is needed and could not be fetched: see https://rustup.rs"
    sh "$cache/rustup-init.sh" -y -q --profile minimal -c rustfmt -c clippy --no-modify-path || fail "rustup failed"
  fi
  enough || fail "Rust 1.95 or later is needed; found: $(cargo --version 2>&1)"
fi
[ "$part" = all ] || exit 0

# --- Python and node ---------------------------------------------------------------------------------------------------------
# A failure here costs some tests, which say so; it must not cost the others.
if ! "$cache/python/bin/python" -c 'import pymysql, cryptography' 2>/dev/null; then
  say "PyMySQL into $cache/python"
  python3 -m venv "$cache/python" && "$cache/python/bin/python" -m pip install -q 'PyMySQL[rsa]==1.1.*' \
    || say "PyMySQL could not be installed; its tests will fail"
fi
if [ ! -d "$cache/node/node_modules/mysql2" ]; then
  say "mysql2 into $cache/node"
  mkdir -p "$cache/node"
  npm install --silent --no-audit --no-fund --prefix "$cache/node" 'mysql2@3' >/dev/null \
    || say "mysql2 could not be installed; its tests will fail"
fi

# --- OceanBase seekdb ---------------------------------------------------------------------------------------------------------
# An executable in a Python package of 54 MB, which is unpacked and never imported.
if ! ls "$cache"/seekdb/lib/python3*/site-packages/pylibseekdb/seekdb >/dev/null 2>&1; then
  case $(uname -m) in
    x86_64|aarch64)
      say "OceanBase seekdb into $cache/seekdb"
      python3 -m venv "$cache/seekdb" && "$cache/seekdb/bin/python" -m pip install -q --no-deps 'pylibseekdb==1.4.*' \
        || say "OceanBase seekdb could not be installed; its tests will fail"
      ;;
    *) say "OceanBase seekdb skipped: there is no build of it for $(uname -m); its tests will fail";;
  esac
fi

# --- MySQL 9 from Debian unstable -----------------------------------------------------------------------------------------------
sid=$(cd "$cache" && pwd)/mysql-sid
if [ ! -x "$sid/usr/sbin/mysqld" ]; then
  say "MySQL 9 from Debian unstable into $sid (a few minutes)"
  mirror=$(sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null \
    | grep '/debian/\?$' | head -n 1)
  mirror=${mirror:-http://deb.debian.org/debian}
  as_root umount "$sid/proc" 2>/dev/null || true
  as_root rm -rf "$sid"
  # debootstrap checks the date of the archive, which an old snapshot fails; the packages' signatures are checked all the same.
  as_root debootstrap --variant=minbase sid "$sid" "$mirror" >"$cache/debootstrap.log" 2>&1 \
    || say "debootstrap complained (see $cache/debootstrap.log); going on with apt in it"
  in_sid() { as_root chroot "$sid" env DEBIAN_FRONTEND=noninteractive "$@" >>"$cache/debootstrap.log" 2>&1; }
  as_root mount -t proc proc "$sid/proc" 2>/dev/null || true
  trap 'as_root umount "$sid/proc" 2>/dev/null || true' EXIT
  in_sid apt-get -o Acquire::Check-Valid-Until=false update || true
  in_sid apt-get -o Acquire::Check-Valid-Until=false install -y --no-install-recommends mysql-server-core mysql-client-core \
    || { tail -20 "$cache/debootstrap.log" >&2; say "MySQL 9 could not be installed; its tests will fail"; }
  as_root umount "$sid/proc" 2>/dev/null || true
  trap - EXIT
  as_root rm -rf "$sid/var/cache/apt/archives" "$sid/var/lib/apt/lists"
fi
