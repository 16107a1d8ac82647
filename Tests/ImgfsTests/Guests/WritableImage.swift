import Foundation
import TestSupport
import Testing

/// An image that the judge makes, that is written through a mount, and that the judge looks at afterwards.
struct WritableImage: Sendable, CustomTestStringConvertible {
  var format: String
  var options: [String] = []
  var passphrase: String?

  var testDescription: String { ([format] + options).joined(separator: " ") }

  /// What was never written is noise in a LUKS volume.
  var beginsWithZeros: Bool { format != "luks" }

  /// Every format that is written, and the kinds that are written in another way.
  static let all: [WritableImage] = [
    WritableImage(format: "raw"), WritableImage(format: "qcow2"), WritableImage(format: "qcow"),
    WritableImage(format: "qed"), WritableImage(format: "vmdk"), WritableImage(format: "vdi"),
    WritableImage(format: "vpc", options: ["force_size=on"]), WritableImage(format: "vhdx"),
    WritableImage(format: "parallels"),
    WritableImage(format: "luks", options: ["iter-time=10"], passphrase: "open sesame"),
  ]
  /// What a long run adds.
  static let kinds: [WritableImage] = [
    WritableImage(format: "qcow2", options: ["extended_l2=on", "cluster_size=128k"]),
    WritableImage(format: "qcow2", options: ["cluster_size=4k", "refcount_bits=64"]),
    WritableImage(format: "qcow2", options: ["compat=0.10"]),
    WritableImage(format: "qcow2", options: ["lazy_refcounts=on", "preallocation=metadata"]),
    WritableImage(format: "vmdk", options: ["subformat=twoGbMaxExtentSparse"]),
    WritableImage(format: "vmdk", options: ["subformat=monolithicFlat"]),
    WritableImage(format: "vdi", options: ["static=on"]),
    WritableImage(format: "vpc", options: ["subformat=fixed", "force_size=on"]),
    WritableImage(format: "vhdx", options: ["subformat=fixed"]),
    WritableImage(format: "parallels", options: ["cluster_size=64k"]),
    WritableImage(
      format: "qcow2", options: ["encrypt.format=luks", "encrypt.iter-time=10"], passphrase: "open sesame"),
  ]
  /// Those whose writers differ most.
  static let chosen = all.filter { ["qcow2", "vmdk", "vdi", "vhdx"].contains($0.format) }

  func make(_ byteCount: Int, in folder: TemporaryFolder, name: String = "image") throws -> String {
    let path = folder.file("\(name).\(format)")
    try ReferenceTool.create(path, format: format, size: byteCount, options: options, passphrase: passphrase)
    return path
  }

  /// The words that imgfs wants for such an image.
  func words(in folder: TemporaryFolder) throws -> [String] {
    guard let passphrase else { return ["-F", format] }
    let file = try folder.write(Array(passphrase.utf8), to: "passphrase")
    return ["-F", format, "--passphrase-file", file]
  }

  /// Mounts it to be written, runs `body`, unmounts, and has the judge and our own check look at it.
  @discardableResult
  func mounted<T>(
    _ image: String, options: String = "rw", in folder: TemporaryFolder, timeout: Double = 300,
    _ body: (MountedImage) throws -> T
  ) throws -> T {
    let result = try MountedImage.with(
      image, options: try words(in: folder) + ["-o", options], in: folder, timeout: timeout, body)
    try expectSound(image)
    return result
  }

  /// No damage and no leak, as the judge and as our qemu-img see it.
  func expectSound(_ image: String) throws {
    let verdict = try ReferenceTool.check(image, format: format, passphrase: passphrase)
    guard verdict.corruptions == 0, verdict.leaks == 0, verdict.checkErrors == 0 else {
      throw TestFailure("\(testDescription): \(verdict.text)")
    }
    let ours = try BuiltProduct.qemuImg.run(["check"] + ReferenceTool.names(image, format, passphrase))
    guard ours.status == 0 || ours.status == 63 else {
      throw TestFailure("\(testDescription): \(ours.stdoutText)\(ours.stderrText)")
    }
  }

  /// What the judge reads, as a raw file.
  func judged(_ image: String, in folder: TemporaryFolder) throws -> String {
    let raw = folder.file("judged-\(UUID().uuidString.prefix(8)).raw")
    try ReferenceTool.qemuImg.run(
      ["convert", "-O", "raw"] + ReferenceTool.names(image, format, passphrase) + [raw]
    ).expecting(0)
    return raw
  }
}

/// A few lines for bash.
enum Shell {
  /// Runs them with `variables`; another exit status than `status` is a failure. Gives what they printed, errors too.
  @discardableResult
  static func run(
    _ script: String, _ variables: [String: String] = [:], in folder: TemporaryFolder, status: Int = 0,
    timeout: Double = 120
  ) throws -> String {
    let result = try TestProcess.run(
      ["/bin/bash", "-euo", "pipefail", "-c", "exec 2>&1\nPATH=$PATH:/usr/sbin:/sbin\n" + script],
      environment: variables.merging(["LC_ALL": "C"]) { first, _ in first }, folder: folder.path,
      timeout: timeout
    ).expecting(status)
    return result.stdoutText
  }
}
