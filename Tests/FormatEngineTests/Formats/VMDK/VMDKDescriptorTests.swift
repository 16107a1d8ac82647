import TestSupport
import Testing

@testable import FormatEngine

@Suite struct VMDKDescriptorTests {
  private static func text(_ lines: [String], separator: String = "\n") -> [UInt8] {
    Array(lines.joined(separator: separator).utf8)
  }

  private static let head = ["# Disk DescriptorFile", "version=1", "CID=12ab34cd", "parentCID=ffffffff"]

  @Test func readsWhatVMwareWrites() throws {
    let bytes = Self.text(
      [
        "# Disk DescriptorFile", "version=1", "encoding=\"windows-1252\"", "CID=fb183c20",
        "parentCID=0a0b0c0d",
        "isNativeSnapshot=\"no\"", "createType=\"twoGbMaxExtentSparse\"",
        "parentFileNameHint=\"C:\\VMs\\base disk.vmdk\"", "", "# Extent description",
        "RW 4192256 SPARSE \"disk-s001.vmdk\"", "RDONLY 63 FLAT \"\\\\.\\PhysicalDrive0\" 63",
        "RW 10 ZERO ", "\tNOACCESS  5  VMFS  \"a b.vmdk\"", "", "#DDB", "ddb.adapterType = \"ide\"",
      ], separator: "\r\n")
    let descriptor = try VMDKDescriptor(bytes)
    #expect(descriptor.contentID == 0xfb18_3c20 && descriptor.parentContentID == 0x0a0b_0c0d)
    #expect(descriptor.createType == "twoGbMaxExtentSparse" && descriptor.hasParent)
    #expect(descriptor.parentFileNameHint == "C:\\VMs\\base disk.vmdk")
    #expect(String(decoding: bytes[descriptor.contentIDRange], as: UTF8.self) == "fb183c20")
    #expect(
      descriptor.extents == [
        VMDKExtentLine(byteCount: 4_192_256 * 512, kind: "SPARSE", fileName: "disk-s001.vmdk"),
        VMDKExtentLine(
          access: .readOnly, byteCount: 63 * 512, kind: "FLAT", fileName: "\\\\.\\PhysicalDrive0",
          hostOffset: 63 * 512),
        VMDKExtentLine(byteCount: 5120, kind: "ZERO", fileName: ""),
        VMDKExtentLine(access: .none, byteCount: 2560, kind: "VMFS", fileName: "a b.vmdk"),
      ])
  }

  /// The text of a part of a sparse file ends at its first NUL, and needs no line end.
  @Test func endsAtTheFirstNUL() throws {
    let bytes = Self.text(Self.head + ["createType=\"vmfs\"", "RW 2 VMFS \"a\""])
    let rest = Array("\nRW 2 VMFS \"b\"\nCID=1\n".utf8)
    #expect(try VMDKDescriptor(bytes).extents.count == 1)
    #expect(try VMDKDescriptor(bytes + [0] + rest).extents.count == 1)
    #expect(try VMDKDescriptor(bytes + rest).extents.count == 2)
  }

  @Test(arguments: [
    "RW 12582912 VMFS \"dummy.vmdk\" 1", "RW -1 SPARSE \"a\"", "RW 18446744073709551616 SPARSE \"a\"",
    "RW 36028797018963968 SPARSE \"a\"", "RW x SPARSE \"a\"", "RW 1 SPARSE \"a", "RW 1 SPARSE", "RW 1", "RW",
    "RW 1 FLAT \"a\"", "RW 1 FLAT \"a\" -1", "RW 1 FLAT \"a\" x", "RW 1 SPARSE \"\"", "RW 1 SPARSE \"a\" 0",
    "RW 1 FLAT \"a\" 36028797018963968",
  ])
  func impossibleExtentLineIsRefused(_ line: String) {
    let error = #expect(throws: EngineError.self) {
      try VMDKDescriptor(Self.text(Self.head + ["createType=\"vmfs\"", line]))
    }
    #expect(error?.message == "Invalid extent line: \(line)")
  }

  @Test func emptyExtentIsNone() throws {
    let lines = Self.head + ["createType=\"vmfs\"", "RW 0 SPARSE \"a\"", "RW 0 ZERO"]
    #expect(try VMDKDescriptor(Self.text(lines)).extents.isEmpty)
  }

  @Test(arguments: [
    ["version=1", "createType=\"vmfs\""], ["CID=", "createType=\"vmfs\""],
    ["CID=xyz", "createType=\"vmfs\""],
    ["CID=123456789", "createType=\"vmfs\""], ["CID=1"], ["CID=1", "createType="],
    ["CID=1", "parentCID=q", "createType=\"vmfs\""], [],
  ])
  func descriptorWithoutItsPartsIsRefused(_ lines: [String]) {
    #expect(throws: EngineError.self) { try VMDKDescriptor(Self.text(lines)) }
  }

  @Test func moreExtentsThanNumbersAreRefused() throws {
    let line = "RW 1 FLAT \"a\" 0\n"
    let start = Array((Self.head + ["createType=\"vmfs\"", ""]).joined(separator: "\n").utf8)
    let most = start + Array(String(repeating: line, count: VMDKExtentLine.maximumCount).utf8)
    #expect(try VMDKDescriptor(most).extents.count == VMDKExtentLine.maximumCount)
    #expect(throws: EngineError.self) { try VMDKDescriptor(most + Array(line.utf8)) }
  }

  /// Every digit is replaced, none is added: nothing of the text moves.
  @Test(arguments: [1, 4, 7, 8])
  func newContentIDHasTheOldOnesLength(_ digitCount: Int) throws {
    for old in [0, 1, 0xf, 0xffff_fffe] as [UInt32] {
      let (value, digits) = try VMDKDescriptor.newContentID(
        after: old, digitCount: digitCount, .unique)
      #expect(value != old && value != VMDKDescriptor.noParent && digits.count == digitCount)
      #expect(UInt32(String(decoding: digits, as: UTF8.self), radix: 16) == value)
    }
  }

  @Test(arguments: [
    ("version=1\n", true), ("# comment\r\n\r\nversion=3\r\nCID=1", true), ("#\n  \n version=2\n", true),
    ("version=4\n", false), ("version=11\n", false), ("", false), ("CID=1\nversion=1\n", false),
    ("# Disk DescriptorFile\n", false), ("\u{eb}\u{63}\u{90}GRUB", false), ("COWD", true), ("KDMV", true),
    ("KDMW", false),
  ])
  func probeClaimsDescriptorsOnly(_ text: String, _ isDescriptor: Bool) throws {
    for bytes in [Array(text.utf8), Array(text.utf8) + [UInt8](repeating: 0, count: 1000)] {
      let score = try bytes.parsed { (span) throws(EngineError) in VMDKFormat.probe(span, path: "a.vmdk") }
      #expect((score == .certain) == isDescriptor)
    }
  }
}
