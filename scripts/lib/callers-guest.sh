# shellcheck shell=bash
# A Linux in qemu-system-x86_64, for scripts/callers: its disks are images that our qemu-img made and changed.
# shellcheck disable=SC2154 # `work`, `project`, `kernel`, `modules` and `judge` are those of scripts/callers

guest_part() {
  ln -sfn "$work/sides/ours" "$work/side"
  place=$work/guest
  mkdir "$place"
  make_initramfs
  guest_reads_and_writes
  guest_discards_its_writes
  monitor_takes_snapshots
  monitor_commits
  guest_holds_its_image
}

# What the guest runs: it prints the size and the sum of every disk, and after a write to each of them again.
make_initramfs() {
  local root=$place/initramfs name
  mkdir -p "$root"/{bin,dev,proc,sys}
  cp /bin/busybox "$root/bin/busybox"
  for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
    cp "$(find "$modules" -name "$name.ko*")" "$root/"
    echo "insmod /$name.ko" >>"$root/load"
  done
  cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
. /load
sums() {
  for disk in /sys/block/vd*; do
    device=/dev/${disk##*/}
    echo "$1 $(cat $disk/serial) $(blockdev --getsize64 $device) $(sha256sum <$device)"
  done
}
sums before
if grep -q write /proc/cmdline; then
  for disk in /sys/block/vd*; do
    device=/dev/${disk##*/}
    # Text over what was there, across clusters and where nothing was yet; zeros; and the last sectors.
    yes "the guest wrote this on $device" | dd of=$device bs=1k seek=700 count=900 conv=notrunc
    yes "and this" | dd of=$device bs=4k seek=2500 count=90 conv=notrunc
    dd if=/dev/zero of=$device bs=64k seek=36 count=5 conv=notrunc
    yes "the end" | dd of=$device bs=512 seek=$(($(blockdev --getsz $device) - 3)) count=3 conv=notrunc
  done 2>/dev/null
  sync
  sums after
fi
echo "the guest is done"
poweroff -f
INIT
  chmod +x "$root/init"
  (cd "$root" && find . | cpio --quiet --create --format=newc | gzip --fast) >"$place/initrd"
}

# Boots the guest: `$1`: what it is to do, `$2`: the file for what it says, the rest: QEMU's words for the disks.
boot() {
  local words=$1 output=$2
  shift 2
  timeout --kill-after=5 "$step_seconds" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
    -machine pc,accel=tcg -m 256 -kernel "$kernel" -initrd "$place/initrd" \
    -append "console=ttyS0 quiet panic=-1 $words" -serial "file:$output" "$@"
  grep --quiet 'the guest is done' "$output"
}

# QEMU's words for the disk of number `$1`: `$2`: a name, `$3`: its options.
disk() { printf '%s\n' -drive "if=none,id=d$1,$3" -device "virtio-blk-pci,drive=d$1,serial=$2"; }

# The sum that the guest printed: `$1`: when, `$2`: the disk's name, `$3`: the file.
guest_sum() { tr --delete '\r' <"$3" | awk -v w="$1" -v n="$2" '$1 == w && $2 == n { print $4 }'; }

# The sum of an image's disk, as `$1` reads it; the rest: words for convert.
image_sum() {
  local program=$1
  shift
  "$program" convert -O raw "$@" "$place/flat.raw" || return
  sha256sum <"$place/flat.raw" | cut --delimiter=' ' --fields=1
  rm "$place/flat.raw"
}

# Makes an image for the guest: `$1`: its name, `$2`: its format, `$3`: its file, the rest: the last command for it.
image() {
  names+=("$1") formats[$1]=$2 files[$1]=$place/$3
  expect "guest: $1 is made" "${@:4}"
}

# The source, in every format and kind of image, and an empty one.
make_images() {
  local kind from=(convert -f raw -O)
  head --bytes=3M /dev/urandom >source.raw
  truncate --size=9M source.raw
  head --bytes=1M /dev/urandom >>source.raw
  truncate --size=16M source.raw
  for kind in raw qcow2 qcow qed vmdk vdi vhdx parallels; do
    image "$kind" "$kind" "a.$kind" qemu-img "${from[@]}" "$kind" source.raw "a.$kind"
  done
  image vpc vpc a.vpc qemu-img "${from[@]}" vpc -o force_size source.raw a.vpc
  image vpc-fixed vpc b.vpc qemu-img "${from[@]}" vpc -o subformat=fixed,force_size source.raw b.vpc
  image vhdx-fixed vhdx b.vhdx qemu-img "${from[@]}" vhdx -o subformat=fixed source.raw b.vhdx
  image vdi-static vdi b.vdi qemu-img "${from[@]}" vdi -o static=on source.raw b.vdi
  image vmdk-flat vmdk b.vmdk qemu-img "${from[@]}" vmdk -o subformat=twoGbMaxExtentFlat source.raw b.vmdk
  image compressed qcow2 b.qcow2 qemu-img "${from[@]}" qcow2 -c source.raw b.qcow2
  image zstd qcow2 c.qcow2 \
    qemu-img "${from[@]}" qcow2 -c -o compression_type=zstd,cluster_size=4k source.raw c.qcow2
  image extended-l2 qcow2 d.qcow2 \
    qemu-img "${from[@]}" qcow2 -o extended_l2=on,preallocation=metadata source.raw d.qcow2
  image data-file qcow2 e.qcow2 \
    qemu-img "${from[@]}" qcow2 -o "data_file=$place/e.data,lazy_refcounts=on" source.raw e.qcow2
  image dd qcow2 f.qcow2 qemu-img dd -f raw -O qcow2 bs=64k if=source.raw of=f.qcow2
  image empty qcow2 empty.qcow2 qemu-img create -f qcow2 empty.qcow2 16M
}

# Chains that were rebased and committed, images that were resized, amended and set back.
make_changed_images() {
  local name
  for name in base lower shrunk back; do cp a.qcow2 "$name.qcow2"; done
  cp source.raw lower.raw
  cp a.vmdk lower.vmdk
  qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 middle.qcow2
  qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2
  "$qemu_io" -f qcow2 -c 'write -q -P 9 5M 1M' -c 'write -q -z 1M 300k' middle.qcow2
  "$qemu_io" -f qcow2 -c 'write -q -P 8 5500k 1M' top.qcow2
  image rebased qcow2 top.qcow2 qemu-img rebase -f qcow2 -F qcow2 -b base.qcow2 top.qcow2
  image over-raw qed over.qed qemu-img create -f qed -b lower.raw -F raw over.qed
  image over-vmdk qcow2 over.qcow2 qemu-img create -f qcow2 -b lower.vmdk -F vmdk over.qcow2

  qemu-img create -q -f qcow2 -b lower.qcow2 -F qcow2 upper.qcow2
  "$qemu_io" -f qcow2 -c 'write -q -P 7 100k 5M' upper.qcow2
  image committed qcow2 lower.qcow2 qemu-img commit -d -f qcow2 upper.qcow2

  qemu-img convert -f raw -O qcow2 -o compat=0.10 source.raw amended.qcow2
  qemu-img resize -q -f qcow2 amended.qcow2 +9M
  image grown-amended qcow2 amended.qcow2 qemu-img amend -f qcow2 -o compat=1.1 amended.qcow2
  image shrunk qcow2 shrunk.qcow2 qemu-img resize --shrink -f qcow2 shrunk.qcow2 12M

  qemu-img snapshot -c before back.qcow2
  "$qemu_io" -f qcow2 -c 'write -q -P 6 2M 8M' back.qcow2
  image set-back qcow2 back.qcow2 qemu-img snapshot -a before back.qcow2
}

# Every disk must be what the judge makes of the image before the guest starts, and what the guest left afterwards.
guest_reads_and_writes() {
  local name words=() number=0 output=$place/first
  names=()
  declare -gA formats=() files=() sums=()
  cd "$place" || return
  make_images
  make_changed_images
  cd "$project" || return
  for name in "${names[@]}"; do
    sums[$name]=$(image_sum "$judge" -f "${formats[$name]}" "${files[$name]}")
    mapfile -t -O "${#words[@]}" words < <(disk "$number" "$name" "format=${formats[$name]},file=${files[$name]}")
    number=$((number + 1))
  done
  expect "guest: $number disks, read and written" boot write "$output" "${words[@]}"
  for name in "${names[@]}"; do
    expect "guest: read $name" test "$(guest_sum before "$name" "$output")" = "${sums[$name]}"
    expect "guest: wrote $name" holds_what_the_guest_left "$name" "$output"
  done
  guest_reads_what_became_of_it "$output"
}

holds_what_the_guest_left() {
  local name=$1 program format=${formats[$1]} file=${files[$1]} sum
  sum=$(guest_sum after "$name" "$2")
  [[ -n $sum && $sum != "${sums[$name]}" ]] || { echo "the guest has written nothing: '$sum'"; return 1; }
  for program in "$judge" qemu-img; do
    [[ $(image_sum "$program" -f "$format" "$file") == "$sum" ]] || { echo "$program: another content"; return 1; }
    # Some formats have no check: 63.
    "$program" check -f "$format" "$file" || [[ $? -eq 63 ]] || return 1
  done
}

# What QEMU wrote is converted once more, chains are committed and flattened, and a second guest sums it all.
guest_reads_what_became_of_it() {
  local name words=() number=0 output=$place/second target targets=(qcow2 vmdk vdi vhdx qed raw)
  for name in "${names[@]}"; do
    sums[$name]=$(guest_sum after "$name" "$1")
    target=${targets[number % ${#targets[@]}]}
    case $name in
      rebased) expect "guest: flattened" qemu-img rebase -f qcow2 -b '' "${files[$name]}" ;;
      over-raw)
        expect "guest: committed" qemu-img commit -d -f qed "${files[$name]}"
        formats[$name]=raw files[$name]=$place/lower.raw
        ;;
      *)
        expect "guest: $name to $target" \
          qemu-img convert -f "${formats[$name]}" -O "$target" "${files[$name]}" "$place/again.$name"
        formats[$name]=$target files[$name]=$place/again.$name
        ;;
    esac
    mapfile -t -O "${#words[@]}" words < <(
      disk "$number" "$name" "read-only=on,format=${formats[$name]},file=${files[$name]}"
    )
    number=$((number + 1))
  done
  expect "guest: $number disks, read again" boot read "$output" "${words[@]}"
  for name in "${names[@]}"; do
    expect "guest: read $name again" test "$(guest_sum before "$name" "$output")" = "${sums[$name]}"
  done
}

# With -snapshot QEMU writes to a file of its own: our image must not change.
guest_discards_its_writes() {
  local words image=$place/kept.qcow2 sum
  qemu-img convert -f raw -O qcow2 "$place/source.raw" "$image"
  sum=$(sha256sum <"$image")
  mapfile -t words < <(disk 0 kept "format=qcow2,file=$image")
  expect "guest: -snapshot" boot write "$place/kept" -snapshot "${words[@]}"
  expect "guest: -snapshot wrote into another file" test "$(guest_sum before kept "$place/kept")" != \
    "$(guest_sum after kept "$place/kept")"
  expect "guest: -snapshot left the image as it was" test "$(sha256sum <"$image")" = "$sum"
}

# Runs commands of QEMU's monitor, each an argument after the file for the answers, with the disk of `$1`.
monitor() {
  local image=$1 answers=$2
  shift 2
  printf '%s\n' "$@" quit | timeout --kill-after=5 "$step_seconds" qemu-system-x86_64 -nodefaults -no-user-config \
    -display none -machine pc,accel=tcg -m 32 -S -monitor stdio \
    -drive "if=none,id=disk,format=qcow2,file=$image" -device virtio-blk-pci,drive=disk >"$answers" 2>&1
  cat "$answers"
  ! grep --ignore-case --quiet error "$answers"
}

# A machine's state in our image; our snapshots beside QEMU's; and the state taken up again.
monitor_takes_snapshots() {
  local image=$place/state.qcow2 sum
  qemu-img convert -f raw -O qcow2 "$place/source.raw" "$image"
  sum=$(image_sum "$judge" -f qcow2 "$image")
  expect "monitor: savevm" \
    monitor "$image" "$place/answers" 'savevm first' 'qemu-io disk "write -P 5 1M 2M"' 'savevm second'
  expect "monitor: our list is the judge's" same_snapshots "$image"
  expect "monitor: our check is the judge's" same_answers check -f qcow2 "$image"
  expect "monitor: a snapshot of ours" qemu-img snapshot -c ours "$image"
  expect "monitor: a state's disk" test "$(image_sum qemu-img -f qcow2 -l first "$image")" = "$sum"
  expect "monitor: loadvm" monitor "$image" "$place/answers" 'loadvm first' 'info snapshots' 'delvm second'
  expect "monitor: the disk is the first again" test "$(image_sum qemu-img -f qcow2 "$image")" = "$sum"
  expect "monitor: we go to ours" qemu-img snapshot -a ours "$image"
  expect "monitor: we delete a state" qemu-img snapshot -d first "$image"
  expect "monitor: the list is the judge's again" same_snapshots "$image"
  expect "monitor: nothing is damaged" "$judge" check -f qcow2 "$image"
}

# A verb of both programs on one image prints the same, spaces aside.
same_answers() { diff --ignore-all-space <("$judge" "$@" 2>&1) <(qemu-img "$@" 2>&1); }

# Both programs find the same snapshots, with all that is known of each.
same_snapshots() {
  local program
  for program in "$judge" qemu-img; do
    "$program" info --output=json -f qcow2 "$1" \
      | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["snapshots"], indent=1, sort_keys=True))'
  done >"$place/snapshots"
  cat "$place/snapshots"
  diff <(sed "1,/^]/d" "$place/snapshots") <(sed "/^]/q" "$place/snapshots")
}

