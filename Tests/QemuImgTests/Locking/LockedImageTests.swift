import FormatEngine
import Glibc
import TestSupport
import Testing

/// Commands on images that somebody else has open, beside the same commands of the judge.
@Suite struct LockedImageTests {
  /// Somebody has a file open: a virtual machine, a backup, an export.
  struct Situation: Sendable, CustomTestStringConvertible {
    var testDescription: String
    /// The node that is held open.
    var node: String
    var commands: [String]
  }

  /// Made anew for each program, so that commands that are not refused find the same.
  private static let images = [
    "create -q -f qcow2 base.q 1M", "create -q -f qcow2 -b base.q -F qcow2 top.q",
    "create -q -f qcow2 other.q 1M", "bitmap --add other.q old", "create -q -f raw disk.raw 1M",
    "create -q -f qcow2 -b disk.raw -F raw over.q", "create -q -f qcow2 -o data_file=data.raw data.q 1M",
    "create -q -f vmdk -o subformat=twoGbMaxExtentFlat flat.vmdk 1M",
    "create -q -f vmdk -o subformat=twoGbMaxExtentSparse sparse.vmdk 1M",
    "create -q -f vmdk single.vmdk 1M",
  ]

  private static let ofAnImage = [
    "info NAME", "info -f qcow2 NAME", "info --backing-chain NAME", "map NAME", "check NAME",
    "check -r all NAME", "compare NAME other.q", "compare other.q NAME", "convert NAME new.raw",
    "convert -O qcow2 NAME new.q", "convert -n -O qcow2 other.q NAME", "convert other.q NAME",
    "convert -O qcow2 other.q NAME", "convert -O qcow2 -B NAME -F qcow2 other.q new.q",
    "rebase -b other.q -F qcow2 NAME", "rebase -u -b other.q -F qcow2 NAME",
    "rebase -b NAME -F qcow2 other.q",
    "rebase -u -b \"\" NAME", "resize NAME 2M", "snapshot -c a NAME", "snapshot -l NAME",
    "snapshot -a a NAME",
    "amend -o compat=1.1 NAME", "bitmap --add NAME b", "bitmap --add --merge old -b NAME other.q c",
    "measure -O raw NAME", "measure -O qcow2 --image-opts driver=qcow2,file.filename=NAME",
    "dd if=NAME of=new.raw", "dd if=other.q of=NAME", "dd -O qcow2 if=other.q of=NAME",
    "create -q -f qcow2 -b NAME -F qcow2 new.q", "create -f qcow2 NAME 1M", "create -f raw NAME 1M",
    "create -f vdi NAME 1M", "commit NAME",
    "bench -c 1 NAME", "bench -w -c 1 NAME",
  ]

  private static let shared = [
    "info -U NAME", "info -U --backing-chain NAME", "map -U NAME", "check -U NAME", "check -U -r all NAME",
    "compare -U NAME other.q", "convert -U NAME new.raw", "convert -U other.q NAME",
    "convert -U -O qcow2 -B NAME -F qcow2 other.q new.q", "rebase -U -b NAME -F qcow2 other.q",
    "rebase -U -b other.q -F qcow2 NAME", "snapshot -U -l NAME", "snapshot -U -c a NAME",
    "snapshot -l -U NAME",
    "measure -U -O raw NAME", "dd -U if=NAME of=new.raw", "dd -U if=other.q of=NAME",
    "check --force-share NAME", "amend -U -o compat=1.1 NAME", "commit -U NAME", "resize -U NAME 2M",
    "create -U -f qcow2 NAME 1M", "bitmap -U --add NAME b",
    "bench -U -c 1 NAME", "bench -U -w -c 1 NAME",
  ]

  private static let byOptions = [
    "info --image-opts driver=qcow2,file.filename=base.q",
    "info --image-opts driver=qcow2,file.filename=base.q,file.locking=off",
    "info --image-opts driver=qcow2,file.filename=base.q,file.locking=on",
    "info --image-opts driver=qcow2,file.filename=base.q,force-share=on",
    "check --image-opts driver=qcow2,file.filename=base.q,file.force-share=on",
    "check --image-opts driver=qcow2,file.filename=base.q,force-share=on,file.force-share=off",
    "check --image-opts driver=raw,file.driver=qcow2,file.file.filename=base.q",
    "check --image-opts driver=qcow2,file.filename=top.q,backing.force-share=on",
    "info --image-opts driver=file,filename=base.q", "info --image-opts driver=raw,file.filename=base.q",
    "map --image-opts driver=raw,size=512,file.filename=base.q",
    "info -U --image-opts driver=qcow2,file.filename=base.q,force-share=on",
    "info -U --image-opts driver=qcow2,file.filename=base.q,force-share=off",
    "compare -U --image-opts driver=qcow2,file.filename=base.q,force-share=off other.q",
    "resize --image-opts driver=qcow2,file.filename=base.q,force-share=on 2M",
    "resize --image-opts driver=qcow2,file.filename=base.q,file.locking=off 2M",
    "check json:{\"driver\":\"qcow2\",\"file.filename\":\"base.q\",\"force-share\":true}",
    "check -U json:{\"driver\":\"qcow2\",\"file.filename\":\"base.q\",\"force-share\":false}",
    "info -U --image-opts driver=null-co,force-share=off",
  ]

