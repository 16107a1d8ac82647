import Foundation

extension ReferenceTool {
  /// The runs of guest bytes that the judge finds dirty in a persistent bitmap of a qcow2 image.
  ///
  /// It shows bitmaps over NBD only: as holes in the map of the export. The server ends by itself after its
  /// first client.
  public static func dirtyRuns(of bitmap: String, in image: String) throws -> [Range<UInt64>] {
    // A socket's path has at most 107 bytes.
    let socket = "/tmp/imgfs-test-\(UUID().uuidString.prefix(13)).socket"
    defer { try? FileManager.default.removeItem(atPath: socket) }
    try ReferenceTool.nbd("-r", "-f", "qcow2", "-B", bitmap, "-k", socket, "--fork", image)
    let options =
      "driver=nbd,server.type=unix,server.path=\(socket),x-dirty-bitmap=qemu:dirty-bitmap:\(bitmap)"
    let result = try ReferenceTool.qemuImg("map", "--output=json", "--image-opts", options)
    guard
      let list = try JSONSerialization.jsonObject(with: Foundation.Data(result.stdout)) as? [[String: Any]]
    else { throw TestFailure("\(result.command): \(result.stdoutText)") }
    return list.compactMap { line in
      guard line["data"] as? Bool == false, let start = (line["start"] as? NSNumber)?.uint64Value,
        let length = (line["length"] as? NSNumber)?.uint64Value
      else { return nil }
      return start..<start + length
    }
  }
}
