import CommandLine
import Testing

@testable import imgfs

/// The command lines that mount(8) has for its helpers.
@Suite struct MountHelperLineTests {
  private func complaint(_ arguments: String...) -> String? {
    do throws(UsageError) {
      _ = try MountHelperLine.parse(arguments)
      return nil
    } catch { return error.sentence }
  }

  @Test(arguments: [
    ("/sbin/mount.imgfs", true), ("mount.imgfs", true), ("/sbin/mount.fuse.imgfs", true), ("imgfs", false),
    ("/mount.imgfs/imgfs", false), ("", false),
  ])
  func isKnownByItsName(_ path: String, _ isHelper: Bool) {
    #expect(MountHelperLine.isName(path) == isHelper)
  }

  @Test func takesWhatMountGives() throws {
    var expected = MountOptions()
    (expected.images, expected.mountPoint) = (["image"], "/mnt")
    (expected.givenAccess, expected.format, expected.passedOn) = (.readOnly, "raw", ["nosuid"])
    #expect(
      try MountHelperLine.parse(["image", "/mnt", "-nv", "-o", "ro,nosuid,format=raw", "-t", "fuse.imgfs"])
        == expected)
    expected.isRehearsal = true
    expected.namespace = "/proc/1/ns/mnt"
    #expect(
      try MountHelperLine.parse([
        "image", "/mnt", "-f", "-N", "/proc/1/ns/mnt", "-o", "ro,nosuid,format=raw", "-s",
      ]) == expected)
  }

  @Test func passesOverUnknownMountOptionsWhereAsked() throws {
    #expect(try MountHelperLine.parse(["a", "b", "-s", "-o", "nosuch,nosuch=1,ro"]).givenAccess == .readOnly)
    #expect(complaint("a", "b", "-o", "nosuch") == "Unknown mount option 'nosuch'")
    #expect(complaint("a", "b", "-s", "-o", "uid=x") == "The mount option 'uid' takes a number, not 'x'")
  }

  @Test func refusesTheRest() {
    #expect(complaint("a") == "Expecting an image and a mount point")
    #expect(complaint("a", "b", "c") == "Expecting an image and a mount point")
    #expect(complaint("a", "b", "-d") == "unrecognized option '-d'")
    #expect(
      complaint("a", "b", "-o", "ro,shrink") == "The mount option 'shrink' needs 'rw' or --overlay beside it")
  }
}
