import TestSupport
import Testing

/// Names of the host that are no UTF-8.
@Suite(.enabled(if: MountedImage.isPossible)) struct NameTests {
  @Test func imageAndMountPointAreBytes() throws {
    try TemporaryFolder.with { folder in
      let script = """
        image=$(printf 'im\\377age'); point=$(printf 'po\\200int'); mkdir "$point"
        head -c 100000 /dev/urandom > "$image"
        \(try BuiltProduct.imgfs.path) --format raw "$image" "$point" || exit 1
        head -c 100000 "$point/disk.raw" | cmp - "$image" && echo same
        \(try BuiltProduct.imgfs.path) --unmount "$point" && echo unmounted
        \(try BuiltProduct.imgfs.path) "$image.missing" "$point" 2>&1 | od -c | grep -c 377
        """
      let result = try TestProcess.run(["/bin/sh", "-c", script], folder: folder.path).expecting()
      #expect(result.stdoutText == "same\nunmounted\n1\n", "\(result.stdoutText)\(result.stderrText)")
    }
  }
}
