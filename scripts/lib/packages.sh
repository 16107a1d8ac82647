# shellcheck shell=bash
# Debian packages and the Swift toolchain, for scripts/demo and scripts/test.

# Ordinary users do not have these in their path on Debian, and mkfs, debugfs and losetup are there.
PATH=$PATH:/usr/sbin:/sbin

# What building the programs takes besides Swift itself.
# shellcheck disable=SC2034 # used by those who read this file
build_packages=(
  g++ git libaio-dev libbz2-dev libdeflate-dev libexpat1-dev libfuse3-dev libgcrypt20-dev libisal-dev liblzma-dev
  libseccomp-dev liburing-dev libzstd-dev pkg-config zlib1g-dev
)

# Prints words for people on standard error.
say() { printf '%s\n' "$*" >&2; }

stop() {
  say "${0##*/}: $*"
  exit 1
}

# Runs a command as root: through sudo when needed.
as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -- "$@"
  else
    stop "this needs root, and there is no sudo: $*"
  fi
}

is_installed() {
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Installs those of the named packages that are missing. The package lists are fetched only when there are
# none, or when they are too old to install from.
install_missing() {
  local name missing=()
  command -v dpkg-query >/dev/null \
    || { say "This is no Debian: the counterparts of these packages must be there: $*"; return; }
  for name in "$@"; do
    is_installed "$name" || missing+=("$name")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  say "Installing: ${missing[*]}"
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}")
  if apt-cache show "${missing[@]}" >/dev/null 2>&1 && as_root "${install[@]}" >&2; then
    return 0
  fi
  as_root apt-get update >&2 || stop "apt-get update failed"
  as_root "${install[@]}" >&2 || stop "these packages could not be installed: ${missing[*]}"
}

# Packages that the toolchain from swift.org needs to run and to link, where they are not there yet.
toolchain_packages() {
  local swift libraries debian
  swift=$(readlink -f "$(command -v swift)")
  libraries=$(ldd "${swift%/*}"/swift-{build,frontend} 2>/dev/null || true)
  if [[ $libraries == *'not found'* ]]; then
    printf '%s\n' libcurl4-openssl-dev libedit-dev libncurses-dev libsqlite3-dev libxml2-dev tzdata
  fi
  if ! command -v ld.gold >/dev/null; then
    # shellcheck source=/dev/null
    debian=$(. /etc/os-release && printf '%s' "${VERSION_ID:-13}")
    if [[ ${debian%%.*} -ge 13 ]]; then echo binutils-gold; else echo binutils; fi
  fi
}

# Stops with a clear sentence unless Swift is there, runs and is new enough; installs what it lacks.
require_swift() {
  local needed version
  command -v swift >/dev/null || stop "Swift is missing: install 6.3 from https://www.swift.org/install/linux (README.md)"
  mapfile -t needed < <(toolchain_packages)
  [[ ${#needed[@]} -eq 0 ]] || install_missing "${needed[@]}"
  version=$(swift --version 2>&1 | sed -nE 's/.*Swift version ([0-9]+\.[0-9]+).*/\1/p' || true)
  [[ -n $version ]] || stop "swift is there, but 'swift --version' says nothing that could be understood"
  if [[ $(printf '%s\n' 6.2 "$version" | sort --version-sort | head -n 1) != 6.2 ]]; then
    stop "Swift $version is too old: 6.2 is the oldest that reads Package.swift, 6.3 is what the tests run with"
  fi
}

# The release programs, with Swift's runtime linked in.
# shellcheck disable=SC2034 # as above
release_build=(swift build --configuration release --static-swift-stdlib)
