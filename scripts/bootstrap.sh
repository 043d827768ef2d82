#!/usr/bin/env bash
# Installs what `make testbed` needs: system packages, a Python environment, the link that makes the checkout an
# installed collection; with the argument `test` also what only `make test` needs. Quick when there is nothing to do. As root it installs without asking; as an ordinary
# user it says which command to run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
[ -t 2 ] || say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\nnext: %s\n' "$1" "$2" >&2; exit 2; }

# Each line: a program that must be there, and the Debian/Ubuntu package that brings it.
readonly PROGRAMS='dockerd docker.io
iptables iptables
mmdebstrap mmdebstrap
gcc gcc
mvn maven
ssh openssh-client
shellcheck shellcheck
git git'
# What only the tests need, those of releases and of pipelines.
readonly TEST_PROGRAMS='apt-ftparchive apt-utils
createrepo_c createrepo-c
gpg gnupg
javac default-jdk-headless
rpmkeys rpm'

# For the checks of login pages; a person who only wants a testbed need not have it. Ubuntu has it as a snap only, which
# containers cannot run: the checks are skipped there, and say so.
browser_packages() {
  command -v chromium >/dev/null && return
  if grep -qx 'ID=debian' /etc/os-release; then
    missing+=(chromium fonts-dejavu-core)
  else
    say "no Chromium: checks in a browser will be skipped"
  fi
}

system_packages() {
  local program package missing=() wanted=$PROGRAMS
  [ "${1:-}" != test ] || wanted+=$'\n'$TEST_PROGRAMS
  while read -r program package; do
    command -v "$program" >/dev/null || missing+=("$package")
  done <<<"$wanted"
  [ "${1:-}" != test ] || browser_packages
  [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
  # What the Debian archive signs with; Ubuntu does not have it by itself.
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null ||
    die "missing system packages: ${missing[*]} (found: no apt-get; needed: Debian or Ubuntu)" \
      "install Docker Engine, mmdebstrap, gcc with the C library headers, Maven, the ssh client, shellcheck and git with your package manager"
  local install="apt-get install --yes --no-install-recommends ${missing[*]}"
  [ "$(id -u)" -eq 0 ] || die "missing system packages: ${missing[*]}" "sudo apt-get update && sudo $install"
  say "installing ${missing[*]}"
  apt-get update -qq
  # The engine is started by `deep testbed up` when none runs, not while its package is being unpacked.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive $install >/dev/null
}

# The first interpreter of version 3.12 or newer: named ones of the PATH, those of pyenv (whose shims fail when no version
# is selected), one that an earlier run fetched.
find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.14 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3 \
    .python/*/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

install_python() {
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 0
  say "installing Python from the distribution"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv >/dev/null
}

# Debian 12 and Ubuntu 22.04 have an older Python: uv then fetches a build of CPython from its publisher, by checksum.
fetch_python() {
  say "fetching Python 3.13 (the distribution has $(python3 --version 2>&1))"
  local uv=.python/uv
  python3 -m venv --clear "$uv" &&
    "$uv/bin/python" -m pip install --quiet --require-hashes --requirement requirements/uv.txt &&
    "$uv/bin/uv" python install --no-bin --install-dir "$PWD/.python" 3.13
}

python_environment() {
  local wanted python
  # Of pyproject.toml what decides on the installation: the tables above those of the tools.
  wanted=$({ cat requirements/*.txt && sed '/^\[tool\.ruff/,$d' pyproject.toml; } | sha256sum | cut -d' ' -f1)
  [ "$(cat .venv/.requirements.sha256 2>/dev/null)" = "$wanted" ] && [ -x .venv/bin/deep ] && return
  python=$(find_python) || { install_python; python=$(find_python); } || { fetch_python && python=$(find_python); } ||
    die "no Python of version 3.12 or newer (found: $(python3 --version 2>&1 || true))" \
      "install Python 3.12 or newer with its venv module (Debian 13, Ubuntu 24.04 and newer have it), then run this again"
  say "creating the Python environment with $("$python" --version)"
  rm -f .venv/.requirements.sha256
  "$python" -m venv --clear .venv
  .venv/bin/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt
  .venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements/dev.txt requirements/uv.txt
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
  echo "$wanted" >.venv/.requirements.sha256
}

# Ansible finds the checkout as the installed collection deephdc.testbed.
collection_link() {
  local parent=.ansible/collections/ansible_collections/deephdc
  mkdir -p "$parent"
  ln -sfn ../../../.. "$parent/testbed"
}

# The tests show them what is rendered for them. They are unpacked and not installed: a machine has no use for such services.
unpacked_programs() {
  .venv/bin/python tools/unpacked_programs.py || say "no nginx, MariaDB or PostgreSQL: checks by them will be skipped"
}

system_packages "$@"
python_environment
collection_link
[ "${1:-}" != test ] || unpacked_programs