  private static let ofPlainDisks = [
    "info NAME", "info -f raw NAME", "map -f raw NAME", "compare -f raw -F raw NAME NAME",
    "convert -f raw NAME new.raw", "convert -U -f raw NAME new.raw", "measure -O qcow2 -f raw NAME",
    "dd -f raw if=NAME of=new.raw", "resize -f raw NAME 2M", "create -f raw NAME 1M",
    "convert -n -O raw other.q NAME", "convert -O raw other.q NAME", "map over.q", "check over.q",
    "commit over.q",
    "convert over.q new.raw", "rebase -b other.q -F qcow2 over.q", "resize over.q 2M", "commit over.q",
    "bench -f raw -c 1 NAME", "bench -f raw -w -c 1 NAME",
    // The last one: the judge takes a file away that it could not make into an image.
    "create -f qcow2 NAME 1M",
  ]

  // Not `check`: it leaves data files closed here.
  private static let ofSeveralFiles = [
    "map data.q", "bitmap --add data.q b", "resize data.q 2M", "convert -O qcow2 data.q new.q",
    "map flat.vmdk",
    "convert -n -O vmdk other.q flat.vmdk", "map sparse.vmdk", "convert -n -O vmdk other.q sparse.vmdk",
    "check -U sparse.vmdk", "map -U data.q", "convert -O vmdk other.q sparse.vmdk",
  ]

  private static func on(_ name: String, _ commands: [String]) -> [String] {
    commands.map { $0.split(separator: " ").map { $0 == "NAME" ? name : String($0) }.joined(separator: " ") }
      .map { $0.replacing("=NAME", with: "=\(name)") }
  }

  private static func image(_ name: String, _ more: String = "") -> String {
    "qcow2,file.driver=file,file.filename=\(name)\(more)"
  }

  private static func file(_ name: String, _ taking: [String], _ withholding: [String]) -> String {
    Holder.file(name, taking: taking, withholding: withholding)
  }

  static let situations: [Situation] = {
    var result = [
      Situation(
        testDescription: "written", node: image("base.q"),
        commands: on("base.q", ofAnImage + shared) + byOptions),
      Situation(
        testDescription: "base written", node: image("base.q"), commands: on("top.q", ofAnImage + shared)),
      Situation(
        testDescription: "read", node: image("base.q", ",read-only=on"),
        commands: on("base.q", ofAnImage + shared)),
      Situation(
        testDescription: "base read", node: image("base.q", ",read-only=on"), commands: on("top.q", ofAnImage)
      ),
      Situation(
        testDescription: "read by force", node: image("base.q", ",read-only=on,force-share=on"),
        commands: on("base.q", shared)),
      Situation(
        testDescription: "guest's plain disk", node: file("disk.raw", ["write"], ["write"]),
        commands: on("disk.raw", ofPlainDisks)),
      Situation(
        testDescription: "parent written", node: "vmdk,file.driver=file,file.filename=single.vmdk",
        commands: [
          "create -q -f vmdk -b single.vmdk -F vmdk new.vmdk",
          "convert -O vmdk -B single.vmdk -F vmdk other.q new.vmdk",
        ]),
    ]
    for permission in ["consistent-read", "write", "resize"] {
      result.append(
        Situation(
          testDescription: "plain disk, \(permission) withheld", node: file("disk.raw", [], [permission]),
          commands: on("disk.raw", ofPlainDisks)))
      for name in ["data.raw", "flat-f001.vmdk"] {
        result.append(
          Situation(
            testDescription: "\(name), \(permission) withheld", node: file(name, [], [permission]),
            commands: ofSeveralFiles))
      }
    }
    for name in ["data.raw", "flat-f001.vmdk", "sparse-s001.vmdk"] {
      result.append(
        Situation(
          testDescription: "\(name) written", node: file(name, ["write", "resize"], ["write", "resize"]),
          commands: ofSeveralFiles))
    }
    return result
  }()

