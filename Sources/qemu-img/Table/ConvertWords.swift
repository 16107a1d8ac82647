import CommandLine

/// The words of `convert`'s row of the table.
extension ConvertVerb {
  static let details = [
    "Several inputs become one disk, one after the other. Runs of zeros are left out of the new image where its"
      + " format allows that, so that it is as small as can be.",
    "Where input and output lie on one file system whose files can share blocks, such as xfs or btrfs, the new image"
      + " shares those of the input: that takes neither time nor room, and each file gets blocks of its own where it"
      + " is written to later. With -S 0, or with preallocation=falloc or full, the new image has its own at once.",
    "Where a backing file is named, only what differs from it is written; it should have the content of the"
      + " input's own one.",
    "The output may be a pipe, such as /dev/stdout, for raw, and for vmdk with subformat=streamOptimized: it is"
      + " written from front to back then, and progress goes to standard error. The input may be one for raw and for"
      + " streamOptimized vmdk. How large a raw disk is that comes out of a pipe only its end tells, and the new image"
      + " grows with it; formats that cannot grow want the size:"
      + " --image-opts driver=raw,size=10G,file.filename=/dev/stdin.",
  ]

  static let targetImageOptions = OptionRule(
    "target-image-opts",
    help:
      "takes the name of the output for a list of options, as --image-opts does. It needs -n, and cannot stand"
      + " beside -O")
  static let targetIsZero = OptionRule(
    "target-is-zero", help: "trusts that the output reads as zeros where nothing was written yet. It needs -n"
  )
  static let bitmaps = OptionRule("bitmaps", help: "also copies the persistent bitmaps of the input")
  static let skipBrokenBitmaps = OptionRule(
    "skip-broken-bitmaps",
    help: "leaves out bitmaps that were not stored properly, and does not fail for them")
  static let copyRange = OptionRule(
    "copy-range-offloading", "C",
    help:
      "lets the host copy what lies in raw and qcow2 images as it is, and goes into such; zeros are not looked for there."
      + " It cannot stand beside -c, -S or --salvage")
  static let compress = OptionRule("compress", "c", help: "stores the data compressed")
  static let noCreate = OptionRule("no-create", "n", help: "writes into an image that is there already")
  static let sourceFormat = OptionRule(
    "source-format", "f", takes: .format, help: "says which format the inputs have")
  static let targetCache = OptionRule(
    "target-cache", "t", takes: .cache, help: "says how the output is written (unsafe)")
  static let sourceCache = OptionRule(
    "source-cache", "T", takes: .sourceCache, help: "says how the inputs are read")
  static let backing = OptionRule(
    "backing", "B", takes: .backingFile, help: "names the image that the output lies over")
  static let sparseSize = OptionRule(
    "sparse-size", "S", takes: ArgumentValue("sparse_size"),
    help:
      "says how many bytes of zeros in a row are left out of the new image (4k); with 0 everything is written"
  )
  static let parallel = OptionRule(
    "parallel", "m", takes: ArgumentValue("num_coroutines"),
    help: "says how many parts are copied at a time, from 1 to 16 (8)")
  static let anyOrder = OptionRule("oob-writes", "W", help: "allows to write in any order")
  static let salvage = OptionRule(
    "salvage", help: "puts zeros where the input cannot be read, and warns unless -q is given")
}
