import CommandLine

/// The manual page qemu-img.1, from the table.
enum ManualPage {
  static var text: String {
    ".TH QEMU-IMG 1 \"2026-11-21\" \"\(HelpText.ownVersion)\" \"User commands\"\n" + introduction
      + ".SH STANDARD OPTIONS\n" + VerbTable.globalOptions.map(entry).joined()
      + ".SH COMMANDS\n" + VerbTable.all.map(section).joined()
      + ".SH VALUES\n" + ArgumentValue.explained.map { entry($0.name, $0.meaning ?? "") }.joined()
      + conclusion
  }

  private static let introduction = #"""
    .SH NAME
    qemu\-img \- create, examine, convert and change disk images
    .SH SYNOPSIS
    .B qemu\-img
    .RI [ "standard options" ]
    .I command
    .RI [ "command options" ]
    .SH DESCRIPTION
    .B qemu\-img
    works on images of disks: files in which the disk of a virtual machine is
    stored.
    It has the commands, options and messages of the program of the same name
    that belongs to QEMU.
    .PP
    An image that a virtual machine or another program is using must not be
    changed: that destroys it.
    Even what is read from it may not fit together.

    """#

  private static let conclusion = #"""
    .SH ENVIRONMENT
    .TP
    .B SOURCE_DATE_EPOCH
    A number of seconds since 1970\-01\-01 00:00 UTC.
    Where it is set, everything that a command makes was made at that moment, and ids
    in images come from it and from what the images are made of, so that two runs
    make the same files.
    Keys and salts of encrypted images stay random, and
    .B convert \-W
    stores data in any order.
    .SH EXIT STATUS
    0 if all went well, 1 if not.
    .B check
    and
    .B compare
    have more to say; see there.
    .SH EXAMPLES
    .TP
    .B qemu\-img create \-f qcow2 disk.qcow2 10G
    A new image that grows as it is written to.
    .TP
    .B qemu\-img convert \-p \-O qcow2 disk.vmdk disk.qcow2
    Another format for the same disk.
    .TP
    .B qemu\-img create \-f qcow2 \-b disk.qcow2 \-F qcow2 changes.qcow2
    An image that records only what differs from another one.
    .TP
    .B qemu\-img info \-\-backing\-chain \-\-output=json changes.qcow2
    What is known of an image and of those below it, for programs.
    .SH SEE ALSO
    .BR imgfs (1)

    """#

  private static func section(_ verb: Verb) -> String {
    let syntax = paragraph(verb.syntax.map(\.text).joined(separator: " "))
    let summary = (verb.summary.first.map { $0.uppercased() } ?? "") + verb.summary.dropFirst() + "."
    let text = ([summary] + verb.details).map(paragraph).joined(separator: ".PP\n")
    return ".SS \(verb.name)\n.B qemu\\-img \(verb.name)\n\(syntax).PP\n\(text)"
      + verb.options.map(entry).joined()
      + verb.operands.compactMap { operand in
        (operand.help ?? operand.value.ownMeaning).map { entry(operand.prefix + operand.value.name, $0) }
      }.joined()
  }

  private static func entry(_ option: OptionRule) -> String {
    let names = option.spellings.map { "\\fB\(escaped($0))\\fR" }.joined(separator: ", ")
    let value = option.value.map { " \\fI\(escaped($0.name))\\fR" } ?? ""
    return ".TP\n\(names)\(value)\n\(paragraph(option.meaning))"
  }

  private static func entry(_ name: String, _ text: String) -> String {
    ".TP\n\\fI\(escaped(name))\\fR\n\(paragraph(text))"
  }

  /// Text in short lines, in which nothing means anything to roff.
  private static func paragraph(_ text: String) -> String {
    TextColumns.wrapped(escaped(text), first: "", indent: 0).split(separator: "\n").map { line in
      (line.hasPrefix(".") ? "\\&" : "") + line + "\n"
    }.joined()
  }

  private static func escaped(_ text: String) -> String {
    text.map { character in
      switch character {
      case "\\": "\\e"
      case "-": "\\-"
      case "'": "\\(aq"
      default: String(character)
      }
    }.joined()
  }
}
