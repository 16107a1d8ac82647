# shellcheck shell=bash
# Tests of scripts/demo and scripts/install, for scripts/test.
# shellcheck disable=SC2154 # `work` is the folder of scripts/test that they may fill

# Two partitions, an ext4 in the second: its file must be listed.
demo_with_partitions() {
  local disk=$work/partitioned.raw output=$work/partitioned.txt
  mkdir "$work/partition-files"
  echo found >"$work/partition-files/in-the-second-partition"
  truncate --size=80M "$disk"
  mkfs.ext4 -q -d "$work/partition-files" -E offset=$((32 * 1024 * 1024)) "$disk" 40M
  # An MBR: two entries of type 0x83, at sectors 2048 and 65536, and the signature.
  printf '\0\0\0\0\x83\0\0\0\0\x08\0\0\0\x80\0\0\0\0\0\0\x83\0\0\0\0\0\x01\0\0\x40\x01\0' \
    | dd of="$disk" bs=1 seek=446 conv=notrunc status=none
  printf '\x55\xaa' | dd of="$disk" bs=1 seek=510 conv=notrunc status=none
  qemu-img convert -f raw -O qcow2 "$disk" "$work/partitioned.qcow2"
  scripts/demo "$work/partitioned.qcow2" >"$output" 2>&1 || { cat "$output"; return 1; }
  # Loop mounts are root's alone; without them the partitions' contents are not shown.
  [[ $EUID -ne 0 ]] || grep --quiet in-the-second-partition "$output" || { cat "$output"; return 1; }
}

# Ended by a signal at two moments: the image mounted, and the guest's file system mounted out of it.
demo_interrupted() {
  local point demo status
  for point in mnt guest; do
    [[ $point == mnt || $EUID -eq 0 ]] || continue
    scripts/demo >"$work/interrupted.txt" 2>&1 &
    demo=$!
    until awk -v "w=$work/imgfs-demo" -v "p=/$point" \
      'index($5, w) == 1 && substr($5, length($5) - length(p) + 1) == p { found = 1 } END { exit !found }' \
      /proc/self/mountinfo; do
      kill -0 "$demo" 2>/dev/null || { cat "$work/interrupted.txt"; return 1; }
      sleep 0.01
    done
    kill -TERM "$demo"
    status=0
    wait "$demo" || status=$?
    [[ $status -eq 143 ]] || { cat "$work/interrupted.txt"; echo "exit status $status"; return 1; }
    if compgen -G "$work/imgfs-demo*" || grep --fixed-strings "$work/imgfs-demo" /proc/self/mountinfo; then
      return 1
    fi
  done
}

# Installed into a folder: the programs run, the pages and completions are there, the link leads to imgfs.
installed_programs() {
  local root=$work/installed file
  DESTDIR=$root scripts/install /usr || return 1
  "$root/usr/bin/qemu-img" --version && "$root/usr/bin/imgfs" --version || return 1
  [[ $(readlink "$root/sbin/mount.imgfs") == /usr/bin/imgfs ]] || return 1
  for file in man/man1 bash-completion/completions zsh/site-functions fish/vendor_completions.d; do
    [[ $(find "$root/usr/share/$file" -type f -size +0 | wc -l) -eq 2 ]] || { echo "$file"; return 1; }
  done
}
