import FormatEngine

/// The partitions of a disk as files, each a window of the disk:
///
///     partitions/  1.raw  5.raw
///                  by-label/NAME  by-partlabel/NAME  by-uuid/UUID  by-partuuid/UUID  -> ../1.raw
///
/// There are only such folders of links as have any. The names are those of udev's /dev/disk, made safe in this
/// tree's way; of two that are the same the second gets a number.
extension ImageTree {
  /// The folder of a disk's partitions, empty where it has none.
  func partitionsNode(_ view: DiskView, _ place: Place, token: String = "") -> Node {
    let partitions = DiskPartitions(view)
    return folderNode(
      Array("partitions".utf8), token: token, place, time: place.time, followsChanges: view.follows,
      extended: Self.attributes(of: partitions)
    ) { (place) throws(EngineError) in
      let found: DiskPartitions.Found
      do throws(EngineError) {
        found = try partitions.current()
      } catch {
        // A disk that cannot be read where the table would be.
        return [self.errorNode(error, place)]
      }
      let files = (found.table?.partitions ?? []).map { self.partitionNode($0, of: partitions, place) }
      return files
        + PartitionLinks.allCases.compactMap { links in
          links.names(of: found).isEmpty ? nil : self.linksNode(links, partitions, place)
        }
    }
  }

  private func partitionNode(_ partition: Partition, of partitions: DiskPartitions, _ place: Place) -> Node {
    let range = partition.start..<partition.start + partition.byteCount
    // The same bytes are the same file, whatever comes to lie in them.
    return diskNode(
      "\(partition.number).raw", partitions.view.piece(range), place, token: "\(range)",
      Self.attributes(ofPartition: partition.number, of: partitions))
  }

  private func linksNode(_ links: PartitionLinks, _ partitions: DiskPartitions, _ place: Place) -> Node {
    folderNode(
      Array(links.folderName.utf8), place, time: place.time, followsChanges: partitions.view.follows
    ) { (place) throws(EngineError) in
      let names = links.names(of: try partitions.current())
      return zip(names, SafeName.unique(names.map(\.name))).map { link, name in
        let target = "../\(link.number).raw"
        return self.node(name, token: target, place) { _ in .link(Array(target.utf8)) }
      }
    }
  }

  // MARK: Extended attributes

  private static func attributes(of partitions: DiskPartitions) -> ExtendedAttributes {
    ExtendedAttributes { () throws(EngineError) in
      guard let table = try partitions.current().table else { return [] }
      var list = [
        (name: "table", value: table.scheme.rawValue),
        (name: "sector_size", value: String(table.sectorByteCount)),
      ]
      if let uuid = table.uuid { list.append((name: "table_uuid", value: uuid)) }
      if !table.findings.isEmpty {
        list.append((name: "findings", value: table.findings.joined(separator: "\n")))
      }
      return list
    }
  }

  private static func attributes(ofPartition number: Int, of partitions: DiskPartitions) -> ExtendedAttributes
  {
    ExtendedAttributes { () throws(EngineError) in
      let found = try partitions.current()
      guard let index = found.table?.partitions.firstIndex(where: { $0.number == number }),
        let partition = found.table?.partitions[index]
      else { return [] }
      let content = found.contents[index]
      let optional = [
        ("partition_uuid", partition.uuid), ("partition_name", partition.name), ("content", content?.type),
        ("label", content?.label), ("uuid", content?.uuid),
      ]
      return [
        (name: "offset", value: String(partition.start)),
        (name: "size", value: String(partition.byteCount)),
        (name: "partition_type", value: partition.type),
        (name: "bootable", value: partition.isBootable ? "yes" : "no"),
      ] + optional.compactMap { name, value in value.map { (name: name, value: $0) } }
    }
  }
}

/// A kind of names that partitions have, and the folder with links of these names.
enum PartitionLinks: String, CaseIterable, Sendable {
  case label, partlabel, uuid, partuuid

  var folderName: String { "by-\(rawValue)" }

  /// The names that there are, and the numbers of the partitions that have them.
  func names(of found: DiskPartitions.Found) -> [(name: String, number: Int)] {
    zip(found.table?.partitions ?? [], found.contents).compactMap { partition, content in
      let name =
        switch self {
        case .label: content?.label
        case .partlabel: partition.name
        case .uuid: content?.uuid
        case .partuuid: partition.uuid
        }
      return name.map { ($0, partition.number) }
    }
  }
}
