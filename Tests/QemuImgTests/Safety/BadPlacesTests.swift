import Glibc
import TestSupport
import Testing

/// Full disks, folders and file systems that cannot be written, targets that are sources, outputs that nobody can write: what
/// commands say, end with and leave behind, beside the judge.
@Suite(.enabled(if: geteuid() == 0)) struct BadPlacesTests {
  private static let formats = ["raw", "qcow2", "qcow", "qed", "vdi", "vpc", "vhdx", "parallels"]

  /// All of it is as the judge has it.
  private func expectSame(_ lines: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
    for (ours, judged) in try BadPlaces.compared(lines) {
      #expect(ours == judged, sourceLocation: sourceLocation)
    }
  }

  /// Both fail for the same reason, and nothing else is left by ours than by the judge; the judge's words for what it was
  /// doing are of its own inside. A file that could not be made into an image stays with the judge, and with us only where
  /// all of it was made and then could not be filled.
  private func expectFull(
    _ lines: String, removesFailed: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let reason = ": No space left on device\n"
    for (ours, judged) in try BadPlaces.compared(lines) {
      #expect(ours.status == 1 && judged.status == 1, "\(ours) \(judged)", sourceLocation: sourceLocation)
      #expect(ours.stdout == judged.stdout, "\(ours)", sourceLocation: sourceLocation)
      #expect(
        ours.stderr.hasPrefix("qemu-img: ") && ours.stderr.hasSuffix(reason), "\(ours)",
        sourceLocation: sourceLocation)
      #expect(
        ours.stderr.filter { $0 == "\n" }.count == 1, "\(ours)", sourceLocation: sourceLocation)
      #expect(judged.stderr.contains("No space left on device"), "\(judged)", sourceLocation: sourceLocation)
      let expected = removesFailed ? judged.files.filter { $0 != "new" } : judged.files
      #expect(ours.files == expected, "\(ours)", sourceLocation: sourceLocation)
    }
  }

  // MARK: A full disk

  /// Without VDI, VMDK and VPC, of which the judge says no reason.
  @Test func newImagesOnAFullDisk() throws {
    try expectFull(
      """
      for format in qcow2 qcow qed vhdx parallels; do clean; fill; try create -q -f $format m/new 4M; done
      for options in 'raw -o preallocation=full' 'raw -o preallocation=falloc' 'qcow2 -o preallocation=full' \\
        'qcow2 -o preallocation=falloc'; do
        clean; try create -q -f $options m/new 4M
      done
      clean; try convert -f raw -O raw -o preallocation=full disk.raw m/new
      """, removesFailed: true)
  }

  /// Of all formats; the judge takes a raw one without its first block for made, and aborts for VMDK.
  @Test func theSmallestImagesOnAFullDisk() throws {
    for (ours, _) in try BadPlaces.compared(
      "for format in raw qcow2 qcow qed vdi vmdk vpc vhdx parallels; do clean; fill; try create -q -f $format m/new 4M; done"
    ) {
      #expect(ours.status == 1)
      #expect(ours.stderr == "qemu-img: m/new: Could not write to 'm/new': No space left on device\n")
      #expect(ours.files == ["zz-full"])
    }
  }

  @Test func copiesOnAFullDisk() throws {
    try expectFull(
      """
      for format in raw qcow2 qcow qed vdi vmdk vpc parallels 'qcow2 -c'; do
        clean; try convert -f raw -O $format disk.raw m/new
      done
      clean; echo old > m/new; try convert -f raw -O qcow2 disk.raw m/new
      clean; $J create -q -f qcow2 m/new 4M; try convert -n -f raw -O qcow2 disk.raw m/new
      """)
    try expectSame(
      "for format in raw qcow2 vmdk; do clean; try dd -f raw -O $format if=disk.raw of=m/new bs=64k; done")
  }

  @Test func changesOnAFullDisk() throws {
    try expectFull(
      """
      $J create -q -f qcow2 m/base 3M; $J create -q -f qcow2 -b $PWD/m/base -F qcow2 top
      $J convert -n -f raw -O qcow2 disk.raw top
      try commit -q top
      clean; $J create -q -f qcow2 m/image 1M; $J create -q -f raw m/raw 64k
      try resize --preallocation=full m/image 4M
      try resize --preallocation=metadata m/image 64T
      try resize -f raw --preallocation=full m/raw 4M
      try resize -f raw --preallocation=falloc m/raw 4M
      clean; $J create -q -f qcow2 m/image 1M; fill
      try snapshot -c s m/image
      try amend -q -o refcount_bits=64 m/image
      try resize m/image 64T
      """)
  }

  @Test func anImageOfItsOwnOnAFullDisk() throws {
    try expectSame("$J create -q -f qcow2 -b $PWD/disk.raw -F raw m/top; try rebase -b '' m/top")
  }

  /// What could not be done left the image as it was: sound, with the same content.
  @Test func whatFailedOnAFullDiskIsWhole() throws {
    for (ours, judged) in try BadPlaces.compared(
      """
      $J create -q -f qcow2 m/base 3M; $J create -q -f qcow2 -b $PWD/m/base -F qcow2 top
      $J convert -n -f raw -O qcow2 disk.raw top; truncate -s 3M disk.raw
      $Q commit top 2> /dev/null; try check -q m/base; try compare -q -f qcow2 -F raw top disk.raw
      clean; $J create -q -f qcow2 -b $PWD/disk.raw -F raw m/top
      $Q rebase -b '' m/top 2> /dev/null; try check -q m/top; try compare -q -f qcow2 -F raw m/top disk.raw
      clean; $J create -q -f qcow2 m/image 1M; fill
      for verb in 'snapshot -c s' 'resize -q --preallocation=full' 'bitmap --add'; do
        case $verb in resize*) last=4M;; bitmap*) last=b;; *) last=;; esac
        $Q $verb m/image $last 2> /dev/null; try check -q m/image; try snapshot -l m/image
      done
      """)
    {
      #expect(ours == judged)
      #expect(ours.status == 0 && ours.stderr == "")
    }
  }

  /// The judge tells of it, and ends as if all were well.
  @Test func aBitmapOnAFullDiskIsAnError() throws {
    for (ours, judged) in try BadPlaces.compared(
      "$J create -q -f qcow2 m/image 1M; fill; try bitmap --add m/image b")
    {
      #expect(judged.status == 0 && judged.stderr.contains("No space left on device"))
      #expect(
        ours.status == 1 && ours.stderr.hasSuffix("Could not write to 'm/image': No space left on device\n"))
      #expect(ours.files == judged.files)
    }
  }

  // MARK: No right to write

  private static let changes = """
    for format in \(formats.joined(separator: " ")) vmdk; do
      try create -q -f $format m/new 1M; try convert -f raw -O $format disk.raw m/new
    done
    try dd -f raw -O raw if=disk.raw of=m/new
    try create -q -f qcow2 m/image 1M; try convert -f raw -O qcow2 disk.raw m/image
    try commit top; try commit m/top; try rebase -b '' m/top; try rebase -u -b '' m/top
    try resize m/image 2M; try snapshot -c s m/image; try snapshot -l m/image; try bitmap --add m/image b
    try amend -o compat=0.10 m/image; try check -r all m/image; try check m/image
    try convert -n -f raw -O qcow2 disk.raw m/image; try bench -w -c 1 m/image; try measure -O qcow2 m/image

    """
  private static let images = """
    $J create -q -f qcow2 m/image 1M; $J create -q -f qcow2 m/base 1M; $J create -q -f qcow2 -b base -F qcow2 m/top
    $J create -q -f qcow2 -b $PWD/m/base -F qcow2 top; chmod 644 top m/*

    """

  @Test func aReadOnlyFileSystem() throws {
    try expectSame(Self.images + "mount -o remount,ro m\n" + Self.changes)
  }

  @Test func aFolderAndFilesOfSomebodyElse() throws {
    try expectSame(
      Self.images + "chmod 755 m\nAS='setpriv --reuid=65534 --regid=65534 --clear-groups'\n" + Self.changes)
  }

  @Test func filesThatCannotBeRead() throws {
    try expectSame(
      Self.images
        + """
        chmod 600 disk.raw m/base m/image; AS='setpriv --reuid=65534 --regid=65534 --clear-groups'
        for verb in info check map measure compare 'snapshot -l'; do try $verb m/image; done
        try info --backing-chain m/top; try map m/top; try convert -O raw m/top /dev/null
        try convert -f raw -O raw disk.raw /dev/null; try create -q -f qcow2 -b base -F qcow2 m/new
        """)
  }

  // MARK: Targets that are none

  @Test func targetsThatAreSources() throws {
    try expectSame(
      """
      truncate -s 512k m/disk; ln m/disk m/link; ln -s disk m/symlink; $J create -q -f qcow2 m/base 1M
      for target in m/disk m/link m/symlink ./m/disk; do
        try convert -f raw -O raw m/disk $target; try convert -f raw -O qcow2 m/disk $target
      done
      try convert -n -f raw -O raw m/disk m/disk
      try create -q -f qcow2 -b base -F qcow2 m/base
      """)
  }

  @Test func foldersAndNamesThatLeadNowhere() throws {
    try expectSame(
      """
      mkdir m/folder
      for target in m/folder m/missing/new '' m/disk.raw/new; do
        for format in raw qcow2 qed; do
          try create -q -f $format "$target" 1M; try convert -f raw -O $format disk.raw "$target"
        done
        try dd -f raw if=disk.raw of="$target"; try resize -f raw "$target" 1M
      done
      """)
  }

  // MARK: Outputs that nobody can write

  /// On purpose: the judge does not look whether its output came anywhere.
  @Test(arguments: ["> /dev/full", ">&-"]) func outputThatIsLostIsAnError(_ redirection: String) throws {
    for (ours, judged) in try BadPlaces.compared(
      """
      run() { timeout 20 $Q "$@" \(redirection) 2> /mnt/log/err; }; : > /mnt/log/out
      $J create -q -f qcow2 m/image 1M
      try info m/image; try check m/image; try map m/image; try measure --size 1M; try compare m/image m/image
      try create -f raw m/new 1M; try resize m/image 2M; try convert -p -f raw -O qcow2 m/new m/copy; try --help
      """)
    {
      #expect(judged.status == 0 && judged.stderr == "", "\(judged)")
      #expect(ours.status == 1, "\(ours)")
      #expect(ours.stderr == "qemu-img: Could not write to standard output\n")
      #expect(ours.files == judged.files)
    }
  }

  @Test func aDeviceThatIsAlwaysFull() throws {
    for (ours, _) in try BadPlaces.compared(
      "for format in qcow2 vmdk vdi; do try create -q -f $format /dev/full 64k; done; try convert -f raw -O raw disk.raw /dev/full"
    ) {
      #expect(ours.status == 1 && ours.stderr.hasPrefix("qemu-img: "), "\(ours)")
      #expect(ours.stderr.contains("No space left on device") || ours.stderr.contains("Cannot grow device"))
    }
  }
}
