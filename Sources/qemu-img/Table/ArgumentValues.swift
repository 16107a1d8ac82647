import CommandLine

extension ArgumentValue {
  /// The meaning of a value that belongs to one command.
  var ownMeaning: String? { Self.explained.contains { $0.name == name } ? nil : meaning }

  /// Those with a meaning, in the order in which the help explains them.
  static let explained: [ArgumentValue] = [
    .fileName, .object, .format, .cache, .sourceCache, .size, .outputFileName, .outputFormat, .options,
    .snapshotParameter, .outputStyle, .preallocation, .backingFile,
  ]

  static let fileName = ArgumentValue(
    "filename", .file,
    "is the file that holds a disk image: a path, 'json:{...}', or with --image-opts a list of options")
  static let object = ArgumentValue(
    "objectdef", .anything,
    "is 'secret,id=ID,data=TEXT' or 'secret,id=ID,file=PATH', with 'format=base64' where it is written so:"
      + " a passphrase for options that name its id")
  static let format = ArgumentValue(
    "fmt", .format, "is the format of an image; without it the first bytes of the file decide")
  static let cache = ArgumentValue(
    "cache", .words(["none", "writeback", "writethrough", "directsync", "unsafe"]),
    "is how an image is written: 'none', 'writeback' (what most commands do by themselves), 'writethrough'"
      + " and 'directsync' wait until it is on disk, 'unsafe' (what convert does by itself) does not")
  static let sourceCache = ArgumentValue(
    "src_cache", cache.choice, "takes the same words for the images that are read")
  static let size = ArgumentValue(
    "size", .anything,
    "is the size of the disk in bytes. 'k' or 'K', 'M', 'G', 'T', 'P' and 'E' after the number count in"
      + " powers of 1024; 'b' changes nothing")
  static let outputFileName = ArgumentValue("output_filename", .file, "is the image to write")
  static let outputFormat = ArgumentValue("output_fmt", .writableFormat, "is the format of that image")
  static let options = ArgumentValue(
    "options", .anything,
    "are 'name=value' with commas between them, each valid for one format: -o help lists them."
      + " A comma in a value is written twice")
  static let snapshotParameter = ArgumentValue(
    "snapshot_param", .anything,
    "names an internal snapshot: 'snapshot.id=[ID],snapshot.name=[NAME]' or '[ID_OR_NAME]'")
  static let outputStyle = ArgumentValue(
    "ofmt", .words(["human", "json"]), "is 'human' or 'json'")
  static let preallocation = ArgumentValue(
    "prealloc", .words(["off", "metadata", "falloc", "full"]),
    "is how the room for what is added is set aside: 'off', 'metadata', 'falloc' or 'full'")
  static let backingFile = ArgumentValue(
    "backing_file", .file, "is the image to lie over, as the new image is to record it; '' for none")
  static let backingFormat = ArgumentValue("backing_fmt", .format)
}
