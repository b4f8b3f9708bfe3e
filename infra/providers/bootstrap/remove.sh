#!/bin/sh
# Takes the worker off this host: its agent stops, its files go. The owner's host.env and the downloaded models stay.
main() {
    etc=${INVENTIV_ROOT:-}/etc/inventiv-worker
    base=${INVENTIV_ROOT:-}/opt/inventiv-worker
    mkdir -p "$etc"
    exec 9>"$etc/lock"
    if command -v flock >/dev/null && ! flock -w 60 9; then
        echo "a bootstrap is running here"
        return 1
    fi
    if [ -x "$base/bin/stop-agent" ]; then "$base/bin/stop-agent" 9>&- || return 1; fi
    if [ -z "${INVENTIV_ROOT:-}" ]; then rm -f /etc/systemd/system/inventiv-worker.service; fi
    for path in "$base"/* "$etc"/*; do
        case $path in
        "$base/hf" | "$etc/host.env" | "$etc/lock") ;;
        *) rm -rf "$path" || return 1 ;;
        esac
    done
    echo "inventiv-removed"
}

main "$@" </dev/null
exit $?
