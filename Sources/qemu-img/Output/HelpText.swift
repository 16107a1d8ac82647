import FormatEngine

/// What `--version` and `--help` print.
enum HelpText {
  /// The version of QEMU whose qemu-img this one stands for.
  private static let qemuVersion = "10.0.0"
  private static let ownVersion = "imgfs 0.1"

  static let version = """
    qemu-img version \(qemuVersion)
    \(ownVersion): a qemu-img of its own making, with the commands and words of QEMU's

    """

  static var whole: String {
    let commands = VerbTable.all.map { "  \($0.name) \($0.usage)\n" }.joined()
    let formats = FormatCatalog.all.map { $0.name }.sorted().joined(separator: " ")
    return version + head + "\nCommand syntax:\n" + commands + "\n" + parameters
      + "\nSupported formats: \(formats)\n"
  }

  private static let head = """
    usage: qemu-img [standard options] command [command options]
    Makes, examines, converts and compares images of disks

        '-h', '--help'       show this help and end
        '-V', '--version'    show the version and end
        '-T', '--trace'      taken for the sake of scripts; there is no tracing
        '--allow-path DIR'   images may only name files in this folder; may be given several times

    """

  private static let parameters = """
    Command parameters:
      'filename' is the file that holds a disk image
      'fmt' is the format of that image; without it the first bytes of the file decide
      'cache' is how the new image is written: 'none', 'writeback', 'writethrough' and
        'directsync' wait until it is on disk, 'unsafe' (what convert does by itself) does not
      'src_cache' takes the same words for the images that are read
      'size' is the size of the disk in bytes. 'k', 'M', 'G', 'T', 'P' and 'E' after the
        number count in powers of 1024; 'b' changes nothing
      'output_filename' is the image to write, 'output_fmt' its format
      'options' are 'name=value' with commas between them, each valid for one format:
        -o help lists them
      'snapshot_param' names an internal snapshot: 'snapshot.id=[ID],snapshot.name=[NAME]'
        or '[ID_OR_NAME]'
      'ofmt' is 'human' or 'json'
      'prealloc' is how the room for what is added is set aside: 'off', 'metadata', 'falloc'
        or 'full'
      '-b' names the image to lie over (create, rebase; '' for none) or to write into
        (commit), '-F' its format
      'objectdef' is 'secret,id=ID,data=TEXT' or 'secret,id=ID,file=PATH', with 'format=base64'
        where it is written so: a passphrase for options that name its id
      '--image-opts' takes names for 'driver=...,file.filename=...', lists of options of the
        image and of what it lies in; 'json:{...}' as a name means the same
      'bs' is how many bytes a block of dd has (512), 'count' how many of them are looked at
        from the start, 'skip' how many of those are passed over
      '--size' is the size of a disk that is not there yet
      '--salvage' puts zeros where the source cannot be read, '-r' is for bytes a second
      '-c' stores the data compressed
      '-d' leaves the image as it is when all of it is committed
      '-h' after a command shows this help too
      '-n' writes into an image that is there already
      '-p' shows how far the command has come
      '-q' prints nothing but errors
      '-u' records a backing file without looking at it
      '--shrink' allows to cut off the end of a disk
      '-U' reads an image that another program may be changing
      '-S' is for how many bytes on zeros are left out of the new image (4k); with 0
        everything is written
      '-m' is how many parts are copied at a time, '-W' allows any order
      '-s' (compare) also compares sizes and what is allocated

    """
}
