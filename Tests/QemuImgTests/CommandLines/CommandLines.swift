import CommandLine
@testable import qemu_img

/// Command lines with something wrong in them, and some that are only odd: in groups, each run in one shell.
struct CommandLineGroup: Sendable, CustomStringConvertible {
  let name: String
  let lines: [String]

  var description: String { name }

  static let all =
    VerbTable.all.compactMap(ofVerb) + [global, sizes, objects, imageOptions, names, dd, streams] + lists

  /// Operands with which a command would do its work.
  private static let operands = [
    "amend": "a.qcow2", "bitmap": "a.qcow2 bm", "check": "a.qcow2", "commit": "o.qcow2",
    "compare": "a.raw a.raw", "convert": "a.raw new", "create": "new 1M", "dd": "if=a.raw of=new",
    "info": "a.raw", "map": "a.raw", "measure": "a.raw", "snapshot": "a.qcow2", "rebase": "o.qcow2",
    "resize": "a.raw 1M",
  ]

  private static func missing(_ operands: String) -> String {
    operands.split(separator: " ").map { $0.hasPrefix("a.") || $0.hasPrefix("o.") ? "missing" : String($0) }
      .joined(separator: " ")
  }

  /// What can be wrong with the options and operands of any command, from its row of the table.
  private static func ofVerb(_ verb: Verb) -> CommandLineGroup? {
    guard let operands = operands[verb.name] else { return nil }
    var lines = [
      "", "--", "''", "\(operands) extra", "\(operands) extra more", "-- \(operands) ''", "-- -Y",
      missing(operands),
    ]
    lines += ["-Y", "-qY", "--bogus", "--bogus=1", "--help=1"].flatMap {
      ["\($0) \(operands)", "\(operands) \($0)"]
    }
    // The judge knows nothing of our own options.
    for option in verb.options where !["help", OptionRule.allowPath.key].contains(option.key) {
      // Of the long names of options that have a letter, the judge does not know all yet.
      let name = option.letter.map { "-\($0)" } ?? "--\(option.key)"
      if option.value == nil {
        lines.append("\(name)=1 \(operands)")
      } else {
        lines += ["\(name)", "\(operands) \(name)", "\(name) '' \(operands)", "\(name) bogus \(operands)"]
        lines.append("\(name)\(option.letter == nil ? "=" : "")bogus \(operands)")
      }
    }
    return CommandLineGroup(name: verb.name, lines: lines.map { "\(verb.name) \($0)" })
  }

  private static let global = CommandLineGroup(
    name: "before the command",
    lines: [
      "", "bogus", "bogus x", "INFO x", "inf x", "''", "' info'", "info info", "-x", "--x", "-x info", "-T",
      "--trace",
      "--help=1", "-- info", "-Tfoo info missing", "-T enable=foo info missing",
      "-T 'fo*' info missing",
      "-T foo=1 info missing", "-T events=none info missing", "-T file=none/x info missing",
      "-T '' info missing",
      "info -T foo a.raw",
    ])

  private static let sizes = CommandLineGroup(
    name: "sizes",
    lines: [
      "''", "0", "511", "1b", "1B", "1k", "1K", "1m", "1.5G", "0.5k", "1.5", "1.", "1e3", "1e", "0x10", "0x",
      "010",
      "' 1'", "'1 '", "1kk", "1KiB", "1MB", "k", "1x", "nan", "inf", "9223372036854775807",
      "9223372036854775808",
      "18446744073709551616", "1,000", "1.5.5", "0b11", "--1", "1.0G", "8E", "16E",
    ].flatMap { size in
      [
        "measure --size \(size)", "create -q -f raw -o size=\(size) dir",
        "map --start-offset=\(size) a.raw >/dev/null",
        "dd bs=\(size) count=0 if=a.raw of=new", "resize -- a.raw -\(size)",
      ]
    }
      + ["0", "1", "16", "17", "-1", "1k", "x", "1.5", "' 8'", "'8 '", "+8"].map {
        "convert -m '\($0)' a.raw new"
      })

  private static let objects = CommandLineGroup(
    name: "objects",
    lines: [
      "secret", "secret,", "secret,id=x", "secret,data=x", "secret,id=x,data=y", "secret,id=x,file=pass",
      "secret,id=x,file=missing", "secret,id=x,data=y,file=pass", "secret,id=1,data=y", "secret,id=,data=y",
      "secret,id=x,data=eA==,format=base64", "secret,id=x,data=y,format=foo", "secret,id=x,data=y,foo=1",
      "secret,id",
      "bogus,id=x", "id=x,data=y", "qom-type=secret,id=x,data=y",
      #"{"qom-type":"secret","id":"x","data":"y"}"#,
      #"{"qom-type":"secret"}"#, "{", "{}", ",", "=", "",
    ].flatMap { ["info --object '\($0)' missing", "compare --object '\($0)' missing missing"] })

