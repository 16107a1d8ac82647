# shellcheck shell=bash
# libvirt, for scripts/callers: a daemon of its own, a directory pool, volumes, a domain's snapshots.
# shellcheck disable=SC2154 # `work` and `children` are those of scripts/callers

libvirt_part() {
  start_libvirt
  both_run libvirt
  both_run snapshots
  both_run virtinst
  end_children
}

libvirt_uri() { printf 'qemu+unix:///system?socket=%s' "$work/libvirt/run/libvirt-sock"; }

virsh() { timeout --kill-after=5 "$step_seconds" virsh --quiet --connect "$(libvirt_uri)" "$@"; }

# Runs the daemon where its folders, and the list of users that it looks into, are ours, and where there is no
# network. Nothing of the machine's own libvirt is touched.
start_libvirt() {
  local folder=$work/libvirt moment
  mkdir -p "$folder"/{etc,run,lib,cache,log}
  { cat /etc/passwd; echo 'libvirt-qemu:x:0:0::/nonexistent:/usr/sbin/nologin'; } >"$folder/passwd"
  { cat /etc/group; echo 'libvirt-qemu:x:0:'; } >"$folder/group"
  printf '%s\n' 'auth_unix_rw = "none"' 'unix_sock_group = "root"' \
    "log_outputs = \"3:file:$folder/log/daemon\"" >"$folder/etc/libvirtd.conf"
  printf '%s\n' 'user = "root"' 'group = "root"' 'remember_owner = 0' 'security_driver = "none"' \
    'cgroup_controllers = []' 'namespaces = []' 'stdio_handler = "file"' >"$folder/etc/qemu.conf"
  # shellcheck disable=SC2016 # the words are for the shell in the namespaces
  unshare --mount --net --propagation private bash -euc '
    for name in etc run var/lib var/cache var/log; do
      mkdir -p "/$name/libvirt"
      mount --bind "$1/${name#var/}" "/$name/libvirt"
    done
    mount --bind "$1/passwd" /etc/passwd
    mount --bind "$1/group" /etc/group
    exec /usr/sbin/libvirtd --config /etc/libvirt/libvirtd.conf --pid-file "$1/run/pid"
  ' bash "$folder" >"$folder/log/output" 2>&1 &
  children+=($!)
  for ((moment = 0; moment < 300; moment++)); do
    if [[ -S $folder/run/libvirt-sock ]] && virsh version >"$folder/log/version" 2>&1; then
      say "$(tail -n 1 "$folder/log/version"), in libvirt of its own"
      return 0
    fi
    sleep 0.1
  done
  cat "$folder/log"/* >&2
  stop "libvirtd did not start"
}

# A volume's description: `$1`: name, `$2`: format, `$3`: MiB; the rest: elements of its target.
volume() {
  cat >"$work/place/$1.xml" <<VOLUME
<volume>
  <name>$1</name><capacity unit='MiB'>$3</capacity>
  <target><format type='$2'/>${*:4}</target>
</volume>
VOLUME
  printf '%s' "$work/place/$1.xml"
}

# A volume, as libvirt and the judge see it afterwards.
volume_step() {
  local name=$1 volume=$2 format=$3
  shift 3
  step "$name" "$@"
  step "$name: as libvirt sees it" virsh vol-dumpxml --pool images "$volume"
  look "$name: as the judge sees it" "$work/place/pool/$volume" "$format"
}

libvirt_session() {
  step "a pool" virsh pool-create-as images dir --target "$work/place/pool" --build
  volumes_are_created
  volumes_with_options
  volumes_over_others
  volumes_with_content
  volumes_are_resized
  volumes_encrypted
  volumes_refused
  step "the pool is read again" virsh pool-refresh images
  # The last column is what they take on the host's disk.
  step "all volumes" list_volumes
  step "the pool goes" virsh pool-destroy images
}

list_volumes() { virsh vol-list images --details | sed --regexp-extended 's/ +[0-9.]+ [KM]?i?B *$//'; }

volumes_are_created() {
  local format
  for format in raw qcow qcow2 qed vmdk vdi vpc; do
    volume_step "vol-create-as $format" "plain.$format" "$format" \
      virsh vol-create-as images "plain.$format" 8M --format "$format"
    step "vol-info $format" virsh vol-info --pool images "plain.$format"
  done
  volume_step "vol-create-as raw, allocated" full.raw raw \
    virsh vol-create-as images full.raw 4M --allocation 4M --format raw
  volume_step "vol-create-as qcow2, metadata" metadata.qcow2 qcow2 \
    virsh vol-create-as images metadata.qcow2 8M --format qcow2 --prealloc-metadata
  volume_step "vol-create-as qcow2, allocated" full.qcow2 qcow2 \
    virsh vol-create-as images full.qcow2 8M --allocation 8M --format qcow2
}

volumes_with_options() {
  volume_step "compat 0.10" old.qcow2 qcow2 virsh vol-create images \
    "$(volume old.qcow2 qcow2 8 '<compat>0.10</compat>')"
  volume_step "lazy refcounts" lazy.qcow2 qcow2 virsh vol-create images \
    "$(volume lazy.qcow2 qcow2 8 '<compat>1.1</compat><features><lazy_refcounts/></features>')"
  volume_step "extended L2 entries" extended.qcow2 qcow2 virsh vol-create images \
    "$(volume extended.qcow2 qcow2 8 '<compat>1.1</compat><features><extended_l2/></features>')"
  volume_step "cluster size" clusters.qcow2 qcow2 virsh vol-create images \
    "$(volume clusters.qcow2 qcow2 8 '<clusterSize unit="KiB">256</clusterSize>')"
}

volumes_over_others() {
  volume_step "a backing volume" over.qcow2 qcow2 virsh vol-create-as images over.qcow2 16M --format qcow2 \
    --backing-vol plain.qcow2 --backing-vol-format qcow2
  volume_step "a backing volume, raw" over-raw.qcow2 qcow2 virsh vol-create-as images over-raw.qcow2 8M \
    --format qcow2 --backing-vol plain.raw --backing-vol-format raw
  volume_step "three of a chain" chain.qcow2 qcow2 virsh vol-create-as images chain.qcow2 16M --format qcow2 \
    --backing-vol over.qcow2 --backing-vol-format qcow2
  volume_step "a backing volume, qed" over.qed qed virsh vol-create-as images over.qed 8M --format qed \
    --backing-vol plain.qed --backing-vol-format qed
}

volumes_with_content() {
  local format
  seq --format='line %08.0f of a disk' 1 90000 >"$work/place/content"
  truncate --size=5M "$work/place/content"
  step "content.raw" virsh vol-create-as images content.raw 5M --format raw
  volume_step "vol-upload" content.raw raw virsh vol-upload --pool images content.raw "$work/place/content"
  for format in qcow qcow2 qed vmdk vdi vpc raw; do
    volume_step "vol-create-from raw to $format" "from.$format" "$format" \
      virsh vol-create-from images "$(volume "from.$format" "$format" 5)" content.raw --inputpool images
  done
  volume_step "vol-clone raw" clone.raw raw virsh vol-clone --pool images content.raw clone.raw
  for format in qcow2 qed vmdk vdi vpc; do
    volume_step "vol-clone $format" "clone.$format" "$format" \
      virsh vol-clone --pool images "from.$format" "clone.$format"
    volume_step "vol-create-from $format to raw" "$format.raw" raw \
      virsh vol-create-from images "$(volume "$format.raw" raw 5)" "from.$format" --inputpool images
  done
  volume_step "vol-create-from into metadata" made.qcow2 qcow2 virsh vol-create-from images \
    "$(volume made.qcow2 qcow2 5 '<compat>1.1</compat><features><lazy_refcounts/></features>')" from.vmdk \
    --inputpool images --prealloc-metadata
  step "vol-download" virsh vol-download --pool images clone.raw "$work/place/downloaded"
  step "the same came back" cmp "$work/place/content" "$work/place/downloaded"
}

volumes_are_resized() {
  volume_step "vol-resize raw" clone.raw raw virsh vol-resize --pool images clone.raw 9M
  volume_step "vol-resize raw, allocated" full.raw raw \
    virsh vol-resize --pool images full.raw 6M --allocate
  volume_step "vol-resize qcow2" clone.qcow2 qcow2 virsh vol-resize --pool images clone.qcow2 9M
  volume_step "vol-resize qcow2 by a difference" clone.qcow2 qcow2 \
    virsh vol-resize --pool images clone.qcow2 2M --delta
  step "vol-resize qcow2, allocated: refused" \
    virsh vol-resize --pool images full.qcow2 12M --allocate
  volume_step "vol-resize qcow2, shrink" clone.qcow2 qcow2 \
    virsh vol-resize --pool images clone.qcow2 4M --shrink
  step "vol-resize shrinks without being told: refused" virsh vol-resize --pool images clone.qcow2 1M
  step "vol-resize of vmdk: refused" virsh vol-resize --pool images clone.vmdk 9M
  step "vol-wipe" virsh vol-wipe --pool images clone.qcow2
  step "vol-delete" virsh vol-delete --pool images clone.qcow2
}

# Words that open a volume with the secret: `$1`: the volume, `$2`: options.
encrypted_place() {
  printf '%s\n' --object "secret,id=word,file=$work/place/word" --image-opts "$2,file.filename=$work/place/pool/$1"
}

volumes_encrypted() {
  local id=11111111-2222-3333-4444-555555555555 luks cipher name place
  luks="<encryption format='luks'><secret type='passphrase' uuid='$id'/></encryption>"
  cipher="<cipher name='aes' size='128' mode='cbc' hash='sha256'/><ivgen name='essiv' hash='sha256'/>"
  cat >"$work/place/secret.xml" <<SECRET
<secret ephemeral='no' private='no'>
  <uuid>$id</uuid><usage type='volume'><volume>/a/volume</volume></usage>
</secret>
SECRET
  printf 'open sesame' >"$work/place/word"
  step "secret-define" virsh secret-define "$work/place/secret.xml"
  step "secret-set-value" virsh secret-set-value "$id" --file "$work/place/word" --plain

  step "LUKS" virsh vol-create images "$(volume luks.raw raw 4 "$luks")"
  step "LUKS: cipher and hash" \
    virsh vol-create images "$(volume cipher.raw raw 4 "${luks/<\/enc/$cipher</enc}")"
  step "LUKS in qcow2" virsh vol-create images "$(volume luks.qcow2 qcow2 4 "$luks")"
  for name in luks.raw cipher.raw; do
    mapfile -t place < <(encrypted_place "$name" driver=luks,key-secret=word)
    step "$name: as libvirt sees it" virsh vol-dumpxml --pool images "$name"
    step "$name: as the judge sees it" info_at "${place[@]}"
  done
  mapfile -t place < <(encrypted_place luks.qcow2 driver=qcow2,encrypt.key-secret=word)
  step "luks.qcow2: as libvirt sees it" virsh vol-dumpxml --pool images luks.qcow2
  step "luks.qcow2: as the judge sees it" info_at "${place[@]}"

  step "LUKS from raw" \
    virsh vol-create-from images "$(volume from.luks raw 5 "$luks")" content.raw --inputpool images
  mapfile -t place < <(encrypted_place from.luks driver=luks,key-secret=word)
  look "LUKS from raw: as the judge sees it" "$work/place/pool/from.luks" luks "${place[@]}"
  step "LUKS in qcow2 from raw" \
    virsh vol-create-from images "$(volume from-luks.qcow2 qcow2 5 "$luks")" content.raw --inputpool images
  mapfile -t place < <(encrypted_place from-luks.qcow2 driver=qcow2,encrypt.key-secret=word)
  look "LUKS in qcow2 from raw: as the judge sees it" "$work/place/pool/from-luks.qcow2" qcow2 "${place[@]}"
  step "LUKS is resized" virsh vol-resize --pool images from.luks 7M
  step "LUKS is cloned" virsh vol-clone --pool images from.luks clone.luks
  step "secret-undefine" virsh secret-undefine "$id"
}

volumes_refused() {
  local format
  for format in bochs cloop dmg; do
    step "vol-create-as $format: refused" virsh vol-create-as images "no.$format" 1M --format "$format"
  done
  step "a name that is taken: refused" virsh vol-create-as images plain.qcow2 1M --format qcow2
  step "a backing volume that is not there: refused" virsh vol-create-as images no.qcow2 1M --format qcow2 \
    --backing-vol "$work/place/nothing" --backing-vol-format qcow2
  step "features and compat that do not go together: refused" virsh vol-create images \
    "$(volume no.qcow2 qcow2 8 '<compat>0.10</compat><features><lazy_refcounts/></features>')"
  step "a cluster size that is none: refused" virsh vol-create images \
    "$(volume no.qcow2 qcow2 8 '<clusterSize unit="B">1000</clusterSize>')"
  truncate --size=1M "$work/place/pool/broken.qcow2"
  printf 'QFI\373\0\0\0\3' | dd of="$work/place/pool/broken.qcow2" conv=notrunc status=none
  step "a broken volume is listed" virsh pool-refresh images
  step "a broken volume's clone: refused" virsh vol-clone --pool images broken.qcow2 no.qcow2
  rm "$work/place/pool/broken.qcow2"
}

# Snapshots of a domain that does not run: libvirt has qemu-img make them.
snapshots_session() {
  local disks=$work/place/disks file
  mkdir "$disks"
  for file in system data; do
    step "an image for the $file" qemu-img create -f qcow2 "$disks/$file.qcow2" 8M
    "$qemu_io" -f qcow2 -c 'write -q -P 1 0 1M' "$disks/$file.qcow2"
  done
  cat >"$work/place/domain.xml" <<DOMAIN
<domain type='qemu'><name>guest</name><memory unit='MiB'>128</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='$disks/system.qcow2'/><target dev='vda'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='$disks/data.qcow2'/><target dev='vdb'/>
    </disk>
  </devices>
</domain>
DOMAIN
  step "a domain" virsh define "$work/place/domain.xml"
  step "a snapshot" virsh snapshot-create-as guest before
  for file in system data; do "$qemu_io" -f qcow2 -c 'write -q -P 2 512k 1M' "$disks/$file.qcow2"; done
  step "another snapshot" virsh snapshot-create-as guest after
  for file in system data; do look "$file with two snapshots" "$disks/$file.qcow2" qcow2; done
  step "the list" virsh snapshot-list guest --name
  step "back to the first" virsh snapshot-revert guest before
  for file in system data; do look "$file as it was before" "$disks/$file.qcow2" qcow2; done
  step "the first goes" virsh snapshot-delete guest before
  step "the second goes" virsh snapshot-delete guest after
  for file in system data; do look "$file without snapshots" "$disks/$file.qcow2" qcow2; done
  step "an external snapshot" virsh snapshot-create-as guest outside --disk-only --no-metadata
  for file in system data; do look "$file is over what was" "$disks/$file.outside" qcow2; done
  step "the domain's disks" virsh domblklist guest
  step "the domain goes" virsh undefine guest
}

# virt-install makes a guest's disk and starts the guest; virt-clone copies it with all its disks.
virtinst_session() {
  local options=(--connect "$(libvirt_uri)" --noautoconsole --memory 64 --virt-type qemu --graphics none
    --network none --import --osinfo 'detect=off,require=off')
  step "a pool" virsh pool-create-as images dir --target "$work/place/pool" --build
  step "virt-install" virt-install "${options[@]}" --name new \
    --disk pool=images,size=0.02,format=qcow2,sparse=yes --disk pool=images,size=0.01,format=raw \
    --disk "path=$work/place/pool/second.vmdk,size=0.01,format=vmdk"
  step "the guest runs" virsh domstate new
  step "the guest's disks" virsh domblklist new
  step "the guest is ended" virsh destroy new
  "$qemu_io" -f qcow2 -c 'write -q -P 5 1M 3M' "$work/place/pool/new.qcow2"
  look "what virt-install made" "$work/place/pool/new.qcow2" qcow2
  step "virt-install over a backing file" virt-install "${options[@]}" --name above \
    --disk "size=0.03,backing_store=$work/place/pool/new.qcow2,backing_format=qcow2,pool=images,format=qcow2"
  step "that guest is ended" virsh destroy above
  look "what it made" "$work/place/pool/above.qcow2" qcow2
  step "virt-clone" virt-clone --connect "$(libvirt_uri)" --original new --name copy --auto-clone
  look "what virt-clone made" "$work/place/pool/copy.qcow2" qcow2
  step "the clone's disks" virsh domblklist copy
  step "all goes" virsh undefine new --remove-all-storage
  step "the other goes" virsh undefine above --remove-all-storage
  step "the clone goes" virsh undefine copy --remove-all-storage
  step "the pool goes" virsh pool-destroy images
}