  /// What our commands print to a terminal, and their exit status, are the judge's.
  @Test(arguments: situations)
  func saysWhatTheJudgeSays(_ situation: Situation) throws {
    let program = try BuiltProduct.qemuImg.path
    let (ours, judges) = try Threads.both(
      { try outcomes(situation, of: program) }, { try outcomes(situation, of: ReferenceTool.qemuImg.path) })
    for ((command, our), judge) in zip(zip(situation.commands, ours), judges) {
      #expect(our.status == judge.status, "\(command): \(our.stderrText)")
      #expect(our.stderrText == judge.stderrText, "\(command)")
      if judge.status != 0 { #expect(our.stdoutText == judge.stdoutText, "\(command)") }
    }
  }

  private func outcomes(_ situation: Situation, of program: String) throws -> [ProcessResult] {
    try TemporaryFolder.with { folder in
      for command in Self.images { try run(ReferenceTool.qemuImg.path, command, folder).expecting(0) }
      return try Holder.with(situation.node, in: folder.path) {
        try situation.commands.map { try run(program, $0, folder) }
      }
    }
  }

  private func run(_ program: String, _ command: String, _ folder: TemporaryFolder) throws -> ProcessResult {
    let words = command.split(separator: " ").map { $0 == "\"\"" ? "" : String($0) }
    return try TestProcess.run([program] + words, environment: ["LC_ALL": "C"], folder: folder.path)
  }

  /// A file that cannot be locked for its new content keeps the old one.
  @Test func whatIsInUseIsNotOverwritten() throws {
    try TemporaryFolder.with { folder in
      for command in Self.images { try run(ReferenceTool.qemuImg.path, command, folder).expecting(0) }
      try Holder.with(Self.image("base.q", ",read-only=on"), in: folder.path) {
        let before = try Files.read(folder.file("base.q"))
        for command in [
          "create -f raw base.q 3M", "create -f qcow2 base.q 3M", "create -f vmdk base.q 3M",
          "convert -O raw other.q base.q", "convert -O qcow2 other.q base.q", "dd if=other.q of=base.q",
        ] {
          #expect(try run(BuiltProduct.qemuImg.path, command, folder).status == 1, "\(command)")
          #expect(try Files.read(folder.file("base.q")) == before, "\(command)")
        }
      }
    }
  }

  /// Our own commands keep QEMU's programs out, and only as long as they run.
  @Test(arguments: [
    (
      "convert -p -O qcow2 -r 1k full.q new.q",
      ["info new.q", "snapshot -l new.q", "resize new.q 2M", "resize full.q 2M", "create -f raw new.q 1M"],
      ["info full.q", "map full.q", "info -U new.q"]
    ),
    (
      "convert -p -f raw -O raw -r 1k full.raw new.raw",
      ["resize -f raw full.raw 2M", "create -f raw full.raw 1M"],
      ["info -f raw full.raw", "convert -f raw -O raw full.raw x.raw", "info -f raw new.raw"]
    ),
    (
      "commit -p -r 1k full.q",
      ["info base.q", "map full.q", "check base.q", "resize base.q 2M", "commit full.q"],
      ["info -U base.q", "check -U full.q"]
    ),
  ])
  func judgeIsKeptOut(_ command: String, _ refused: [String], _ allowed: [String]) throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "base.q", "16M", folder: folder.path)
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base.q", "-F", "qcow2", "full.q", folder: folder.path)
      try ReferenceTool.io(["write -P 3 0 16M"], on: "full.q", format: "qcow2", folder: folder.path)
      try folder.write([UInt8](repeating: 3, count: 16 << 20), to: "full.raw")
      let process = try TestProcess(
        ["/bin/sh", "-c", "exec \"$0\" \(command) >progress", BuiltProduct.qemuImg.path], folder: folder.path)
      defer { process.signal(SIGKILL) }
      // Until it is at work, and has all open. A look by the judge before that might keep it out itself.
      let isAtWork = MountedImage.waits {
        // Two steps of progress: the first one is 0.
        ((try? Files.read(folder.file("progress"))) ?? []).count { $0 == UInt8(ascii: "(") } >= 2
      }
      #expect(isAtWork)
      for command in refused { #expect(isLockFailure(command, folder), "\(command)") }
      for command in allowed {
        let result = try run(ReferenceTool.qemuImg.path, command, folder)
        #expect(result.status == 0, "\(command): \(result.stderrText)")
      }
      #expect(process.isRunning)
      process.signal(SIGKILL)
      _ = process.wait()
      for command in refused { #expect(!isLockFailure(command, folder), "\(command)") }
    }
  }

  private func isLockFailure(_ command: String, _ folder: TemporaryFolder) -> Bool {
    let text = (try? run(ReferenceTool.qemuImg.path, command, folder).stderrText) ?? ""
    return text.contains(" lock\nIs another process using the image [")
  }
}
