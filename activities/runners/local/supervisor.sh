# Supervises one attempt of a trial and outlives the worker that started it. Run by runner.py, never by hand:
#
#   sh supervisor.sh DIRECTORY BOOT CWD RUNS DEADLINE GRACE COUNTER BEFORE MV SLEEP FROM SHARED LIMIT COMMAND [ARGUMENT...]
#
# Standard input is the attempt's `lock`, already locked; standard output and error are its log. The lock belongs to the
# open file, so it is held exactly as long as this shell, or a child of it that has not become the user's program, lives.
#
#   claim   "PID START BOOT" of this shell, created exclusively: a directory is executed at most once, ever
#   child   "PID START BOOT" of the user's process, written by itself before it executes anything of the user's
#   timer   the same for the deadline's timer
#   exit    "STATUS WHY RUNS", renamed into place; WHY is end, stop, deadline, oom or lost
#
# A run that ends with a status of at least FROM is followed by another, RUNS in all. With SHARED, a file to which each
# supervisor of one job adds a line before it runs its command again, they do so LIMIT times together.
#
# COMMAND starts with a launcher that calls setsid(2), so the user's program leads a process group of its own. It runs in
# the foreground because a shell makes background commands ignore SIGINT. The braces make the shell read all of this first.
{
set -f
dir=$1 boot=$2 cwd=$3 runs=$4 deadline=$5 grace=$6 counter=$7 before=$8 mv=$9
shift 9
sleep=$1 from=$2 shared=$3 limit=$4
shift 4
exec 9<&0 0</dev/null 2>/dev/null

identify() { # sets `me` to the identity of the process that calls this, also in a subshell, where $$ is the parent's
    if read -r me </proc/self/stat; then
        pid=${me%% *}
        set -- ${me##*) }
        me="$pid ${20} $boot"
    else
        me="$(sh -c 'echo $PPID') - $boot"
    fi
}

lives() { # PID START: does that process still run, and is it that one
    if [ "$2" = - ]; then
        kill -0 "$1"
    else
        read -r stat <"/proc/$1/stat" || return 1
        set -- "$2" ${stat##*) }
        [ "$1" = "${21}" ]
    fi
}

signal() { # NAME: to the whole group of the user's process
    read -r pid start rest <"$dir/child" && lives "$pid" "$start" && kill -s "$1" -- "-$pid"
}

out_of_memory() {
    [ -n "$counter" ] || return 1
    while read -r name value; do
        [ "$name" = oom_kill ] && [ "$value" -gt "$before" ] && return 0
    done <"$counter"
    return 1
}

again() { # is the run that ended with `status` followed by another
    [ "$why" = end ] && [ "$status" -ne 0 ] && [ "$status" -ge "$from" ] && [ "$run" -lt "$runs" ] || return 1
    [ -n "$shared" ] || return 0
    echo "$me" >>"$shared" || return 1
    count=0
    while read -r line; do count=$((count + 1)); done <"$shared"
    [ "$count" -le "$limit" ]
}

identify
set -C
echo "$me" >"$dir/claim" || exit 0
set +C

if [ "$deadline" != 0 ]; then
    (
        identify
        echo "$me" >"$dir/timer"
        "$sleep" "$deadline"
        echo >"$dir/deadline"
        signal TERM
        "$sleep" "$grace"
        signal KILL
    ) >/dev/null 9<&- &
fi

run=0
while :; do
    run=$((run + 1))
    (
        identify
        echo "$me" >"$dir/child" || exit 125
        [ -e "$dir/stop" ] || [ -e "$dir/deadline" ] && exit 125
        cd "$cwd" || exit 126
        unset OLDPWD
        exec 2>&1 9<&-
        exec "$@"
    )
    status=$?
    # As in a container, nothing outlives the main process. Members keep the group's number from being used again.
    why=end
    if read -r pid start rest <"$dir/child"; then
        kill -s KILL -- "-$pid"
    else
        why=lost # it could not even write who it is: nothing was executed
    fi
    if [ -e "$dir/stop" ]; then
        why=stop
    elif [ -e "$dir/deadline" ]; then
        why=deadline
    elif [ "$status" -eq 137 ] && out_of_memory; then
        why=oom
    fi
    again || break
done

echo "$status $why $run" >"$dir/exit.new" && "$mv" -f "$dir/exit.new" "$dir/exit"
# The timer and its sleep are in this shell's own group.
[ "$deadline" = 0 ] || kill -s KILL -- "-$$"
exit 0
}
