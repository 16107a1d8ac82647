/// The chapters of the manual page that are not made from the table of settings.
enum ManualChapters {
  static let beforeOptions = [
    ManualChapter(
      "DESCRIPTION",
      .paragraph(
        "imgfs mounts disk images on an empty folder. The files below that folder are the content of the images as plain"
          + " disks, for programs that know nothing of images: dd, cmp, fdisk, mount, rsync, fuse2fs, another QEMU. They"
          + " are made up while they are read, nothing is copied, and nothing is written unless that is asked for."
      ),
      .paragraph(
        "It reads raw, qcow2, qcow, qed, vmdk, vdi, vpc (VHD), vhdx, parallels, luks, dmg, cloop and bochs images, and"
          + " whole chains of them."),
      .paragraph(
        "imgfs returns when the tree is there, and serves it in the background. What goes wrong before that is told on the"
          + " terminal, and by the exit status. What takes longer than a second, such as the replay of a log, is told"
          + " there, too.")),
    ManualChapter(
      "THE TREE",
      .entry(
        "disk.raw",
        "The disk as the guest sees it. Holes can be found with SEEK_DATA and SEEK_HOLE, and du(1) counts what is stored."
      ),
      .entry(
        "partitions/N.raw",
        "Each partition of the disk (GPT, MBR, logical ones), by its number. Symbolic links lead to them from their"
          + " labels, their GPT names and their UUIDs, where they have such. Where the table is damaged, what is sound of"
          + " it is shown."),
      .entry(
        "snapshots/NAME/",
        "An internal snapshot of the image, dated when it was made: disk.raw, partitions/ and info.json. It can only be"
          + " read."),
      .entry(
        "layers/N-NAME/",
        "The files that the image consists of: 0 is the image itself, 1 what lies below it, and so on. disk.raw is the disk"
          + " from that file downwards; delta.raw has only what this file stores and holes elsewhere, so that SEEK_DATA"
          + " walks what was changed in it. Each has its own snapshots/, partitions/ and info.json. Where a file is"
          + " missing, the place of its layer says which file it wants."),
      .entry(
        "info.json, map.json",
        "What qemu-img info and qemu-img map print as JSON. A text of more than 64 MiB, or a map that"
          + " takes more than 20 seconds of work, is not given: opening it fails with EFBIG."),
      .paragraph(
        "Names that come from images are made safe: what cannot stand in a file name is written as %XX, and a second one of"
          + " the same name gets ~2 after it."),
      .paragraph(
        "Reading a damaged part of an image fails with EIO, for that part only; so does what is cut off from the image's"
          + " file meanwhile. A file that is deleted, or that another one takes the place of, is read for as long as it is"
          + " open: until the tree is unmounted or, where several images are, until nobody has used this one for a while."
      )),
    ManualChapter(
      "WRITING",
      .paragraph(
        "With -o rw, disk.raw and the partitions can be written, as can a file system in them that is mounted from there."
          + " fsync(2) returns when the data and all that leads to it in the image is on disk, and so does each write to"
          + " a file that was opened with O_SYNC. Errors, such as a full disk under the image, reach whoever writes, and"
          + " leave the image sound. An imgfs that is killed loses what was not yet synced, as a machine does that loses"
          + " its power: the image opens, and holds all that was."),
      .paragraph(
        "fallocate(2) punches holes and zeroes ranges, and what a guest discards (fstrim(8), or the mount option discard)"
          + " makes the image smaller, or makes room in it. truncate(2) of disk.raw upwards makes the disk larger;"
          + " downwards it needs the mount option shrink. Without that, cp(1) and '>' fail, which empty a file first: dd(1)"
          + " with conv=notrunc does not. What would lie past the end of the disk fails with ENOSPC; the kernel may tell of"
          + " it only when the file is synced or closed."),
      .paragraph(
        "disk.raw and the partitions show the same bytes, and the kernel keeps what it has read or is to write of each for"
          + " itself. So the same bytes can be open for writing in one of them at a time: another one fails with EBUSY"
          + " until that is closed. Whoever opens a file sees what was written to the others and synced or closed before."
      ),
      .paragraph(
        "mkdir snapshots/NAME takes a snapshot of what was written until then, and rmdir deletes one that nobody has open,"
          + " where the format has snapshots. What a file system that is mounted from the disk has not yet written is"
          + " not in it: fsfreeze(8) or sync(1) sees to that."),
      .paragraph(
        "While an image is mounted to be written, other programs that keep to QEMU's locks can neither read nor write"
          + " it; while it is mounted to be read, they can read it.")),
    ManualChapter(
      "OVERLAYS",
      .paragraph(
        "With --overlay all writes go into a qcow2 file, and the image is not touched: also one of a format that cannot be"
          + " written, or that lies on a read-only medium. --overlay FILE is kept: the next mount with the same FILE goes"
          + " on from there, and QEMU opens it as an image of its own. --overlay tmp is thrown away when the tree is"
          + " unmounted, however that happens. imgfs --commit MOUNTPOINT writes what the overlay holds into the image,"
          + " unless it has snapshots, which would change with the image below them."
          + " What an overlay holds is not encrypted, also over an encrypted image.")),
    ManualChapter(
      "SEVERAL IMAGES",
      .paragraph(
        "Where several images are named, or a folder, each image is a folder of the mount, by its file's name, with the"
          + " tree above. It is opened when somebody first looks into it, and closed again when nobody has for a while"
          + " (idle), so that a folder of hundreds of images takes few descriptors. New images of the folder appear, and"
          + " deleted ones go. In a folder, raw disks are told by the ending of their name (.raw, .img, .iso, .dd). One"
          + " that cannot be opened is there with a file error.txt, which says why.")),
    ManualChapter(
      "EXTENDED ATTRIBUTES",
      .paragraph("Files and folders have extended attributes, which getfattr(1) shows:"),
      .entry("user.imgfs.format", "the format, such as qcow2"),
      .entry(
        "user.imgfs.virtual_size, user.imgfs.allocated_size",
        "bytes of the disk, and those that its file takes"),
      .entry("user.imgfs.depth, user.imgfs.layers", "which layer it is, and how many there are"),
      .entry("user.imgfs.encrypted", "yes or no"),
      .entry("user.imgfs.snapshot_id, user.imgfs.snapshot_name", "of a snapshot: by what the image calls it"),
      .entry("user.imgfs.stale", "maybe, where the image was mounted with --force-share"),
      .entry("user.imgfs.process", "of the root: the process that serves the tree, and when it was started"),
      .paragraph(
        "Partitions have their size and their offset on the disk in bytes, what kind they are, and their names and UUIDs."
      )),
  ]

