import Testing

@testable import imgfs

@Suite struct MountTableTests {
  @Test func readsALineOfTheKernelsTable() throws {
    let line =
      "88 26 0:52 / /mnt/with\\040space ro,nosuid shared:4 master:1 - fuse.imgfs a\\011b\\134c.qcow2 ro,user_id=0"
    let entry = try #require(MountEntry(line: Substring(line)))
    #expect(entry.id == "88" && entry.device == "0:52" && entry.isReadOnly)
    #expect(entry.mountPoint == "/mnt/with space")
    #expect(entry.type == "fuse.imgfs")
    #expect(entry.source == "a\tb\\c.qcow2")
  }

  @Test func readsALineWithoutOptionalFields() throws {
    let entry = try #require(MountEntry(line: "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw"))
    #expect(entry.mountPoint == "/" && entry.type == "ext4" && !entry.isReadOnly)
  }

  @Test(arguments: ["", "1 2 3", "1 2 0:1 / /mnt ro", "1 2 0:1 / /mnt ro - "])
  func refusesOtherText(_ line: String) {
    #expect(MountEntry(line: Substring(line)) == nil)
  }

  @Test func findsWhatIsMounted() {
    #expect(MountEntry.find(at: "/proc")?.type == "proc")
    #expect(MountEntry.find(at: "/proc/no-such-place") == nil)
  }

  /// A mark that combines with the character before it belongs to the field, and takes nothing away from what parts fields.
  @Test func readsNamesThatBeginWithACombiningMark() throws {
    let line = "88 26 0:52 / /mnt ro - fuse.imgfs \u{301}a.qcow2 ro,user_id=0"
    let entry = try #require(MountEntry(line: Substring(line)))
    #expect(entry.source.utf8.elementsEqual("\u{301}a.qcow2".utf8))
    #expect(entry.type == "fuse.imgfs" && entry.isReadOnly)
  }
}
