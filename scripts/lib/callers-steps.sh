# shellcheck shell=bash
# Sessions of scripts/callers: steps that run twice, with our qemu-img and with Debian's, and are compared.
# shellcheck disable=SC2034,SC2154 # `work` is the folder of scripts/callers; some names are for its other parts

judge=/usr/bin/qemu-img
# The judge's own way to write into an image.
qemu_io=/usr/bin/qemu-io
passed=0 failed=0
# How long a command may take.
step_seconds=300

# Puts a `qemu-img` first in PATH that writes down how it was called and becomes the chosen program. `$1`: the
# folder of ours.
place_programs() {
  mkdir "$work/bin" "$work/sides"
  ln -s "$1" "$work/sides/ours"
  ln -s "${judge%/*}" "$work/sides/judge"
  cat >"$work/bin/qemu-img" <<PROGRAM
#!/bin/sh
{ printf qemu-img; printf ' %s' "\$@"; echo; } >>'$work/calls'
# Debian's clock fails now and then while it measures how fast keys are derived.
case "\$*" in *luks* | *encrypt*)
  for attempt in 1 2 3 4 5 6 7 8 9; do
    status=0
    '$work/side/qemu-img' "\$@" 2>'$work/clock' || status=\$?
    grep --quiet 'accurate CPU usage' '$work/clock' || break
  done
  cat '$work/clock' >&2
  exit \$status
esac
exec '$work/side/qemu-img' "\$@"
PROGRAM
  chmod 755 "$work" "$work/bin" "$work/bin/qemu-img"
  PATH=$work/bin:$PATH
}

# Unpacks Debian's kernel for clouds, once; it is not installed. Sets `kernel` and `modules`.
fetch_kernel() {
  local place=$project/.build/callers-kernel package
  package=$(apt-cache depends --important linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
  if [[ ! -e $place/$package ]]; then
    rm -rf "$place"
    mkdir -p "$place"
    say "Fetching $package"
    # As root, into a folder that apt's own user need not reach.
    (cd "$place" && apt-get --option APT::Sandbox::User=root download "$package") >&2
    dpkg --extract "$place/$package"_*.deb "$place"
    rm "$place/$package"_*.deb
    touch "$place/$package"
  fi
  kernel=$(compgen -G "$place/boot/vmlinuz-*") modules=$(compgen -G "$place/lib/modules/*")
}

report() {
  local status=$1
  shift
  if [[ $status -eq 0 ]]; then
    printf '✔ %s\n' "$*"
    passed=$((passed + 1))
  else
    printf '✘ %s\n' "$*"
    failed=$((failed + 1))
  fi
}

# Runs a command with a limit of time, and functions of this script as they are. It runs beside the shell, so
# that a signal to the script is acted on at once.
limited() {
  local status=0 limit=(timeout --kill-after=5 "$step_seconds")
  if declare -F "$1" >/dev/null; then limit=(); fi
  "${limit[@]}" "$@" </dev/null &
  running=$!
  wait "$running" || status=$?
  running=''
  return "$status"
}

# One check that needs no comparison with the judge: what it is called, then a command.
expect() {
  local name=$1 status=0
  shift
  limited "$@" >"$work/log" 2>&1 || status=$?
  [[ $status -eq 0 ]] || { printf '$ %s\n' "$*"; cat "$work/log"; echo "exit status $status"; }
  report "$status" "$name"
}

# Without what differs from run to run, or says how an image lies on the host's disk.
normalise() {
  sed --regexp-extended \
    -e 's/("(iters|master-key-iters|cid|parent-cid|date-n?sec)": )[0-9]+/\1NUMBER/' \
    -e 's/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/UUID/g' \
    -e 's/(secret\.|localds\.|sparsify|guestfs)[[:alnum:]]{6,10}/\1RANDOM/g' \
    -e 's/^(Allocation: +).*/\1SIZE/; s/(<(allocation|physical)[^>]*>)[0-9]+/\1SIZE/' \
    -e 's/(<[amc]time>|<btime>)[0-9.]+/\1TIME/' \
    -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}( [+-][0-9]{4})?/DATE/'
}

# Runs a session (a function) with both programs: `$1` is its name. Everything it makes is in `$work/place`,
# the same path for both; its steps are kept in `$work/NAME/SIDE`.
both_run() {
  local name=$1 side
  for side in judge ours; do
    ln -sfn "$work/sides/$side" "$work/side"
    rm -rf --one-file-system "$work/place"
    mkdir -p "$work/place" "$work/$name/$side"
    steps=$work/$name/$side step_count=0
    "${name}_session"
  done
  compare_steps "$name"
}

# One step: what it is called, then a command. What it prints, how it ends and how it called qemu-img is kept.
step() {
  local name=$1 status=0
  shift
  step_count=$((step_count + 1))
  : >"$work/calls"
  limited "$@" >"$work/log" 2>&1 || status=$?
  {
    printf '$ %s\n' "$*"
    cat "$work/log"
    printf 'exit status %s\n' "$status"
    sed 's/^/called: /' "$work/calls"
  } | normalise >"$steps/$(printf '%03d %s' "$step_count" "$name")"
}

# A step that looks at an image with the judge: what format it is, whether it is sound, and what the disk holds.
# `$2`: the image; `$3`: its format; the rest: words before the name, for both `info` and `convert`.
look() {
  local name=$1 image=$2 format=$3
  shift 3
  step "$name" look_at "$image" "$format" "$@"
}

look_at() {
  local image=$1 format=$2 status=0 place=(-f "$2" "$1")
  shift 2
  if [[ $# -gt 0 ]]; then place=("$@"); fi
  info_at "${place[@]}"
  if [[ $# -eq 0 ]]; then "$judge" check -q -f "$format" "$image" || status=$?; fi
  echo "check: $status"
  "$judge" convert -O raw "${place[@]}" "$work/flat.raw"
  stat --format='%s bytes' "$work/flat.raw"
  sha256sum <"$work/flat.raw"
  rm "$work/flat.raw"
}
# What the judge says of an image, without how much of it is on the host's disk.
info_at() { "$judge" info --output=json "$@" | grep -v -e actual-size -e allocated; }

# Every step must have gone the same way with both; and well, unless its name says that it is refused.
compare_steps() {
  local name=$1 file title status calls
  for file in "$work/$name/judge"/*; do
    title=${file##*/} status=0
    diff --label "$title with Debian's qemu-img" --label "$title with ours" --unified=1 \
      "$file" "$work/$name/ours/$title" || status=1
    case $title in
      *refused*) ! grep --quiet '^exit status 0$' "$file" || { cat "$file"; status=1; } ;;
      *) grep --quiet '^exit status 0$' "$file" || { cat "$file"; status=1; } ;;
    esac
    report "$status" "$name: ${title#* }"
  done
  calls=$(cat "$work/$name/ours"/* | grep --count '^called: qemu-img') || true
  report $((calls > 0 ? 0 : 1)) "$name: our qemu-img was called $calls times"
}