  static let afterOptions = [
    ManualChapter(
      "MOUNT AND FSTAB",
      .paragraph(
        "mount -t fuse.imgfs and mount -t imgfs call imgfs, the latter as /sbin/mount.imgfs. Lines of /etc/fstab say the"
          + " same; umount(8) ends such a mount. mount(8) adds rw wherever ro is not given:"),
      .lines([
        "/srv/vm.qcow2    /mnt/vm      fuse.imgfs  ro,nofail,allow_other            0 0",
        "/srv/images      /mnt/images  imgfs       ro,nofail,noauto,user            0 0",
        "/srv/vm.luks     /mnt/luks    imgfs       ro,passphrase_file=/etc/vm.key   0 0",
      ]),
      .paragraph(
        "As mount.imgfs, it takes the options that mount(8) gives to such programs (-s, -f, -n, -v, -N, -t, -o), and the"
          + " exit status is 32 where the mount failed, and 1 where the line was wrong. With -f, the image is opened and"
          + " nothing is mounted.")),
    ManualChapter(
      "SECURITY",
      .paragraph(
        "An image that comes from somebody else is opened by a program that expects the worst: damaged and hostile images"
          + " give errors. What the disk holds is another matter. Mounting a guest's file system lets the kernel of this"
          + " machine read it, and a file system that was made to do harm may take the machine over. Use ro,nosuid,nodev"
          + " for guests that you trust, and for others fuse2fs, or a virtual machine that gets disk.raw as its drive."
      ),
      .paragraph(
        "Images name files of the host. Only those in an image's own folder are opened, and those that allow_path allows."
          + " A raw disk that its guest has written should be mounted with -F raw."),
      .paragraph(
        "Links in a folder of images are followed with the rights of the user who mounts. Where the folder, or the name in it,"
          + " belongs to somebody else than this user or root, nothing is shown that lies outside of the folder, unless"
          + " allow_path allows the folder that it lies in."),
      .paragraph(
        "Only the user who mounts can look into the tree, not even root can. allow_other is never on by itself; together with"
          + " it, uid, gid and umask say who may read the disks, and with them all that any guest keeps secret."
      )),
    ManualChapter(
      "SIGNALS",
      .paragraph(
        "SIGTERM, SIGINT and SIGHUP write all that is to be written, unmount the tree and end the process, also while files"
          + " are open. A tree that something else is mounted over stays, without a process.")),
    ManualChapter(
      "EXIT STATUS",
      .paragraph(
        "0: done. 1: it failed, and a sentence on standard error says why. 2: the command line makes no sense."
      )),
  ]
}
