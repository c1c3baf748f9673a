# Sourced by common.sh: what a batch script takes that was submitted without its first argument, or without a data set.

# Options of all commands that are followed by no value.
flags=' -h --help --debug --dry-run --dashboard --allow-config-change --strict --spread --merge '

# read_words WORD...: set `first` to the first word that is neither an option nor an option's value (CONFIG, MODEL, RECIPE), `data`,
# `out`, `space` and `root` to the values of these options, `help` if it was asked for.
read_words() {
    local option value
    first='' data='' out='' space='' root='' help=''
    while [ $# -gt 0 ]; do
        option=$1 value=''
        shift
        case "$option" in
        -h | --help) help=1 ;;
        --*=*) value=${option#*=} option=${option%%=*} ;;
        -*) if [[ $flags != *" $option "* ]] && [ $# -gt 0 ]; then value=$1 && shift; fi ;;
        *) first=${first:-$option} ;;
        esac
        case "$option" in
        --data) data=$value ;;
        --out | --run) out=$value ;;
        --space) space=$value ;;
        --root) root=$value ;;
        --set)
            case "$value" in
            data.shards=*) data=${value#*=} ;;
            root=*) root=${value#*=} ;; # keys of recipes
            out=*) out=${value#*=} ;;
            esac
            ;;
        esac
    done
    why='' note_data=''
}

# choose_data FOLDER: unless the words or their YAML file say where the data set is, set `data`: COLLAGAN_DATA, what the first
# start of this job took (its record is below FOLDER/*), or the one set in packed/.
choose_data() {
    local file sets=()
    [ -z "$data$help" ] || return 0
    if [[ $first == */* || $first == *.yaml || $first == *.yml ]] && names_data "$first"; then return 0; fi
    if [ -n "${COLLAGAN_DATA:-}" ]; then
        data=$COLLAGAN_DATA
        why+="${why:+, }--data ${data//:\/\/*@/://} (COLLAGAN_DATA)"
    else
        data=$(earlier data "$1")
        for file in packed/*/manifest.json packed/manifest.json; do [ ! -f "$file" ] || sets+=("${file%/manifest.json}"); done
        if [ -z "$data" ] && [ ${#sets[@]} = 0 ]; then
            echo "slurm: no data set: there is none in $PWD/packed; make one (collagan pack, or collagan adopt of tars), or submit with --data SHARDS," \
                "or with COLLAGAN_DATA set" >&2
            exit 2
        elif [ -z "$data" ] && [ ${#sets[@]} -gt 1 ]; then
            echo "slurm: which data set? There are ${#sets[@]} in $PWD:$(printf ' %q' "${sets[@]}"); submit with --data SHARDS," \
                "or with COLLAGAN_DATA set" >&2
            exit 2
        fi
        data=${data:-${sets[0]}} note_data=1
        why+="${why:+, }--data $data (the one in packed/)"
    fi
    words+=(--data "$data")
}

# names_data FILE: whether a YAML file says where the data set is. (`collagan config` would know, a second later.)
names_data() {
    # A value may stand on the next line: deeper than its key, or anywhere within braces.
    local join="s/(^|\n)( *)(['\"]?shards['\"]?)[ \t]*:[ \t]*\n\2[ \t]+/\1\2\3: /g; s/([{,][ \t\n]*['\"]?shards['\"]?)[ \t]*:[ \t]*\n[ \t]*/\1: /g"
    sed -E 's/(^|[[:space:]])#.*//; /^[[:space:]]*$/d' "$1" 2>/dev/null | sed -zE "$join" |
        grep -oE "\<shards['\"]?[[:space:]]*:[[:space:]]*[^[:space:],}]+" | grep -qvE ':[[:space:]]*(null|Null|NULL|~)$'
}

# newest_run: print the run in runs/ with the newest checkpoint.
newest_run() {
    local file newest=''
    for file in runs/*/checkpoints/step-*/manifest.json; do
        if [ -f "$file" ] && { [ -z "$newest" ] || [ "$file" -nt "$newest" ]; }; then newest=$file; fi
    done
    printf %s "${newest%/checkpoints/*}"
}

# say_chosen USAGE: say what this script has chosen, and how to say otherwise.
say_chosen() {
    [ -z "$why" ] || echo "slurm: not given, so chosen: $why; otherwise: sbatch [sbatch options] slurm/$1"
}

# on_ranks: print how many ranks work, and where.
on_ranks() {
    local s=s n=s g=s
    [ "$tasks" != 1 ] || s=''
    [ "$SLURM_NNODES" != 1 ] || n=''
    [ "$gpus" != 1 ] || g=''
    echo "by $tasks rank$s on $SLURM_NNODES node$n$([ "$gpus" = 0 ] || echo " with $gpus GPU$g each")"
}