# QEMU commits, and takes a snapshot into a new file, over images of ours; we go on with what it made.
monitor_commits() {
  local lower=$place/under.qcow2 upper=$place/above.qcow2 newest=$place/newest.qcow2 sum
  qemu-img convert -f raw -O qcow2 "$place/source.raw" "$lower"
  qemu-img create -q -f qcow2 -b "$lower" -F qcow2 "$upper"
  expect "monitor: commit" monitor "$upper" "$place/answers" 'qemu-io disk "write -P 3 2M 3M"' 'commit disk'
  expect "monitor: what was committed" qemu-img compare -f qcow2 -F qcow2 "$lower" "$upper"
  expect "monitor: snapshot_blkdev" monitor "$upper" "$place/answers" "snapshot_blkdev disk $newest qcow2" \
    'qemu-io disk "write -P 4 4M 3M"'
  sum=$(image_sum "$judge" -f qcow2 "$newest")
  expect "monitor: we commit it down" qemu-img commit -f qcow2 -b "$lower" "$newest"
  expect "monitor: all is in the lowest" test "$(image_sum qemu-img -f qcow2 "$lower")" = "$sum"
  expect "monitor: the lowest is sound" "$judge" check -f qcow2 "$lower"
}

# While a machine has an image open our verbs keep out as the judge's do, and look on with -U; and while our convert
# writes one, no machine starts with it.
guest_holds_its_image() {
  local held=$place/held.qcow2 verb machine=(qemu-system-x86_64 -nodefaults -no-user-config -display none -S -m 32
    -machine 'pc,accel=tcg' -daemonize -device 'virtio-blk-pci,drive=disk')
  qemu-img convert -f raw -O qcow2 "$place/source.raw" "$held"
  qemu-img create -q -f qcow2 -b "$held" -F qcow2 "$place/holder.qcow2"
  expect "locks: a machine runs" "${machine[@]}" -pidfile "$place/pid" -drive "if=none,id=disk,format=qcow2,file=$held"
  children+=("$(cat "$place/pid")")
  for verb in info check map measure snapshot\ -l convert\ -O\ raw compare amend\ -o\ compat=0.10 resize bitmap\ --add \
    rebase\ -u\ -F\ raw\ -b\ none commit snapshot\ -c\ new dd; do
    expect "locks: $verb is refused" same_refusal "$verb" "$held"
  done
  for verb in check map snapshot\ -l; do
    # shellcheck disable=SC2086 # a verb and its options
    expect "locks: $verb -U" same_answers $verb -U "$held"
  done
  expect "locks: convert -U" qemu-img convert -U -f qcow2 -O raw "$held" "$place/copy.raw"
  expect "locks: what was read" cmp "$place/copy.raw" "$place/source.raw"
  expect "locks: a backing file that is written elsewhere" same_refusal info\ --backing-chain "$place/holder.qcow2"
  end_children
  qemu-img convert -r 2M -f raw -O qcow2 "$place/source.raw" "$held.new" &
  children+=($!)
  until [[ -s $held.new ]]; do sleep 0.1; done
  expect "locks: a machine keeps out of our convert" keeps_out "$held.new" "${machine[@]}"
  end_children
}

# A verb on an image that is in use: the same refusal from both, and no change.
same_refusal() {
  local verb=$1 image=$2 program sum words=() answers=()
  sum=$(sha256sum <"$image")
  case $verb in
    convert*) words=("$place/refused.raw") ;;
    compare) words=("$place/source.raw") ;;
    resize) words=(32M) ;;
    bitmap*) words=(name) ;;
    dd) verb="dd bs=1M if=$image of=$place/refused.raw" image= ;;
  esac
  for program in "$judge" qemu-img; do
    # shellcheck disable=SC2086 # as above
    answers+=("$("$program" $verb ${image:+"$image"} "${words[@]}" 2>&1; echo "exit status $?")")
  done
  diff <(printf '%s\n' "${answers[0]}") <(printf '%s\n' "${answers[1]}") || return
  echo "${answers[1]}"
  [[ ${answers[1]} == *'Is another process using the image'* ]] || return
  [[ $sum == "$(sha256sum <"$2")" ]]
}

keeps_out() {
  local image=$1
  shift
  ! "$@" -pidfile "$place/pid" -drive "if=none,id=disk,format=qcow2,file=$image" >"$place/answers" 2>&1 || return
  cat "$place/answers"
  grep --quiet 'Is another process using the image' "$place/answers"
}
