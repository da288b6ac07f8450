# The first process of the collector's container: it hears SIGTERM from the first moment on, and sees to it that the
# collector does. Needs any POSIX shell, and python3 in PATH.
#
# A signal to the first process of a container is dropped while that has no handler for it, and Python takes its time to
# have one. Kubernetes sends SIGTERM once: a trial that ends before would wait for its collector until both are killed.

told='' child=''

pass() { # twice: between fork and exec the child still has our handler, and forgets what it hears
  kill -TERM "$child"
  (sleep 0.3 && kill -TERM "$child") &
} 2>/dev/null

hear() {
  told=1
  [ -z "$child" ] || pass
}

trap hear TERM

while :; do
  before=$told
  EVERTUNE_TERMINATED=$before python3 -P -m collectors "$@" &
  child=$!
  [ "$told" = "$before" ] || pass # it came while the child was being made
  while :; do
    wait "$child" # a signal ends this, too
    status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  # Ended by the signal, so it had no handler yet: the next one is told at once.
  [ "$status" = 143 ] && [ -n "$told" ] || exit "$status"
done
