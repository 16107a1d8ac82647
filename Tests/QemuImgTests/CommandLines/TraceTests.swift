import Foundation
import TestSupport
import Testing

/// `-T`: the engine's own events.
@Suite struct TraceTests {
  private func run(_ arguments: [String], in folder: TemporaryFolder) throws -> ProcessResult {
    try TestProcess.run([BuiltProduct.qemuImg.path] + arguments, folder: folder.path)
  }

  private func withImage(_ body: (TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 7, count: 128 << 10), to: "a.raw")
      try body(folder)
    }
  }

  /// The first words of the lines.
  private func events(_ text: String) -> Set<String> {
    Set(text.split(separator: "\n").compactMap { $0.split(separator: " ").first.map(String.init) })
  }

  @Test func listsItsEvents() throws {
    try withImage { folder in
      let list = try run(["-T", "help"], in: folder).expecting().stdoutText.split(separator: "\n")
      #expect(list.contains("store_read") && list.contains("convert_segment"))
    }
  }

  @Test func tellsWhatPatternsAskFor() throws {
    try withImage { folder in
      let result = try run(
        ["-T", "cluster_*", "-T", "-cluster_link", "convert", "-O", "qcow2", "a.raw", "b"], in: folder)
      #expect(events(try result.expecting().stderrText) == ["cluster_allocate"])
      #expect(result.stderrText.hasPrefix("cluster_allocate guest 0 bytes "))
    }
  }

  @Test func everyEventHappensWhereItShould() throws {
    try withImage { folder in
      _ = try run(["-T", "*,file=log", "convert", "-O", "qcow2", "a.raw", "b"], in: folder).expecting()
      let made = events(String(decoding: try Files.read(folder.file("log")), as: UTF8.self))
      let wanted: Set = [
        "file_open", "file_close", "store_read", "store_write", "format_probe", "image_open",
        "cluster_allocate",
        "cluster_link", "file_lock", "file_unlock", "table_write_back", "convert_segment",
      ]
      #expect(made.isSuperset(of: wanted), "missing: \(wanted.subtracting(made))")
      let checked = try run(["--trace=table_load", "check", "b"], in: folder).expecting(0)
      #expect(checked.stdoutText.hasPrefix("No errors"))
    }
  }

  /// With -C the bytes do not pass through the process, but where the target's tables have no room for them yet.
  @Test func theHostCopiesWhereItCan() throws {
    try withImage { folder in
      let copy = ["-T", "store_copy", "convert", "-C", "-f", "raw"]
      let first = try run(copy + ["-O", "raw", "a.raw", "b"], in: folder).expecting()
      #expect(first.stderrText.hasPrefix("store_copy path \"b\" offset 0 bytes 131072 source \"a.raw\""))
      #expect(try Files.read(folder.file("b")) == Files.read(folder.file("a.raw")))
      let new = try run(copy + ["-O", "qcow2", "a.raw", "c"], in: folder).expecting()
      #expect(new.stderrText.hasPrefix("store_copy path \"c\" offset 327680 bytes 131072 source \"a.raw\""))
      let again = try run(copy + ["-n", "-O", "qcow2", "a.raw", "c"], in: folder).expecting()
      #expect(again.stderrText.hasPrefix("store_copy path \"c\" "))
      for options in [["-t", "none"], ["-t", "writethrough"], ["-T", "none"]] {
        _ = try run(copy + options + ["-O", "raw", "a.raw", "d"], in: folder).expecting()
        #expect(try Files.read(folder.file("d")) == Files.read(folder.file("a.raw")))
      }
    }
  }

  @Test func readsNamesFromAFile() throws {
    try withImage { folder in
      try folder.write(Array("# mine\n\nfile_*\n-file_close\nnothing\n".utf8), to: "names")
      let result = try run(["-T", "events=names", "info", "a.raw"], in: folder).expecting()
      #expect(events(result.stderrText) == ["file_open", "qemu-img:names:5:"])
      #expect(result.stderrText.contains("qemu-img:names:5: warning: trace event 'nothing' does not exist\n"))
    }
  }

  @Test func standsBeforeTheCommandOnly() throws {
    try withImage { folder in
      let result = try run(["info", "-T", "file_open", "a.raw"], in: folder).expecting(1)
      #expect(result.stderrText.hasPrefix("qemu-img: unrecognized option '-T'\n"))
    }
  }
}
