import FormatEngine
import Synchronization

/// Builds the tree of one image: its disk, its internal snapshots, the files that it is made of.
///
///     disk.raw  info.json  map.json
///     snapshots/NAME/  disk.raw  info.json
///     layers/N-NAME/   disk.raw  info.json  snapshots/
///
/// Folders are filled when they are first looked into: an image may have thousands of snapshots.
final class ImageTree: Sendable {
  /// The inode number of the root, which FUSE fixes.
  static let rootID: UInt64 = 1

  private let chain: ImageChain
  private let nextID = Atomic<UInt64>(ImageTree.rootID + 1)

  init(_ chain: ImageChain) { self.chain = chain }

  func makeRoot() -> Node {
    let time = Self.time(of: chain.members[0])
    let folder = Folder { () throws(EngineError) in
      let chain = self.chain
      return [
        self.diskNode(in: Self.rootID, time, listedByteCount: chain.virtualSize) { () throws(EngineError) in
          chain
        },
        self.textNode("info.json", in: Self.rootID, time) { () throws(EngineError) in
          try Description.info(of: chain.members[0])
        },
        self.textNode("map.json", in: Self.rootID, time) { () throws(EngineError) in
          try Description.map(of: chain)
        },
        self.snapshotsNode(ofLayerAt: 0, in: Self.rootID, time),
        self.folderNode("layers", in: Self.rootID, time) { (id) throws(EngineError) in self.layerNodes(in: id)
        },
      ]
    }
    return Node(id: Self.rootID, parentID: Self.rootID, name: [], time: time, content: .folder(folder))
  }

  private func layerNodes(in parentID: UInt64) -> [Node] {
    chain.members.indices.map { depth in
      let member = chain.members[depth]
      let fileName = SafeName.single("\(depth)-" + ImageName.lastComponent(of: member.path))
      let time = Self.time(of: member)
      return folderNode(fileName, in: parentID, time) { (id) throws(EngineError) in
        let chain = self.chain
        return [
          self.diskNode(in: id, time, listedByteCount: member.layer.virtualSize) { () throws(EngineError) in
            chain.lower(from: depth)
          },
          self.textNode("info.json", in: id, time) { () throws(EngineError) in
            try Description.info(of: member)
          },
          self.snapshotsNode(ofLayerAt: depth, in: id, time),
        ]
      }
    }
  }

  /// The folder of a layer's internal snapshots; empty for formats that have none.
  private func snapshotsNode(ofLayerAt depth: Int, in parentID: UInt64, _ time: FileTime) -> Node {
    folderNode("snapshots", in: parentID, time) { (id) throws(EngineError) in
      guard let layer = self.chain.members[depth].layer as? any SnapshotKeeping else { return [] }
      let records = try layer.snapshots()
      let names = SafeName.unique(records.map(\.name))
      let descriptions = SnapshotDescriptions(self.chain.members[depth])
      return zip(records, names).map { record, name in
        self.snapshotNode(record, name, descriptions, of: layer, at: depth, in: id)
      }
    }
  }

  private func snapshotNode(
    _ record: SnapshotRecord, _ name: [UInt8], _ descriptions: SnapshotDescriptions,
    of layer: any SnapshotKeeping, at depth: Int, in parentID: UInt64
  ) -> Node {
    let time = FileTime(
      seconds: record.dateSeconds, nanoseconds: Int64(min(record.dateNanoseconds, 999_999_999)))
    return folderNode(name, in: parentID, time) { (id) throws(EngineError) in
      let chain = self.chain
      return [
        self.diskNode(in: id, time, listedByteCount: record.virtualSize) { () throws(EngineError) in
          chain.replacing(layerAt: depth, with: try layer.openSnapshot(record))
        },
        self.textNode("info.json", in: id, time) { () throws(EngineError) in try descriptions.info(of: record)
        },
      ]
    }
  }

  private func diskNode(
    in parentID: UInt64, _ time: FileTime, listedByteCount: UInt64,
    open: @escaping @Sendable () throws(EngineError) -> ImageChain
  ) -> Node {
    Node(
      id: takeID(), parentID: parentID, name: Array("disk.raw".utf8), time: time,
      content: .disk(DiskFile(listedByteCount: listedByteCount, open: open)))
  }

  private func textNode(
    _ name: String, in parentID: UInt64, _ time: FileTime,
    _ write: @escaping @Sendable () throws(EngineError) -> [UInt8]
  ) -> Node {
    Node(
      id: takeID(), parentID: parentID, name: Array(name.utf8), time: time, content: .text(TextFile(write)))
  }

  private func folderNode(
    _ name: String, in parentID: UInt64, _ time: FileTime,
    _ make: @escaping @Sendable (UInt64) throws(EngineError) -> [Node]
  ) -> Node {
    folderNode(Array(name.utf8), in: parentID, time, make)
  }

  /// A folder that `make` fills; it is given the folder's own inode number.
  private func folderNode(
    _ name: [UInt8], in parentID: UInt64, _ time: FileTime,
    _ make: @escaping @Sendable (UInt64) throws(EngineError) -> [Node]
  ) -> Node {
    let id = takeID()
    let folder = Folder { () throws(EngineError) in try make(id) }
    return Node(id: id, parentID: parentID, name: name, time: time, content: .folder(folder))
  }

  private func takeID() -> UInt64 { nextID.add(1, ordering: .relaxed).oldValue }

  /// When the image file was last changed.
  private static func time(of member: ChainMember) -> FileTime {
    guard let file = member.file as? FileStore, let time = try? file.modificationTime() else {
      return FileTime(seconds: 0, nanoseconds: 0)
    }
    return FileTime(seconds: time.seconds, nanoseconds: time.nanoseconds)
  }
}
