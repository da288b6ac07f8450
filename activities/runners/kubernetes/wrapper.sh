# Runs the command of a container in a trial's pod, so that the collector beside it can read what it prints. Started by
# Kubernetes as `render` writes it, never by hand; only a static busybox is needed, which an init container brings:
#
#   DIR/busybox sh DIR/wrapper.sh WHO GRACE CAP COMMAND [ARGUMENT...]
#
# WHO    trial; or, for a collector of the user's own, beside (ends with it, always with 0) or stay (waits for SIGTERM)
# GRACE  seconds from SIGTERM to SIGKILL; for a user's collector, seconds in which it may end by itself after SIGTERM
# CAP    MiB of output that are kept in the file; all of it is printed
#
#   log     all that was printed, up to CAP; a restart in the same pod appends
#   stop    made by others: the command is terminated, and the container ends with 0
#   exit    the command's status, renamed into place when all of its output is in the log
#   life    a FIFO that is held open: its reader learns of the end even when this shell was killed
#
# The program leads a session of its own and is started by setsid twice instead of `&`, because a shell makes background
# commands ignore SIGINT, and nothing could undo that. Names are looked up in PATH here and executed by `exec`, because
# busybox prefers its own applets to the image's programs. The braces make the shell read all of this first.
{
set -f
home=${0%/*}
bb=$home/busybox

if [ "$1" = program ]; then # FILES MASK N [NAME=VALUE]*N COMMAND...: in its session, its status is all that is wanted
    files=$2 mask=$3 odd=$4
    shift 4
    exec 7>"$files/status" 2>/dev/null
    trap : HUP INT QUIT TERM USR1 USR2
    echo "started $$" >&7
    if [ "$SHLVL" = 2 ]; then # both shells counted themselves
        unset SHLVL
    else
        SHLVL=$((SHLVL - 2))
    fi
    (
        umask "$mask"
        exec >"$files/out" 2>&1 7>&-
        last=$odd n=0
        while [ "$n" -lt "$last" ]; do # to the end of the list, behind the command
            set -- "$@" "$1"
            shift
            n=$((n + 1))
        done
        count=$(($# - odd)) # the command's words come first now
        name=$1 found=$1
        case $1 in
        */*) ;;
        *)
            found=
            IFS=:
            for folder in $PATH; do
                if [ -n "$1" ] && [ -f "${folder:-.}/$1" ] && [ -x "${folder:-.}/$1" ]; then
                    found=${folder:-.}/$1
                    break
                fi
            done
            unset IFS
            ;;
        esac
        if [ -z "$found" ]; then
            echo "evertune: the command '$name' is not in the image's PATH, $PATH" >&2
            exit 127
        fi
        if [ "$odd" = 0 ]; then
            shift
            unset OLDPWD
            exec -a "$name" "$found" "$@"
        fi
        # Variables whose names no shell knows, as `my.name`: `env` sets them again.
        shift
        n=1
        set -- "$@" "$found"
        while [ "$n" -lt "$count" ]; do
            set -- "$@" "$1"
            shift
            n=$((n + 1))
        done
        unset OLDPWD
        exec "$bb" env -- "$@"
    )
    status=$?
    echo "$status" >"$files/ended"
    echo "ended $status" >&7
    exit 0
fi

who=$1 grace=$2 cap=$3
shift 3
mask=$(umask)
umask 0
files=$home
[ "$who" = trial ] || files=$home/collector
fail() {
    echo "evertune: $1" >&2
    [ "$who" = trial ] || exit 0
    exit 125
}
"$bb" mkdir -p "$files" 2>/dev/null
"$bb" rm -f "$files/out" "$files/status" "$files/life" "$files/ended" "$files/exit" 2>/dev/null # of a run before in the same pod
"$bb" mkfifo "$files/out" "$files/status" "$files/life" 2>/dev/null || fail "$files cannot be written to"
[ "$who" = trial ] && : >>"$home/reports" # written by the program, read by another user
exec 9<>"$files/life" 8<>"$files/status"

finish() { # STATUS
    echo "$1" >"$files/exit.new" && "$bb" mv -f "$files/exit.new" "$files/exit"
    while [ "$who" = stay ] && [ -z "$ending" ]; do
        read -r -t 1 word <&8 # no longer: a signal may come between the look at $ending and this
    done
    [ "$who" = trial ] || exit 0
    exit "$1"
}

