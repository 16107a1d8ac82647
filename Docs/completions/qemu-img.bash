# Completions of qemu-img for bash. Made from its table of commands: scripts/docs.

# Words that begin like the current one.
_qemu_img_words() {
    local word
    COMPREPLY=()
    for word in $1; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
}

# File names that begin like the word given.
_qemu_img_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_qemu_img() {
    local verb='' i
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    # bash takes "=" for a word of its own.
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $previous == "=" && $COMP_CWORD -gt 1 ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -T|--trace|--allow-path) ((i++)); [[ ${COMP_WORDS[i]} == '=' ]] && ((i++)) ;;
            -*|=) ;;
            *) verb=${COMP_WORDS[i]}; break ;;
        esac
    done
    case "$verb $previous" in
        'amend --object') COMPREPLY=(); return ;;
        'amend -f'|'amend --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'amend -t'|'amend --cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'amend -o'|'amend --options') COMPREPLY=(); return ;;
        'amend --allow-path') _qemu_img_files "$cur"; return ;;
        'bench -c'|'bench --count') COMPREPLY=(); return ;;
        'bench -d'|'bench --depth') COMPREPLY=(); return ;;
        'bench -f'|'bench --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'bench --flush-interval') COMPREPLY=(); return ;;
        'bench -i'|'bench --aio') _qemu_img_words 'threads native io_uring'; return ;;
        'bench -o'|'bench --offset') COMPREPLY=(); return ;;
        'bench --pattern') COMPREPLY=(); return ;;
        'bench -s'|'bench --buffer-size') COMPREPLY=(); return ;;
        'bench -S'|'bench --step-size') COMPREPLY=(); return ;;
        'bench -t'|'bench --cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'bench --object') COMPREPLY=(); return ;;
        'bench --allow-path') _qemu_img_files "$cur"; return ;;
        'bitmap --merge') COMPREPLY=(); return ;;
        'bitmap -b'|'bitmap --source-file') _qemu_img_files "$cur"; return ;;
        'bitmap -F'|'bitmap --source-format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'bitmap -g'|'bitmap --granularity') COMPREPLY=(); return ;;
        'bitmap --object') COMPREPLY=(); return ;;
        'bitmap -f'|'bitmap --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'bitmap --allow-path') _qemu_img_files "$cur"; return ;;
        'check --object') COMPREPLY=(); return ;;
        'check -f'|'check --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'check --output') _qemu_img_words 'human json'; return ;;
        'check -r'|'check --repair') _qemu_img_words 'leaks all'; return ;;
        'check -T'|'check --cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'check --allow-path') _qemu_img_files "$cur"; return ;;
        'commit --object') COMPREPLY=(); return ;;
        'commit -f'|'commit --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'commit -t'|'commit --cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'commit -b'|'commit --base') _qemu_img_files "$cur"; return ;;
        'commit -r'|'commit --rate-limit') COMPREPLY=(); return ;;
        'commit --allow-path') _qemu_img_files "$cur"; return ;;
        'compare --object') COMPREPLY=(); return ;;
        'compare -f'|'compare --a-format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'compare -F'|'compare --b-format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'compare -T'|'compare --cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'compare --allow-path') _qemu_img_files "$cur"; return ;;
        'convert --object') COMPREPLY=(); return ;;
        'convert -f'|'convert --source-format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'convert -t'|'convert --target-cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'convert -T'|'convert --source-cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'convert -O'|'convert --target-format') _qemu_img_words 'luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'convert -B'|'convert --backing') _qemu_img_files "$cur"; return ;;
        'convert -F'|'convert --backing-format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'convert -o'|'convert --target-format-options') COMPREPLY=(); return ;;
        'convert -l'|'convert --snapshot') COMPREPLY=(); return ;;
        'convert -S'|'convert --sparse-size') COMPREPLY=(); return ;;
        'convert -r'|'convert --rate-limit') COMPREPLY=(); return ;;
        'convert -m'|'convert --parallel') COMPREPLY=(); return ;;
        'convert --allow-path') _qemu_img_files "$cur"; return ;;
        'create --object') COMPREPLY=(); return ;;
        'create -f'|'create --format') _qemu_img_words 'luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'create -b'|'create --backing') _qemu_img_files "$cur"; return ;;
        'create -F'|'create --backing-format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'create -o'|'create --options') COMPREPLY=(); return ;;
        'create --allow-path') _qemu_img_files "$cur"; return ;;
        'dd --object') COMPREPLY=(); return ;;
        'dd -f'|'dd --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'dd -O'|'dd --output-format') _qemu_img_words 'luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'dd --allow-path') _qemu_img_files "$cur"; return ;;
        'info --object') COMPREPLY=(); return ;;
        'info -f'|'info --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'info --output') _qemu_img_words 'human json'; return ;;
        'info --allow-path') _qemu_img_files "$cur"; return ;;
        'map --object') COMPREPLY=(); return ;;
        'map -f'|'map --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'map -s'|'map --start-offset') COMPREPLY=(); return ;;
        'map -l'|'map --max-length') COMPREPLY=(); return ;;
        'map --output') _qemu_img_words 'human json'; return ;;
        'map --allow-path') _qemu_img_files "$cur"; return ;;
        'measure --output') _qemu_img_words 'human json'; return ;;
        'measure -O'|'measure --target-format') _qemu_img_words 'luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'measure -o'|'measure --target-format-options') COMPREPLY=(); return ;;
        'measure --size') COMPREPLY=(); return ;;
        'measure --object') COMPREPLY=(); return ;;
        'measure -f'|'measure --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'measure -l'|'measure --snapshot') COMPREPLY=(); return ;;
        'measure --allow-path') _qemu_img_files "$cur"; return ;;
        'snapshot --object') COMPREPLY=(); return ;;
        'snapshot -f'|'snapshot --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'snapshot -a'|'snapshot --apply') COMPREPLY=(); return ;;
        'snapshot -c'|'snapshot --create') COMPREPLY=(); return ;;
        'snapshot -d'|'snapshot --delete') COMPREPLY=(); return ;;
        'snapshot --allow-path') _qemu_img_files "$cur"; return ;;
        'rebase --object') COMPREPLY=(); return ;;
        'rebase -f'|'rebase --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'rebase -t'|'rebase --cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'rebase -T'|'rebase --backing-cache') _qemu_img_words 'none writeback writethrough directsync unsafe'; return ;;
        'rebase -b'|'rebase --backing') _qemu_img_files "$cur"; return ;;
        'rebase -F'|'rebase --backing-format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'rebase --allow-path') _qemu_img_files "$cur"; return ;;
        'resize --object') COMPREPLY=(); return ;;
        'resize -f'|'resize --format') _qemu_img_words 'bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc'; return ;;
        'resize --preallocation') _qemu_img_words 'off metadata falloc full'; return ;;
        'resize --allow-path') _qemu_img_files "$cur"; return ;;
        'dd bs') COMPREPLY=(); return ;;
        'dd count') COMPREPLY=(); return ;;
        'dd skip') COMPREPLY=(); return ;;
        'dd if') _qemu_img_files "$cur"; return ;;
        'dd of') _qemu_img_files "$cur"; return ;;
    esac
    case $verb in
        '') _qemu_img_words '-h --help -V --version -T --trace --allow-path amend bench bitmap check commit compare convert create dd info map measure snapshot rebase resize'; return ;;
        amend) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -p --progress -q --quiet -f --format -t --cache --force -o --options --allow-path -h --help'; return; } ;;
        bench) [[ $cur == -* ]] && { _qemu_img_words '-c --count -d --depth -f --format --flush-interval -i --aio -n --native --no-drain -o --offset --pattern -q --quiet -s --buffer-size -S --step-size -t --cache -w --write -U --force-share --image-opts --object --allow-path -h --help'; return; } ;;
        bitmap) [[ $cur == -* ]] && { _qemu_img_words '--merge --add --remove --clear --enable --disable -b --source-file -F --source-format -g --granularity --object --image-opts -f --format --allow-path -h --help'; return; } ;;
        check) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -q --quiet -f --format --output -r --repair -T --cache -U --force-share --allow-path -h --help'; return; } ;;
        commit) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -q --quiet -f --format -t --cache -b --base -r --rate-limit -d --drop -p --progress --allow-path -h --help'; return; } ;;
        compare) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -f --a-format -F --b-format -T --cache -p --progress -q --quiet -s --strict -U --force-share --allow-path -h --help'; return; } ;;
        convert) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts --target-image-opts --target-is-zero --bitmaps --skip-broken-bitmaps -U --force-share -C --copy-range-offloading -c --compress -p --progress -q --quiet -n --no-create -f --source-format -t --target-cache -T --source-cache -O --target-format -B --backing -F --backing-format -o --target-format-options -l --snapshot -S --sparse-size -r --rate-limit -m --parallel -W --oob-writes --salvage --allow-path -h --help'; return; } ;;
        create) [[ $cur == -* ]] && { _qemu_img_words '--object -q --quiet -f --format -b --backing -F --backing-format -u --backing-unsafe -o --options --allow-path -h --help'; return; } ;;
        dd) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -U --force-share -f --format -O --output-format --allow-path -h --help'; return; }
            compopt -o nospace 2>/dev/null; _qemu_img_words 'bs= count= skip= if= of='; return ;;
        info) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -f --format --output --backing-chain -U --force-share --allow-path -h --help'; return; } ;;
        map) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -f --format -s --start-offset -l --max-length --output -U --force-share --allow-path -h --help'; return; } ;;
        measure) [[ $cur == -* ]] && { _qemu_img_words '--output -O --target-format -o --target-format-options --size --object --image-opts -f --format -l --snapshot -U --force-share --allow-path -h --help'; return; } ;;
        snapshot) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -f --format -U --force-share -q --quiet -l --list -a --apply -c --create -d --delete --allow-path -h --help'; return; } ;;
        rebase) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -U --force-share -q --quiet -f --format -t --cache -T --backing-cache -p --progress -u --backing-unsafe -c --compress -b --backing -F --backing-format --allow-path -h --help'; return; } ;;
        resize) [[ $cur == -* ]] && { _qemu_img_words '--object --image-opts -f --format --preallocation -q --quiet --shrink --allow-path -h --help'; return; } ;;
    esac
    _qemu_img_files "$cur"
}

complete -F _qemu_img qemu-img
