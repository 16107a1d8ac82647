import Foundation
import TestSupport
import Testing

/// A command that changes files, and what must hold of them in all that a power cut or a fault may leave.
struct OperationRow: Sendable, CustomTestStringConvertible {
  /// What is promised of an image while the command is at work.
  enum Promise: Sendable {
    /// It reads as before.
    case kept
    /// It reads as before, or as afterwards, with all its snapshots and bitmaps.
    case oldOrNew
    /// Each sector of the disk is the old one or the new one; at the end it is the new one.
    case between
    /// It is made by the command; until that has ended there need be none.
    case new
    /// The same, with bytes that nobody can know: what a new key makes of zeros.
    case unknown
  }

  struct Image: Sendable {
    var file: String
    var format: String
    var promise: Promise
    var passphrase: String?
  }

  var name: String
  /// Lines for bash, in a folder with `disk.raw` and `other.raw`, both 1 MiB. `$J` is the judge's qemu-img, `$Q` ours, `$K`
  /// an object with the passphrase.
  var preparation: String
  var command: [String]
  var images: [Image]
  /// False: without `-t writeback` nothing is said of what is on disk.
  var isDurable = true
  /// True: the images are damaged before the command.
  var isDamaged = false
  /// False: the judge cannot read one of them.
  var isForJudge = true
  /// What the command says where it has been done already and cannot be done twice.
  var words: String?

  var testDescription: String { name }

  static let tested = all.filter { ChosenRows.contain($0.name) }

  static let passphrase = "geheim"
  static let key = ["--object", "secret,id=key,data=\(passphrase)"]
}

/// A kind of image that can be written.
struct WritableKind: Sendable {
  var name: String
  var format: String
  var options = ""
  var passphrase: String?
  var canBeWrittenTwice = true
  var packs = false
  /// The sizes that a disk of 1 MiB can get.
  var grows = false
  var shrinks = false
  /// Whether the judge makes it; else we do.
  var isJudged = true

  static let all = [
    WritableKind(name: "raw", format: "raw", grows: true, shrinks: true),
    WritableKind(name: "qcow2", format: "qcow2", packs: true, grows: true, shrinks: true),
    WritableKind(
      name: "qcow2 version 2", format: "qcow2", options: "compat=0.10,cluster_size=4k", packs: true,
      grows: true, shrinks: true),
    WritableKind(
      name: "qcow2 of 512", format: "qcow2", options: "cluster_size=512,refcount_bits=64", grows: true,
      shrinks: true),
    WritableKind(
      name: "qcow2 with subclusters", format: "qcow2", options: "extended_l2=on,cluster_size=16k",
      grows: true,
      shrinks: true),
    WritableKind(
      name: "qcow2 lazy", format: "qcow2", options: "lazy_refcounts=on,cluster_size=4k", packs: true,
      grows: true, shrinks: true),
    WritableKind(
      name: "qcow2 zstd", format: "qcow2", options: "compression_type=zstd,cluster_size=8k", packs: true),
    WritableKind(
      name: "qcow2 with a data file", format: "qcow2", options: "data_file=image.data", grows: true),
    WritableKind(
      name: "qcow2 with a raw data file", format: "qcow2", options: "data_file=image.data,data_file_raw=on"),
    WritableKind(
      name: "qcow2 with LUKS", format: "qcow2",
      options: "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10,cluster_size=16k",
      passphrase: OperationRow.passphrase, grows: true, shrinks: true),
    WritableKind(name: "qcow", format: "qcow", packs: true),
    WritableKind(name: "qed", format: "qed", options: "cluster_size=4k,table_size=2", grows: true),
    WritableKind(name: "vmdk", format: "vmdk"),
    WritableKind(
      name: "vmdk, sparse extents", format: "vmdk", options: "subformat=twoGbMaxExtentSparse"),
    WritableKind(name: "vmdk, flat", format: "vmdk", options: "subformat=monolithicFlat"),
    WritableKind(name: "vmdk, flat extents", format: "vmdk", options: "subformat=twoGbMaxExtentFlat"),
    WritableKind(
      name: "vmdk, streamOptimized", format: "vmdk", options: "subformat=streamOptimized",
      canBeWrittenTwice: false, packs: true),
    WritableKind(name: "vdi", format: "vdi", grows: true, shrinks: true, isJudged: false),
    WritableKind(name: "vdi, static", format: "vdi", options: "static=on"),
    WritableKind(name: "vpc", format: "vpc", options: "force_size=on"),
    WritableKind(name: "vpc, fixed", format: "vpc", options: "subformat=fixed,force_size=on"),
    WritableKind(
      name: "vhdx", format: "vhdx", options: "block_size=1M,log_size=1M", grows: true, isJudged: false),
    WritableKind(
      name: "vhdx, fixed", format: "vhdx", options: "subformat=fixed,block_size=1M,log_size=1M"),
    WritableKind(name: "parallels", format: "parallels", options: "cluster_size=64k"),
    WritableKind(
      name: "luks", format: "luks", options: "key-secret=key,iter-time=10",
      passphrase: OperationRow.passphrase,
      grows: true, shrinks: true),
  ]

  var object: [String] { passphrase == nil ? [] : OperationRow.key }
  var given: [String] { options.isEmpty ? [] : ["-o", options] }
  /// Whether a new disk of it reads as anything.
  var isBlank: Bool { format != "luks" }
  func image(_ promise: OperationRow.Promise) -> OperationRow.Image {
    OperationRow.Image(file: "image", format: format, promise: promise, passphrase: passphrase)
  }

  /// How an image of it is named, with the object of its passphrase.
  var named: [String] {
    guard passphrase != nil else { return ["-f", format, "image"] }
    return OperationRow.key + [
      "--image-opts", "driver=\(format),\(keySecretOption(ofFormat: format))=key,file.filename=image",
    ]
  }

  /// The line that makes an image with the bytes of `raw`.
  func making(from raw: String, with others: String = "") -> String {
    let object = passphrase == nil ? "" : "$K "
    return
      "\(isJudged ? "$J" : "$Q") convert \(object)-f raw -O \(format)\(given.isEmpty ? "" : " -o \(options)")"
      + "\(others) \(raw) image\n"
  }
}
