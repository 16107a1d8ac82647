import Foundation
import TestSupport
import Testing

@testable import FormatEngine

@Suite struct ParallelsBundleTests {
  private func withBundle<T>(
    _ image: ParallelsBundleImage = ParallelsBundleImage(),
    _ body: (_ folder: TemporaryFolder, _ bundle: String, _ models: [ModelDisk]) throws -> T
  ) throws -> T {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 66)
      let bundle = try folder.makeFolder("disk.hdd")
      let models = try image.make(in: bundle, &random)
      return try body(folder, bundle, models)
    }
  }

  @Test func bundleIsOpenedByItsFolderAndByItsDescriptor() throws {
    try withBundle { _, bundle, models in
      for name in [bundle, bundle + "/", bundle + "/DiskDescriptor.xml"] {
        let chain = try ImageOpener.open(name)
        #expect(chain.members.map(\.formatName) == ["parallels", "parallels", "parallels"])
        #expect(ModelDisk.firstDifference(try chain.readAll(), models[2].bytes) == nil)
      }
    }
  }

  @Test func everySnapshotIsADiskOfItsOwn() throws {
    try withBundle { _, bundle, models in
      for (guid, model) in zip(ParallelsBundleImage().guids, models) {
        let options =
          "driver=parallels,snapshot-guid=\(guid.uppercased()),file.filename=\(bundle)/DiskDescriptor.xml"
        let chain = try ImageOpener.open(ImageSpecification(options: options))
        #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil, "\(guid)")
      }
      // One that stands in the middle is not written to.
      #expect(throws: EngineError.self) {
        try ImageOpener.open(
          ImageSpecification(
            options: "driver=parallels,snapshot-guid=\(ParallelsBundleImage().guids[1]),"
              + "file.filename=\(bundle)/DiskDescriptor.xml"), OpenOptions(access: .readWrite))
      }
    }
  }

  @Test func writesGoToTheTopImagesOnly() throws {
    try withBundle { _, bundle, models in
      var model = models[2]
      var random = SeededRandom.fromEnvironment(or: 67)
      let image = ParallelsBundleImage()
      let lower = try (0..<2).flatMap { level in
        try (0..<2).map { try Files.read("\(bundle)/\(image.file($0, level))") }
      }
      let chain = try ImageOpener.open(bundle, OpenOptions(access: .readWrite))
      for _ in 0..<40 {
        let range = random.range(in: model.byteCount, most: 200_000, unit: 65536)
        switch random.below(4) {
        case 0:
          try chain.writeZeros(at: UInt64(range.lowerBound), count: UInt64(range.count))
          model.writeZeros(at: range.lowerBound, count: range.count)
        default:
          let bytes = random.bytes(range.count)
          try chain.writeBytes(bytes, at: UInt64(range.lowerBound))
          model.write(bytes, at: range.lowerBound)
        }
      }
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
      try chain.close()
      #expect(ModelDisk.firstDifference(try ImageOpener.open(bundle).readAll(), model.bytes) == nil)
      for storage in 0..<2 {
        let verdict = try ReferenceTool.check(
          "\(bundle)/\(image.file(storage, 2))", format: "parallels", folder: bundle)
        #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
      }
      let after = try (0..<2).flatMap { level in
        try (0..<2).map { try Files.read("\(bundle)/\(image.file($0, level))") }
      }
      #expect(lower == after)
    }
  }

  @Test func bundleOfPlainImagesIsWritten() throws {
    try withBundle(ParallelsBundleImage(guids: [ParallelsBundleImage.topGUID], plainStorages: [0, 1])) {
      _, bundle, models in
      var model = models[0]
      let chain = try ImageOpener.open(bundle, OpenOptions(access: .readWrite))
      let bytes = [UInt8](repeating: 77, count: 300_000)
      try chain.writeBytes(bytes, at: (1 << 20) - 100_000)
      model.write(bytes, at: (1 << 20) - 100_000)
      try chain.close()
      #expect(try ImageOpener.open(bundle).readAll() == model.bytes)
    }
  }

  @Test func storagesOutsideOfOneGridAreOnlyRead() throws {
    let image = ParallelsBundleImage(
      storageSizes: [(1 << 20) - 512, 1 << 20], guids: [ParallelsBundleImage.topGUID], plainStorages: [])
    try withBundle(image) { _, bundle, models in
      let content = try ImageOpener.open(bundle).readAll()
      #expect(content == models[0].bytes)
      let error = #expect(throws: EngineError.self) {
        try ImageOpener.open(bundle, OpenOptions(access: .readWrite))
      }
      #expect(error?.code == .unsupported)
    }
  }

  /// Only the descriptor is read to explain a bundle.
  @Test func explainingABundleOpensNoFileThatItNames() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(Array(ParallelsBundleImage().descriptor().utf8), to: "DiskDescriptor.xml")
      var options = OpenOptions()
      options.isForInspection = true
      let chain = try ImageOpener.open(path, options)
      #expect(chain.virtualSize == 3 << 20)
      #expect(throws: EngineError.self) { try chain.readBytes(at: 0, count: 1) }
      #expect((chain.top as? any SelfDescribing)?.formatSpecificInfo?.count == 2)
    }
  }

  @Test func policyGuardsTheFilesOfABundle() throws {
    try withBundle { folder, bundle, models in
      let secret = try folder.write([UInt8](repeating: 9, count: 1 << 20), to: "secret")
      var options = OpenOptions()
      options.policy = ReferencePolicy(.folders([try AllowedFolder(bundle)]))
      #expect(try ImageOpener.open(bundle, options).readAll() == models[2].bytes)
      for name in ["../secret", secret, "./../disk.hdd/../secret"] {
        let image = ParallelsBundleImage()
        let text = image.descriptor {
          $0 = $0.replacingOccurrences(of: "<File>\(image.file(0, 2))</File>", with: "<File>\(name)</File>")
        }
        try Files.write(Array(text.utf8), to: bundle + "/DiskDescriptor.xml")
        let error = #expect(throws: EngineError.self) { try ImageOpener.open(bundle, options) }
        #expect(error?.code == .forbidden, "\(name)")
      }
    }
  }

  static let damages: [(String, String, EngineError.Code)] = [
    ("<Disk_size>6144<", "<Disk_size>6145<", .corrupt), ("<Disk_size>6144<", "<Disk_size><", .corrupt),
    ("<Disk_size>6144<", "<Disk_size>99999999999999999999<", .corrupt),
    ("<Disk_size>6144<", "<Disk_size>18446744073709551615<", .corrupt),
    ("<Disk_size>6144<", "<Disk_size>-1<", .corrupt),
    ("<Start>0<", "<Start>1<", .corrupt), ("<Start>2048<", "<Start>2047<", .corrupt),
    ("<Start>2048<", "<Start>6144<", .corrupt), ("<End>2048<", "<End>0<", .corrupt),
    ("<End>6144<", "<End>18014398509481985<", .corrupt), ("<Blocksize>128<", "<Blocksize>x<", .corrupt),
    ("<Padding>0<", "<Padding>1<", .unsupported),
    ("<LogicSectorSize>512<", "<LogicSectorSize>4096<", .unsupported),
    ("<Engine>{00000000", "<Engine>{953fa4a7", .unsupported),
    ("<Type>Plain<", "<Type>Quilted<", .unsupported),
    ("Version=\"1.0\"", "Version=\"2.0\"", .unsupported), ("Version=\"1.0\"", "", .unsupported),
    ("<Disk_Parameters>", "<Disk>", .corrupt), ("StorageData>", "Storagedata>", .corrupt),
    ("<GUID>{00000002", "<GUID>{00000001", .corrupt), ("<GUID>{00000002", "<GUID>{00000003", .corrupt),
    ("<File>harddisk.hdd.0.{5fba", "<File>harddisk.hdd.9.{5fba", .notFound),
    ("<File>harddisk.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds<", "<File><", .corrupt),
    ("<Snapshots>", "<Snapshots><TopGUID>{00000007-0000-0000-0000-000000000000}</TopGUID>", .corrupt),
    ("<?xml version='1.0' encoding='UTF-8'?>", "<!DOCTYPE x [<!ENTITY a 'b'>]>", .corrupt),
    ("<Snapshots>", String(repeating: "<a>", count: 100), .corrupt),
    ("</Parallels_disk_image>", "", .corrupt),
    // Loops: the oldest snapshot over the newest; a snapshot over itself.
    (
      "{00000000-0000-0000-0000-000000000000}</ParentGUID>",
      "{00000002-1111-2222-3333-444455556666}</ParentGUID>", EngineError.Code.loop
    ),
    (
      "{00000001-1111-2222-3333-444455556666}</ParentGUID>",
      "{00000002-1111-2222-3333-444455556666}</ParentGUID>", EngineError.Code.loop
    ),
  ]

  @Test func damageOfTheDescriptorIsNamed() throws {
    // No plain images: a loop is found as such.
    let image = ParallelsBundleImage(plainStorages: [])
    try withBundle(image) { _, bundle, models in
      #expect(try ImageOpener.open(bundle).readAll() == models[2].bytes)
      for (old, new, code) in Self.damages {
        let text = ParallelsBundleImage(plainStorages: old.contains("Plain") ? [1] : []).descriptor {
          $0 = $0.replacingOccurrences(of: old, with: new)
        }
        #expect(text != image.descriptor() || old.contains("Plain"), "\(old) is not there")
        try Files.write(Array(text.utf8), to: bundle + "/DiskDescriptor.xml")
        let error = #expect(throws: EngineError.self, "\(new)") {
          try ImageOpener.open(bundle, OpenOptions(format: "parallels"))
        }
        #expect(error?.code == code, "\(old) -> \(new): \(error?.message ?? "")")
        #expect(error?.message.isEmpty == false)
      }
    }
  }

  @Test func anyDamagedBytesOfTheDescriptorGiveErrorsOnly() throws {
    var random = SeededRandom.fromEnvironment(or: 68)
    let good = Array(ParallelsBundleImage().descriptor().utf8)
    for _ in 0..<Effort.rounds(300) {
      var bytes = good
      for _ in 0...random.below(3) { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
      if random.oneIn(4) { bytes = Array(bytes.prefix(random.below(bytes.count))) }
      _ = try? ParallelsBundle.read(from: MemoryStore(bytes))
    }
    let large = MemoryStore(Array("<Parallels_disk_image>".utf8) + [UInt8](repeating: 32, count: 5 << 20))
    #expect(throws: EngineError.self) { try ParallelsBundle.read(from: large) }
  }

  @Test func optionIsForBundlesOnly() throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 1)
      try folder.write(ParallelsImage.small.build(&random), to: "a")
      let error = #expect(throws: EngineError.self) {
        try ImageOpener.open(
          ImageSpecification(options: "driver=parallels,snapshot-guid=x,file.filename=\(folder.file("a"))"))
      }
      #expect(error?.message == "'snapshot-guid' is for the disk descriptor of a bundle")
    }
  }
}
