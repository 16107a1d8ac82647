import CommandLine

/// The manual page imgfs.1: the options come from the table of settings.
enum ManualPage {
  static var text: String {
    ".TH IMGFS 1 \"2026-11-21\" \"imgfs \(Main.version)\" \"User commands\"\n" + head
      + ManualChapters.beforeOptions.map(\.text).joined()
      + ".SH OPTIONS\n" + Invocation.shownOptions.map(entry).joined()
      + ".SH MOUNT OPTIONS\n" + RoffText.paragraph(ManualDetails.mountOptions)
      + SettingTable.mount.map(mountEntry).joined()
      + ManualDetails.kernelOptions.map { RoffText.entry($0.names, $0.text) }.joined()
      + ManualChapters.afterOptions.map(\.text).joined() + examples
  }

  private static let head = #"""
    .SH NAME
    imgfs \- show disk images as folders of raw disks, to read and to write
    .SH SYNOPSIS
    .B imgfs
    .RI [ option ]...
    .IR image ...
    .I mountpoint
    .br
    .B imgfs
    .RI [ option ]...
    .I folder mountpoint
    .br
    .B imgfs \-\-unmount
    .I mountpoint
    .br
    .B imgfs \-\-commit
    .I mountpoint
    .br
    .B mount \-t imgfs
    .RB [ \-o
    .IR list ]
    .I image mountpoint

    """#

  private static let examples = #"""
    .SH EXAMPLES
    .TP
    .B imgfs vm.qcow2 /mnt/vm
    Look at an image.
    .TP
    .B mount \-o loop,ro,nosuid,nodev /mnt/vm/partitions/1.raw /mnt/guest
    Look at the files of a guest that you trust.
    .TP
    .B fuse2fs \-o ro,fakeroot /mnt/vm/partitions/1.raw ~/guest
    The same for an ext4 file system, without the kernel and without being root.
    .TP
    .B cmp /mnt/vm/disk.raw /mnt/vm/snapshots/before/disk.raw
    Whether anything has changed since a snapshot.
    .TP
    .B imgfs \-\-overlay tmp vm.vmdk /mnt/vm
    Try something; nothing of it stays.
    .TP
    .B imgfs \-o rw vm.qcow2 /mnt/vm && fstrim /mnt/guest
    Write, and give back what the guest does not use.
    .TP
    .B imgfs \-\-passphrase\-file key vm.luks /mnt/vm
    An encrypted image.
    .TP
    .B imgfs /srv/images /mnt/images
    All images of a folder.
    .TP
    .B imgfs \-\-unmount /mnt/vm
    The end: it returns when all is on disk.
    .SH SEE ALSO
    .BR qemu\-img (1),
    .BR fusermount3 (1),
    .BR fuse2fs (1),
    .BR losetup (8),
    .BR mount (8),
    .BR fstab (5)

    """#

  private static func entry(_ option: OptionRule) -> String {
    RoffText.entry(option) + more(option.key)
  }

  private static func mountEntry(_ setting: Setting) -> String {
    let name = (setting.mountName ?? "") + (setting.value.map { "=\($0.name)" } ?? "")
    return RoffText.entry(name, setting.meaning) + more(setting.key)
  }

  /// Sentences that the help has no room for.
  private static func more(_ key: String) -> String {
    ManualDetails.sentences[key].map { ".br\n" + RoffText.paragraph($0) } ?? ""
  }
}

/// A chapter of the manual page: paragraphs, and words with their meanings.
struct ManualChapter {
  enum Part {
    case paragraph(String)
    case entry(String, String)
    /// Lines that stay as they are.
    case lines([String])
  }

  let title: String
  let parts: [Part]

  init(_ title: String, _ parts: Part...) { (self.title, self.parts) = (title, parts) }

  var text: String {
    ".SH \(title)\n"
      + parts.map { part in
        switch part {
        case .paragraph(let text): ".PP\n" + RoffText.paragraph(text)
        case .entry(let name, let text): RoffText.entry(name, text)
        case .lines(let lines):
          ".PP\n.nf\n" + lines.map { RoffText.escaped($0) + "\n" }.joined() + ".fi\n"
        }
      }.joined()
  }
}
