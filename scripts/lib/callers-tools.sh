# shellcheck shell=bash
# cloud-utils and libguestfs, for scripts/callers.
# shellcheck disable=SC2034,SC2154 # `work`, `kernel`, `modules`, `made_folder` and more are of scripts/callers

tools_part() {
  # libguestfs makes its appliance from the machine's packages and a kernel; it wants the modules' folder.
  export LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg LIBGUESTFS_CACHEDIR=$work
  export SUPERMIN_KERNEL=$kernel SUPERMIN_MODULES=$modules
  depmod --basedir "${modules%/lib/modules/*}" "${modules##*/}"
  if [[ ! -e /lib/modules ]]; then
    mkdir /lib/modules
    made_folder=/lib/modules
  fi
  both_run cloud
  both_run guestfs
}

# A configuration disk for cloud-init, in several formats; and an image that is mounted for a command.
cloud_session() {
  local place=$work/place format
  printf '#cloud-config\npassword: open\n' >"$place/user-data"
  printf 'instance-id: one\nlocal-hostname: guest\n' >"$place/meta-data"
  for format in raw qcow2 qed vmdk vdi vpc vhdx; do
    step "cloud-localds, $format" \
      cloud-localds --disk-format "$format" "$place/seed.$format" "$place/user-data" "$place/meta-data"
    step "cloud-localds, $format: the files in it" iso_files "$place/seed.$format" "$format"
  done
  step "cloud-localds, a format that is none: refused" \
    cloud-localds --disk-format none "$place/seed.none" "$place/user-data"
  mkdir "$place/files"
  cp "$place"/*-data "$place/files"
  mkfs.ext4 -q -d "$place/files" "$place/disk.raw" 8M 2>"$work/log"
  # shellcheck disable=SC2016 # the shell below sets the name
  step "mount-image-callback" mount-image-callback "$place/disk.raw" -- sh -c 'ls "$MOUNTPOINT"'
}

# The files of an ISO in an image; what is around them has the time of day in it.
iso_files() {
  local name
  "$judge" check -q -f "$2" "$1" || [[ $? -eq 63 ]] || return
  "$judge" convert -f "$2" -O raw "$1" "$work/seed.iso" || return
  for name in user-data meta-data; do isoinfo -J -x "/$name" -i "$work/seed.iso"; done
  rm "$work/seed.iso"
}

guestfs_session() {
  local place=$work/place
  mkdir "$place/files"
  cp "$project/README.md" "$project/LICENSE" "$place/files"
  cat >"$place/commands" <<COMMANDS
disk-create $place/plain.raw raw 10M
disk-create $place/plain.qcow2 qcow2 10M
disk-create $place/options.qcow2 qcow2 10M preallocation:metadata compat:0.10 clustersize:4096
disk-create $place/over.qcow2 qcow2 -1 backingfile:$place/plain.qcow2 backingformat:qcow2
disk-format $place/over.qcow2
disk-virtual-size $place/over.qcow2
disk-has-backing-file $place/over.qcow2
disk-has-backing-file $place/plain.qcow2
COMMANDS
  step "guestfish" guestfish --file "$place/commands"
  look "guestfish: options" "$place/options.qcow2" qcow2
  look "guestfish: a backing file" "$place/over.qcow2" qcow2
  step "virt-make-fs" virt-make-fs --format=qcow2 --type=ext4 --size=+10M "$place/files" "$place/made.qcow2"
  step "virt-make-fs: the image is sound" "$judge" check -q -f qcow2 "$place/made.qcow2"
  step "virt-sparsify" virt-sparsify --quiet --compress --convert qcow2 -o compat=0.10 \
    "$place/made.qcow2" "$place/less.qcow2"
  step "virt-sparsify: the image" info_at -f qcow2 "$place/less.qcow2"
  step "virt-sparsify: the image is sound" "$judge" check -q -f qcow2 "$place/less.qcow2"
  step "virt-make-fs: the files in it" guestfish --ro --format=qcow2 -a "$place/less.qcow2" -m /dev/sda \
    download /README.md "$place/README.md" : download /LICENSE "$place/LICENSE"
  step "the same files" cmp "$place/README.md" "$project/README.md"
}
