import FormatEngine
import TestSupport
import Testing

/// One way of storing a disk that both we and the judge can write.
struct Dialect: Sendable, CustomTestStringConvertible {
  var name: String
  var format: String
  /// As `-o` takes them.
  var options = ""
  var isPacked = false
  /// Its size is rounded up, so that zeros follow the disk.
  var roundsSize = false
  /// Encrypted: a key has to be derived for every command, which takes its time.
  var hasKey = false
  /// The judge can tell whether such an image is sound.
  var isChecked = true
  /// The judge cannot make it from every disk: we do.
  var isMadeByUs = false

  var testDescription: String { name }

  static let all: [Dialect] = [
    Dialect(name: "raw", format: "raw", isChecked: false),
    Dialect(name: "qcow2", format: "qcow2"),
    Dialect(name: "qcow2 packed", format: "qcow2", isPacked: true),
    Dialect(name: "qcow2 v2", format: "qcow2", options: "compat=0.10,cluster_size=4k"),
    Dialect(name: "qcow2 subclusters", format: "qcow2", options: "extended_l2=on"),
    Dialect(name: "vmdk", format: "vmdk"),
    Dialect(name: "vmdk packed", format: "vmdk", options: "subformat=streamOptimized", isPacked: true),
    Dialect(name: "vmdk flat", format: "vmdk", options: "subformat=monolithicFlat"),
    Dialect(name: "vmdk split", format: "vmdk", options: "subformat=twoGbMaxExtentSparse"),
    Dialect(name: "vmdk split flat", format: "vmdk", options: "subformat=twoGbMaxExtentFlat"),
    Dialect(name: "vdi", format: "vdi"),
    Dialect(name: "vdi static", format: "vdi", options: "static=on"),
    Dialect(name: "vpc", format: "vpc", options: "force_size=on"),
    Dialect(name: "vpc fixed", format: "vpc", options: "subformat=fixed,force_size=on"),
    Dialect(name: "vpc by geometry", format: "vpc", roundsSize: true),
    Dialect(name: "vhdx", format: "vhdx"),
    Dialect(name: "vhdx fixed", format: "vhdx", options: "subformat=fixed"),
    Dialect(name: "qed", format: "qed"),
    Dialect(name: "qcow", format: "qcow"),
    // The judge ends with status 1, without a word, for some disks.
    Dialect(name: "qcow packed", format: "qcow", isPacked: true, isMadeByUs: true),
    Dialect(name: "parallels", format: "parallels"),
    Dialect(name: "luks", format: "luks", options: "iter-time=10", hasKey: true, isChecked: false),
    Dialect(name: "parallels", format: "parallels"),
    Dialect(name: "parallels 63 sectors", format: "parallels", options: "cluster_size=32256"),
  ].filter { FormatCatalog.format(named: $0.format) != nil }

  /// What `convert` takes for making such an image.
  var target: [String] { ["-O", format] + (isPacked ? ["-c"] : []) + optionArguments }

  var optionArguments: [String] {
    var options = options
    if hasKey { options += (options.isEmpty ? "" : ",") + "key-secret=key" }
    return options.isEmpty ? [] : ["-o", options]
  }

  /// How such an image is named, with `--image-opts`.
  func source(_ file: String) -> String {
    "driver=\(format),file.filename=\(file)" + (hasKey ? ",key-secret=key" : "")
  }
}
