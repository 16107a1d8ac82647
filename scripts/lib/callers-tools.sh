# shellcheck shell=bash
# cloud-utils, libguestfs, and OpenStack's way, for scripts/callers.
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
  both_run openstack
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

# What OpenStack's services call to keep, convert and resize images of users, by OpenStack's own launcher, with limits of
# memory and time; `info` is read by OpenStack's own parser. `convert` has 4 GiB: Debian's aborts now and then with 1.
openstack_session() {
  local place=$work/place format limits=(/usr/bin/python3 -m oslo_concurrency.prlimit --as=4294967296 --cpu=30 --)
  seq 1 20000000 2>"$work/log" | head --bytes=64M >"$place/base.raw" || true
  for format in raw qcow2 vmdk vdi vpc vhdx; do
    step "convert to $format" "${limits[@]}" \
      qemu-img convert -t none -O "$format" -f raw "$place/base.raw" "$place/image.$format"
    step "info of $format" openstack_info "$place/image.$format"
    step "convert from $format" "${limits[@]}" \
      qemu-img convert -t none -W -O raw -f "$format" "$place/image.$format" "$place/back.raw"
    step "the same bytes, $format" cmp --bytes=$((64 << 20)) "$place/base.raw" "$place/back.raw"
  done
  step "convert, compressed" "${limits[@]}" \
    qemu-img convert -c -m 8 -O qcow2 -f raw "$place/base.raw" "$place/small.qcow2"
  look "compressed" "$place/small.qcow2" qcow2
  step "create over a base" qemu-img create -f qcow2 \
    -o "backing_file=$place/image.qcow2,backing_fmt=qcow2,cluster_size=2097152" "$place/over.qcow2" 80M
  step "info of an overlay" openstack_info "$place/over.qcow2"
  step "snapshot" qemu-img snapshot -c one "$place/over.qcow2"
  step "info with a snapshot" openstack_info "$place/over.qcow2"
  step "snapshot deleted" qemu-img snapshot -d one "$place/over.qcow2"
  step "resize" qemu-img resize -f qcow2 "$place/over.qcow2" 1G
  step "rebase" qemu-img rebase -u -b "$place/base.raw" -F raw -f qcow2 "$place/over.qcow2"
  step "info after rebase" openstack_info "$place/over.qcow2"
  step "flatten" "${limits[@]}" qemu-img rebase -b '' -f qcow2 "$place/over.qcow2"
  look "flattened" "$place/over.qcow2" qcow2
  qemu-img create -q -f qcow2 -b "$place/image.raw" -F raw "$place/change.qcow2" 2>"$work/log"
  "$qemu_io" -f qcow2 -c 'write -P 5 1M 3M' "$place/change.qcow2" >"$work/log"
  step "commit" qemu-img commit -d -f qcow2 "$place/change.qcow2"
  look "committed" "$place/image.raw" raw
  printf 'no image' >"$place/broken.qcow2"
  step "info of what is no qcow2: refused" "${limits[@]}" \
    qemu-img info --force-share --output=json -f qcow2 "$place/broken.qcow2"
}

openstack_info() {
  local limits=(/usr/bin/python3 -m oslo_concurrency.prlimit --as=1073741824 --cpu=30 --)
  "${limits[@]}" env LC_ALL=C LANG=C qemu-img info --force-share --output=json "$1" >"$work/info" || return
  /usr/bin/python3 - "$work/info" <<'PYTHON'
import sys
from oslo_utils import imageutils

with open(sys.argv[1]) as text:
    info = imageutils.QemuImgInfo(text.read(), format="json")
for name in ("file_format", "virtual_size", "cluster_size", "backing_file", "backing_file_format", "encrypted"):
    print(name, getattr(info, name))
print("snapshots", [(item["id"], item["name"]) for item in info.snapshots])
print("format_specific", sorted(info.format_specific["data"]) if info.format_specific else None)
PYTHON
}
