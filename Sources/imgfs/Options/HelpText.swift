import CommandLine

/// What `--help` prints, from the table of settings.
enum HelpText {
  static var text: String {
    """
    Usage: imgfs [OPTION]... IMAGE... MOUNTPOINT
           imgfs [OPTION]... FOLDER MOUNTPOINT
           imgfs --unmount MOUNTPOINT
           imgfs --commit MOUNTPOINT
    Show disk images, their partitions, snapshots and layers as raw disks below
    MOUNTPOINT.


    """ + SettingTable.life.compactMap(\.option).map(row).joined()
      + SettingTable.image.compactMap(\.option).map(row).joined() + row(Invocation.mountOptionList)
      + Invocation.actions.map(row).joined() + "\nMount options, after -o, separated by commas:\n"
      + SettingTable.mount.map(mountRow).joined()
      + paragraph("allow_other", "other users may look, too")
      + paragraph("default_permissions", "always on: the kernel checks the files' modes")
      + TextColumns.wrapped(others, first: "  ", indent: 2)
  }

  private static var others: String {
    let names = SettingTable.all.filter { $0.place == .both }.compactMap { setting in
      setting.mountName.map { $0 + (setting.value == nil ? "" : "=...") }
    }
    return names.joined(separator: ", ") + " (as the options of these names); "
      + "auto_unmount, nosuid, suid, nodev, dev, noexec, exec, noatime, atime, sync, async, dirsync, "
      + "context=..., and what /etc/fstab has for others (defaults, noauto, nofail, _netdev, x-...)"
  }

  /// `  -F, --format FMT       format of IMAGE`
  private static func row(_ option: OptionRule) -> String {
    let letter = option.letter.map { "-\($0), " } ?? "    "
    return paragraph("\(letter)--\(option.key)\(option.value.map { " \($0.name)" } ?? "")", option.meaning)
  }

  private static func mountRow(_ setting: Setting) -> String {
    paragraph((setting.mountName ?? "") + (setting.value.map { "=\($0.name)" } ?? ""), setting.meaning)
  }

  /// A name in a column of its own, where it fits there.
  private static func paragraph(_ name: String, _ meaning: String) -> String {
    let column = 25
    let start = "  " + name
    guard start.count < column else {
      return start + "\n"
        + TextColumns.wrapped(meaning, first: String(repeating: " ", count: column), indent: column)
    }
    return TextColumns.wrapped(
      meaning, first: start + String(repeating: " ", count: column - start.count), indent: column)
  }
}
