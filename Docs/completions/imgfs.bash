# Completions of imgfs for bash. Made from its table of settings: scripts/docs.

# Words that begin like the current one.
_imgfs_words() {
    local word
    COMPREPLY=()
    for word in $1; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
}

# File names that begin like the word given.
_imgfs_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

# Mount options: the last one of a list, after the others.
_imgfs_mount_options() {
    local before='' last=$cur word
    [[ $cur == *,* ]] && before=${cur%,*}, last=${cur##*,}
    compopt -o nospace 2>/dev/null
    COMPREPLY=()
    for word in $1; do
        [[ $word == "$last"* ]] && COMPREPLY+=("$before$word")
    done
}

_imgfs() {
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    # bash takes "=" for a word of its own.
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $previous == "=" && $COMP_CWORD -gt 1 ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $previous in
        --pid-file) _imgfs_files "$cur"; return ;;
        -F|--format) _imgfs_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        --snapshot) COMPREPLY=(); return ;;
        --backing) _imgfs_words 'follow none'; return ;;
        --allow-path) _imgfs_files "$cur"; return ;;
        --object) COMPREPLY=(); return ;;
        --passphrase-file) _imgfs_files "$cur"; return ;;
        --passphrase-fd) COMPREPLY=(); return ;;
        --overlay) _imgfs_files "$cur"; return ;;
        -o|--options) _imgfs_mount_options 'allow_other allow_path= async atime auto_unmount backing= debug dev dirsync exec force_share format= fsname= gid= idle= image_opts noatime nodev noexec nosuid object= overlay= passphrase_file= pid_file= ro rw seccomp shrink single_thread snapshot= suid sync uid= umask='; return ;;
    esac
    [[ $cur == -* ]] && { _imgfs_words '-f --foreground -d --debug -s --single-thread --pid-file --seccomp -F --format --image-opts --snapshot --backing --allow-path -U --force-share --object --passphrase-file --passphrase-fd --overlay -o --options -u --unmount --commit -h --help -V --version'; return; }
    _imgfs_files "$cur"
}

complete -F _imgfs imgfs
