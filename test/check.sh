#!/bin/sh
# `npm run check`: all that can be known without running Baton. Every check runs, also after one has failed.
# Ends with a line `checks: N ok, N failed`.
set -u
cd "$(dirname "$0")/.."
PATH="$PWD/node_modules/.bin:$PATH"
export NO_COLOR=1
passed=0 failed=0

# check NAME COMMAND...: runs it, and shows what it said only when it fails.
check() {
  name=$1
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok    $name"
  else
    failed=$((failed + 1))
    echo "FAIL  $name: $*"
    echo "$output" | sed 's/^/      /'
  fi
}

# The commit whose contract the present one must be compatible with: HEAD where proto/ has changes that are not
# committed, else the one before the last commit to proto/. So the last change is always held against what it changed.
commit_before() {
  git rev-parse --verify --quiet HEAD >/dev/null 2>&1 || return 1
  if [ -n "$(git status --porcelain -- proto)" ]; then commit=HEAD; else commit=$(git log -1 --format=%H -- proto)^; fi
  git cat-file -e "$commit:proto/baton" 2>/dev/null && echo "$commit"
}

compatible_with() {
  rm -rf .cache/contract-before && mkdir -p .cache/contract-before &&
    git archive "$1" proto buf.yaml | tar -x -C .cache/contract-before &&
    buf breaking --against .cache/contract-before
}

arrows() { depcruise --no-progress --config test/dependency-cruiser.cjs src; }
generated() { vitest run --config test/vitest.config.ts test/gen.test.ts; }

shell_syntax() {
  for script in src/setup.sh test/setup.sh test/check.sh bench/install.sh bench/install-go.sh .ci/run; do
    sh -n "$script" || return 1
  done
}

# The bench's clients in Go are checked only where Go is, and what they import: a check downloads nothing.
GO_CLIENTS=bench/systems/go
go_offline() { (cd $GO_CLIENTS && PATH=$PATH:/usr/local/go/bin GOPROXY=off GOTOOLCHAIN=local "$@"); }
have_go_modules() { go_offline go list -deps ./... >/dev/null 2>&1; }
go_format() { unformatted=$(go_offline gofmt -l .) && [ -z "$unformatted" ] || { echo "$unformatted" && return 1; }; }
go_vet() { go_offline go vet ./...; }

check "code style (biome)" biome ci --colors=off --max-diagnostics=100 .
check "types (tsc)" tsc -p .
check "arrows between rooms (dependency-cruiser)" arrows
check "contract style (buf lint)" buf lint
check "contract format (buf format)" buf format --diff --exit-code --path proto/baton
if before=$(commit_before); then
  check "contract compatible with what it was (buf breaking)" compatible_with "$before"
else
  echo "      no earlier contract to compare with (buf breaking)"
fi
check "generated code is current" generated
check "shell scripts parse" shell_syntax
if have_go_modules; then
  check "the bench's clients in Go, their format (gofmt)" go_format
  check "the bench's clients in Go, what is suspicious in them (go vet)" go_vet
else
  echo "      no Go here, or not the modules of the bench's clients (gofmt, go vet)"
fi

echo "checks: $passed ok, $failed failed"
[ "$failed" -eq 0 ]