  private static let imageOptions = CommandLineGroup(
    name: "image options",
    lines: [
      "file.filename=a.raw", "driver=qcow2", "driver=bogus,file.filename=a.qcow2", "filename=a.qcow2",
      "a.qcow2",
      "driver=raw,file.driver=bogus,file.filename=a.raw", "driver=qcow2,file=a.qcow2",
      "driver=qcow2,file.filename=missing",
      "driver=qcow2,file.filename=a.qcow2,foo=1", "driver=qcow2,file.filename=a.qcow2,lazy-refcounts=x",
      "driver=raw,size=x,file.filename=a.raw", "", ",", "=", "driver", "driver=", "nodriver",
      "file.filename=co,,mma",
      "driver=raw,file.filename=sp ace",
    ].flatMap {
      ["map --image-opts '\($0)'", "info --image-opts -f raw '\($0)'", "measure --image-opts '\($0)'"]
    })

  private static let names = CommandLineGroup(
    name: "names",
    lines: [
      "json:", "json:{", "json:{}", #"json:{"driver":"raw"}"#, "json:[]", "json:1", "file:a.raw",
      "file:missing", "file:",
      "foo:bar", "co,mma", "sp ace", "dir", "dir/", "a.raw/", "a.raw/x", "missing/x", "empty", "-", "~", "*",
      String(repeating: "a", count: 300),
    ].flatMap { ["map -- '\($0)'", "measure '\($0)'", "compare a.raw '\($0)'", "check '\($0)'"] }
      + [
        "create -f qcow2 dir 1M", "create -f qcow2 missing/x 1M", "create -f raw '' 1M", "convert a.raw dir",
      ])

  private static let dd = CommandLineGroup(
    name: "dd's operands",
    lines: [
      "if=a.raw", "of=new", "if= of=new", "x", "x=1 if=a.raw of=new", "=1", "= if=a.raw of=new",
      "if=a.raw of=new bs",
      "bs= if=a.raw of=new", "if=a.raw of=new count=0", "if=a.raw of=new skip=9999", "if=a.raw of=new seek=1",
      "-O bochs if=a.raw of=new", "-O bogus if=a.raw of=new", "if=a.raw of=dir", "if=a.raw of=new bs=2G",
      "IF=a.raw of=new",
    ].map { "dd \($0)" })

  private static let streams = CommandLineGroup(
    name: "streams",
    lines: [
      "info a.raw >&-", "info a.raw >/dev/full", "map --output=json a.raw >/dev/full",
      "measure --size 1M >/dev/full",
      "check a.qcow2 >/dev/full", "compare a.raw a.raw >/dev/full", "create -f raw new 1M >/dev/full",
      "convert -p a.raw new >/dev/full", "create -f qcow2 -o help >/dev/full", "--version >/dev/full",
      "info missing 2>&-", "info <&- a.raw >/dev/null", "info a.raw >&- 2>&-", "create -f raw new 1M >&-",
    ])

  /// `-o` lists of each format, and what else `create` can be told wrongly.
  private static let lists = [
    "raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels", "luks",
  ].map { format in
    var lines = [
      "", "x", "=", "=x", "x=", ",", "a,", "a,b", ",,", ",,a", "nox", "help=1", "size=", "size", "nosize",
      "size=1M,,",
      "SIZE=1M", " size=1M", "size =1M", "size=1M ", "size=1x", "preallocation=x", "preallocation",
      "size=1M,size=1M",
    ].flatMap { ["-o '\($0)' new", "-o '\($0)' new 1M"] }
    lines += [
      "-o", "-o x", "new", "new 1M 2M", "-u new", "-o size=1M new 1M", "-o '' -o size=1M new",
      "-b new -F raw new",
    ]
    var group = lines.map { "create -f \(format) \($0)" }
    group += ["convert -O \(format) -o x=1 a.raw new", "convert -O \(format) -n -o size=1 a.raw new"]
    group += [
      "measure -O \(format) -o x=1 a.raw", "amend -f \(format) -o x=1 a.\(format)",
      "snapshot -d x a.\(format)",
    ]
    return CommandLineGroup(name: "lists of \(format)", lines: group)
  }
}
