#!/bin/sh
# One deed on an enrolled host. What holds the host stands in $place/held, made by link(2), which never replaces: of two
# that claim it at the same time, one finds the other there. Its first line is the holding's key, its second a record.
# shellcheck disable=SC2317 # deeds are called by their names

#@settings: bare_metal_script.py puts the real ones here
deed='read'
key=''
record=''
bootstrap=''
removal=''
#@end

place=${INVENTIV_ROOT:-}/var/lib/inventiv-host
lock_wait_s=100

main() {
    umask 077
    mkdir -p "$place" && cd "$place" || return 1
    exec 9>lock
    if command -v flock >/dev/null && ! flock -w "$lock_wait_s" 9; then
        echo "another deed has been going on for $lock_wait_s s"
        return 1
    fi
    "do_$deed" || return 1
    tell
}

tell() {
    if [ -r held ]; then
        echo "inventiv-key $(head -n 1 held)"
        echo "inventiv-record $(tail -n +2 held)"
        if [ "$(cat on 2>/dev/null)" = "$(head -n 1 held)" ]; then echo inventiv-on; fi
    fi
    echo inventiv-told
}

is_held() { [ "$(head -n 1 held 2>/dev/null)" = "$key" ]; }

do_read() { :; }

do_claim() {
    [ ! -e held ] || return 0
    printf '%s\n%s\n' "$key" "$record" >draft && sync draft && { ln draft held 2>/dev/null || true; }
    rm -f draft
}

do_start() {
    is_held || return 0
    printf '%s\n' "$bootstrap" >bootstrap.sh || return 1
    echo "$key" >on || return 1
    setsid sh "$place/bootstrap.sh" >bootstrap.log 2>&1 </dev/null 9>&- &
    echo $! >bootstrap.pid
    # Whoever ends it knows it by its command line, which it has a moment after its pid.
    until is_bootstrap $! || ! kill -0 $! 2>/dev/null; do sleep 0.1; done
}

do_stop() {
    is_held || return 0
    rm -f on
    end_bootstrap
    agent_stop=${INVENTIV_ROOT:-}/opt/inventiv-worker/bin/stop-agent
    [ ! -x "$agent_stop" ] || "$agent_stop" 9>&- >/dev/null
}

do_reinstall() {
    is_held || return 0
    clear_host && do_start
}

do_delete() {
    is_held || return 0
    clear_host && rm -f bootstrap.sh bootstrap.log held
}

clear_host() {
    rm -f on
    end_bootstrap
    printf '%s\n' "$removal" | sh -s 9>&- >removal.log 2>&1 || { cat removal.log && return 1; }
    rm -f removal.log
}

# Its whole group: a download or an installation that is under way goes with it.
end_bootstrap() {
    [ -r bootstrap.pid ] || return 0
    pid=$(cat bootstrap.pid)
    if is_bootstrap "$pid"; then kill -KILL "-$pid"; fi
    rm -f bootstrap.pid
}

is_bootstrap() { grep -aqF "$place/bootstrap.sh" "/proc/$1/cmdline" 2>/dev/null; }

main </dev/null
exit $?