pid= held= ending= stopping= left=
forward() { # SIGNAL
    case $1 in
    TERM | INT | QUIT)
        [ -n "$ending" ] || left=$grace
        ending=$1
        [ "$who" = trial ] || return 0
        ;;
    esac
    if [ -n "$pid" ]; then
        kill -s "$1" "-$pid" 2>/dev/null
    else
        held="$held $1"
    fi
}
lives() { # a zombie has ended: nobody waits for it
    read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
    case ${stat##*) } in [ZX]*) return 1 ;; esac
}
for signal in HUP INT QUIT TERM USR1 USR2; do
    trap "forward $signal" "$signal"
done

[ "$who" = trial ] && [ -e "$home/stop" ] && finish 0

(
    trap '' HUP INT QUIT TERM USR1 USR2 XFSZ
    ulimit -S -f $((cap * 2048))
    "$bb" tee -a "$files/log" <"$files/out" 8>&- 9>&-
    echo drained >&8
) 2>/dev/null 9>&- &

# Names like `my.name` are lost in any shell, so they are taken from where the kernel keeps them.
n=0
odd=$("$bb" tr '\n\000' '\001\n' <"/proc/$$/environ" | "$bb" grep -v '^[A-Za-z_][A-Za-z_0-9]*=') 2>/dev/null
if [ -n "$odd" ]; then
    total=$#
    set -- "$@" END
    IFS='
'
    for entry in $odd; do
        entry=$(echo "$entry" | "$bb" tr '\001' '\n'; echo .)
        set -- "$@" "${entry%??}"
        n=$((n + 1))
    done
    unset IFS
    while [ "$total" -ge 0 ]; do # the command's words, and END, go behind them
        [ "$total" = 0 ] || set -- "$@" "$1"
        shift
        total=$((total - 1))
    done
fi
"$bb" setsid "$bb" setsid "$bb" sh "$0" program "$files" "$mask" "$n" "$@" 8>&- 9>&- ||
    fail "no process could be started"

status= seconds=0 drained=
while [ -z "$status" ]; do
    word= value=
    if read -r -t 1 word value <&8 || [ -n "$word" ]; then
        case $word in
        started)
            pid=$value
            for signal in $held; do
                kill -s "$signal" "-$pid" 2>/dev/null
            done
            ;;
        ended) status=$value ;;
        drained) drained=1 ;;
        esac
        continue
    fi
    seconds=$((seconds + 1))
    if [ -z "$pid" ]; then
        [ "$seconds" -lt 60 ] || status=137
    elif ! lives; then # a signal came between two letters of what it said; or it was killed, and nobody knows
        status=137
        [ ! -s "$files/ended" ] || read -r status <"$files/ended"
        continue
    fi
    if [ -n "$left" ]; then
        left=$((left - 1))
        if [ "$left" -le 0 ] && [ "$who" != trial ] && [ -z "$stopping" ]; then
            stopping=1 left=3
            kill -s TERM "-$pid" 2>/dev/null
        elif [ "$left" -le 0 ]; then
            kill -s KILL "-$pid" 2>/dev/null
        fi
    elif [ "$who" = trial ] && [ -e "$home/stop" ]; then
        left=$grace stopping=1
        kill -s TERM "-$pid" 2>/dev/null
    fi
done

# What runs below a shell that a signal has ended may still be at work on its own end.
n=$((${left:-0} * 10))
while [ -n "$pid" ] && [ "$n" -gt 0 ] && kill -0 "-$pid" 2>/dev/null; do
    "$bb" sleep 0.1 # waiting for it, this shell also takes leave of the dead
    n=$((n - 1))
done

# As in any container, nothing outlives the main process. What left its session may hold its output open: not for ever.
[ -z "$pid" ] || kill -s KILL "-$pid" 2>/dev/null
n=0
while [ -z "$drained" ] && [ "$n" -lt 5 ]; do
    read -r -t 1 word value <&8
    [ "$word" != drained ] || drained=1
    n=$((n + 1))
done
size=$("$bb" stat -c %s "$files/log" 2>/dev/null)
if [ "${size:-0}" -ge $((cap * 1048576)) ]; then
    echo "evertune: metrics were looked for in the first $cap MiB of the output, the rest was only printed" >&2
fi
[ "$who" = trial ] && [ -n "$stopping" ] && status=0
finish "$status"
}
