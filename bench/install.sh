#!/bin/sh
# `npm run bench -- --install`: installs the peers that are missing. Debian's packages come by apt-get; what Go builds
# lies in .cache/bench/bin, for this checkout alone.
#
# Of NATS both: the server that Go builds is newer than Debian's, syncs as often as it is told to, and takes batches.
# The bench takes that one when it is there.
set -eu
cd "$(dirname "$0")/.."

NATS_VERSION=v2.15.2
BIN=$PWD/.cache/bench/bin
say() { echo "bench: $*" >&2; }
fail() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Some are in /usr/sbin, which is not on the PATH of every user.
have() { PATH=$PATH:/usr/sbin command -v "$1" >/dev/null 2>&1; }

missing_packages() {
  have beanstalkd || echo beanstalkd
  have nats-server || echo nats-server
  have rabbitmq-server || echo rabbitmq-server
}

install_debian_packages() {
  command -v apt-get >/dev/null 2>&1 || fail "there is no apt-get here: install $*"
  say "installing $* with apt-get"
  as_root apt-get update -q >&2 || fail "apt-get update failed"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2 ||
    fail "could not install $*"
  # The bench starts servers of its own: those that Debian starts would take part in the figures.
  if [ -d /run/systemd/system ]; then as_root systemctl disable --now "$@" >&2; fi
}

build_nats() {
  say "building nats-server $NATS_VERSION in .cache/bench/bin"
  PATH=$PATH:/usr/local/go/bin GOBIN=$BIN GOFLAGS="-modcacherw -buildvcs=false" \
    go install "github.com/nats-io/nats-server/v2@$NATS_VERSION" || say "could not build it: Debian's is taken"
}

packages=$(missing_packages)
# Unquoted: a word for each package.
[ -z "$packages" ] || install_debian_packages $packages
[ -x "$BIN/nats-server" ] || build_nats
sh bench/install-go.sh
