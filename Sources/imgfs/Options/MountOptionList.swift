/// The lists after `-o`, and in the fourth field of /etc/fstab: `ro,format=qcow2,allow_path=/a\,b`.
enum MountOptionList {
  /// Passed on to the kernel.
  static let kernelFlags: Set<String> = [
    "allow_other", "auto_unmount", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime",
    "sync", "async", "dirsync",
  ]
  static let kernelValues: Set<String> = ["context", "fscontext", "rootcontext", "defcontext"]
  /// Meant for mount(8) and its like, always on, or about access times, which imgfs does not keep.
  static let withoutEffect: Set<String> = [
    "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group",
    "default_permissions", "nodiratime", "diratime", "relatime", "norelatime", "strictatime",
    "nostrictatime", "lazytime", "nolazytime",
  ]
  private static let prefixesWithoutEffect = ["x-", "X-", "comment=", "user=", "uhelper=", "helper="]

  /// Takes all that the list says. - Parameter isSloppy: what is not known is passed over.
  static func apply(_ list: String, to options: inout MountOptions, isSloppy: Bool = false)
    throws(UsageError)
  {
    for item in split(list) where !item.isEmpty {
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let (name, value) = (String(parts[0]), parts.count > 1 ? String(parts[1]) : nil)
      if let setting = SettingTable.all.first(where: { $0.mountName == name }) {
        guard (setting.value == nil) == (value == nil) else {
          throw UsageError(
            value == nil
              ? "The mount option '\(name)' needs a value" : "The mount option '\(name)' takes no value")
        }
        try setting.apply(&options, .init(spelling: "The mount option '\(name)'", value: value ?? ""))
      } else if value == nil ? kernelFlags.contains(name) : kernelValues.contains(name) {
        options.passedOn.append(item)
      } else if !withoutEffect.contains(item), !prefixesWithoutEffect.contains(where: item.hasPrefix),
        !isSloppy
      {
        throw UsageError("Unknown mount option '\(item)'")
      }
    }
  }

  /// The items. A backslash takes the meaning from the character after it; a value may stand between double
  /// quotes, as mount(8) has it.
  static func split(_ list: String) -> [String] {
    var items: [String] = [""]
    var (isEscaped, isQuoted) = (false, false)
    for character in list {
      let last = items.count - 1
      switch character {
      case "\\" where !isEscaped: isEscaped = true
      case "\"" where !isEscaped && isQuoted: isQuoted = false
      case "\"" where !isEscaped && items[last].hasSuffix("="): isQuoted = true
      case "," where !isEscaped && !isQuoted: items.append("")
      default:
        items[last].append(character)
        isEscaped = false
      }
    }
    return items
  }
}
