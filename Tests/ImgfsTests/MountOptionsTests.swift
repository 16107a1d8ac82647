import Testing

@testable import imgfs

/// Serialised: getopt's state is global.
@Suite(.serialized) struct MountOptionsTests {
  private func mount(_ arguments: String...) throws -> MountOptions {
    guard case .mount(let options) = try MountOptions.parse(arguments) else {
      throw UsageError(sentence: "not a mount")
    }
    return options
  }

  private func complaint(_ arguments: String...) -> String? {
    do throws(UsageError) {
      _ = try MountOptions.parse(arguments)
      return "none"
    } catch { return error.sentence }
  }

  @Test func takesAnImageAndAMountPoint() throws {
    let options = try mount("disk.qcow2", "/mnt")
    #expect(options == MountOptions(image: "disk.qcow2", mountPoint: "/mnt"))
  }

  @Test func takesOptionsBeforeBetweenAndAfter() throws {
    let options = try mount("-f", "disk", "-F", "qcow2", "mnt", "-s", "--backing=none", "--pid-file", "p")
    #expect(
      options.isForeground && options.isSingleThreaded && !options.isDebugging && !options.followsBacking)
    #expect(options.format == "qcow2" && options.pidFile == "p")
    #expect(options.image == "disk" && options.mountPoint == "mnt")
  }

  @Test func staysInFrontToDebug() throws {
    let options = try mount("-d", "a", "b")
    #expect(options.isForeground && options.isDebugging)
  }

  @Test func takesNamesThatBeginWithAHyphenAfterTwo() throws {
    #expect(try mount("--", "-a", "-b").image == "-a")
  }

  @Test func understandsMountOptions() throws {
    let options = try mount(
      "-o", "ro,uid=1000,gid=100,umask=027,allow_other", "-o",
      "noexec,fsname=a\\,b,x-systemd.idle-timeout=3,,", "a", "b")
    #expect(options.userID == 1000 && options.groupID == 100 && options.umask == 0o27)
    #expect(options.passedOn == ["allow_other", "noexec", "fsname=a,b"])
  }

  @Test func refusesWhatItDoesNotKnow() {
    #expect(complaint("-o", "nosuch", "a", "b") == "Unknown mount option 'nosuch'")
    #expect(complaint("-o", "uid", "a", "b") == "Unknown mount option 'uid'")
    #expect(complaint("-o", "allow_other=1", "a", "b") == "Unknown mount option 'allow_other=1'")
    #expect(complaint("-o", "uid=me", "a", "b") == "The mount option 'uid' takes a number, not 'me'")
    #expect(complaint("-o", "umask=9", "a", "b") == "The mount option 'umask' takes a number, not '9'")
    #expect(complaint("--backing", "some", "a", "b") == "--backing is 'follow' or 'none', not 'some'")
    #expect(complaint("a") == "Expecting an image and a mount point")
    #expect(complaint("a", "b", "c") == "Expecting an image and a mount point")
    #expect(complaint() == "Expecting an image and a mount point")
    #expect(complaint("--unmount") == "--unmount takes one mount point")
    // getopt has said it already.
    #expect(complaint("--nosuch", "a", "b") == nil)
    #expect(complaint("-F") == nil)
  }

  @Test func understandsTheOtherWork() throws {
    #expect(try MountOptions.parse(["--unmount", "mnt"]) == .unmount("mnt"))
    #expect(try MountOptions.parse(["--help"]) == .help)
    #expect(try MountOptions.parse(["--version", "whatever"]) == .version)
  }
}
