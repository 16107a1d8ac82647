/// What the manual page says of options beyond the line that the help has.
enum ManualDetails {
  static let mountOptions =
    "They follow -o, separated by commas, or stand in the fourth field of a line of /etc/fstab. A comma in a value"
    + " has a backslash before it, or the value stands between double quotes. Of ro and rw the last one holds. Each"
    + " option of the command line that says how to open an image is also a mount option, with underscores for its"
    + " hyphens: format, image_opts, snapshot, backing, allow_path, force_share, object, passphrase_file, overlay,"
    + " pid_file, single_thread, debug."

  static let sentences: [String: String] = [
    "format":
      "A raw disk whose content somebody else decides should be named as raw: it may begin like an image of another"
      + " format. Where the format was found out to be raw, the first 2 KiB of the disk cannot be made to look like"
      + " another format.",
    "image-opts": "As in qemu-img(1): a driver for each layer, and where its file is.",
    "snapshot": "It stands in the image's place, for reading only, or with an overlay over it.",
    "backing":
      "With none, what the image does not store itself reads as zeros, and nothing can be written into the image. Where a"
      + " file of the chain is missing, what needs it cannot be read otherwise.",
    "allow-path":
      "Without it, the backing file, the data file, extents and parents that an image names are opened only where"
      + " they lie in the folder that holds the image or below it, all symbolic links followed. An image on a device"
      + " may name none. --allow-path / opens all that the user may read. Files that the command line names, such as"
      + " those of --image-opts, are not asked for.",
    "force-share":
      "Without it, an image that a virtual machine or another program is writing is refused, as QEMU's programs refuse"
      + " it: by locks that both take. With it the image is mounted read-only, a warning is printed, and what is seen"
      + " is a mixture of old and new that need not fit together.",
    "object":
      "secret,id=ID,data=TEXT shows the passphrase to all users of the machine who look at its processes.",
    "passphrase-file":
      "It opens LUKS images, and qcow2 and qcow images that are encrypted; where images below it are encrypted, too,"
      + " those as well. It is read before imgfs goes into the background. Nothing tells whether the passphrase of an"
      + " image with the old AES encryption is right: with a wrong one the disk is noise.",
    "overlay":
      "The image itself stays as it is, whatever its format. A FILE that is there goes on from where it was; a new one"
      + " records the image as its backing file. With tmp the writes lie in an unnamed file of $TMPDIR, or of"
      + " /var/tmp.",
    "commit":
      "It returns when all that the overlay holds is in the image and on disk. The tree stays mounted, and the overlay is"
      + " empty then. The format of the image must be one that can be written.",
    "unmount":
      "All that was written is put on disk first; where that fails the tree stays mounted, and the reason is told."
      + " Then it waits for the end of the process, for as long as that works; after ten minutes in which it did"
      + " nothing at all it is an error. A mount point whose process was killed is freed, too.",
    "pid-file": "The file is removed when the process ends.",
    "debug": "What is printed are the requests of the kernel and their answers, as libfuse has them.",
    "ro": "The default of imgfs; mount(8) says rw where ro is not given.",
    "rw":
      "An image that cannot be written, because of its format or its permissions, is mounted read-only all the same, and"
      + " a warning says so.",
    "shrink": "Otherwise that fails with EPERM: it cuts off the end of the disk.",
    "idle": "With 0 it is closed at once.",
    "fsname": "A comma in it has a backslash before it.",
  ]

  static let kernelOptions: [(names: String, text: String)] = [
    (
      "allow_other",
      "lets other users in. It is never on by itself. Users other than root need user_allow_other in /etc/fuse.conf. The"
        + " kernel always checks the modes of the files (default_permissions)."
    ),
    (
      "auto_unmount, nosuid, suid, nodev, dev, noexec, exec, noatime, atime, sync, async, dirsync, context=...,"
        + " fscontext=..., defcontext=..., rootcontext=...", "are those of mount(8) and mount.fuse3(8)."
    ),
    (
      "defaults, auto, noauto, nofail, user, users, nouser, owner, group, _netdev, comment=..., x-..., relatime,"
        + " nodiratime, ...", "are taken from lines of /etc/fstab, and change nothing here."
    ),
  ]
}
