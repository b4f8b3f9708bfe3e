#!/bin/sh
# Makes this host a worker: mounts, installs, downloads, starts, and reports each phase. SPEC 4.4.
#
#   start -> mount_data_volume -> docker_install -> docker_start -> nvidia_toolkit -> agent_download -> docker_pull
#         -> vllm_start -> agent_start -> done
#
# Each phase first looks whether it is done, so the script may run again at any time and by any number of hands. It is
# all functions and its last line starts them: a script that was cut off on its way does nothing. The surprising rule:
# the environment file is data (KEY=VALUE, literally) and is never evaluated. INVENTIV_ROOT puts all paths below a
# folder; $etc/host.env, written by the host's owner, has the last word on each variable.
# shellcheck disable=SC2016,SC2317 # programs are written from quoted text; phases are called by their names

#@settings: script.py puts the real ones here
environment=''
agent_url=''
agent_sha256=''
vllm_image=''
data_volume_tries=0
powers_off=false
#@end

etc=${INVENTIV_ROOT:-}/etc/inventiv-worker
base=${INVENTIV_ROOT:-}/opt/inventiv-worker
volume=${INVENTIV_ROOT:-}/mnt/inventiv-data
container=inventiv-worker
volume_label=inventiv-data
least_volume_bytes=20000000000
tail_bytes=8000
lock_wait_s=900
report_timeout_s=10
download_timeout_s=300
docker_wait_s=60
pull_tries=3
start_looks=100
stop_wait_s=45

main() {
    umask 077
    mkdir -p "$etc/log" "$base" || return 1
    exec 9>"$etc/lock"
    if command -v flock >/dev/null && ! flock -w "$lock_wait_s" 9; then
        echo "another bootstrap has been running for $lock_wait_s s"
        return 1
    fi
    if [ -n "$environment" ]; then
        printf '%s\n' "$environment" >"$etc/environment.new" && mv "$etc/environment.new" "$etc/environment" || return 1
    fi
    for phase in start mount_data_volume docker_install docker_start nvidia_toolkit agent_download docker_pull \
        vllm_start agent_start; do
        run_phase "$phase" || return 1
    done
    report 'done' true "the worker's agent runs"
    echo "inventiv-phase done ok"
}

run_phase() {
    log=$etc/log/$1
    # In the background, because `set -e` means nothing within a condition.
    (
        set -eu
        "phase_$1"
    ) >"$log" 2>&1 </dev/null 9>&- &
    if wait $!; then
        report "$1" true "$(tail -c "$tail_bytes" "$log")"
        echo "inventiv-phase $1 ok"
    else
        report "$1" false "$(tail -c "$tail_bytes" "$log")"
        tail -c "$tail_bytes" "$log"
        printf '\ninventiv-phase %s failed\n' "$1"
        return 1
    fi
}

# Tells the control plane; that it cannot be told stops nothing. The token never stands on a command line.
report() {
    [ -r "$etc/environment" ] || return 0
    printf 'Authorization: Bearer %s\n' "$(value_of WORKER_AUTH_TOKEN)" >"$etc/header"
    printf '{"instance_id":"%s","phase":"%s","ok":%s,"output":"%s"}' \
        "$(value_of INSTANCE_ID | as_json)" "$1" "$2" "$(printf '%s' "$3" | as_json)" |
        curl -sS -o /dev/null --max-time "$report_timeout_s" --proto '=http,https' -H "@$etc/header" \
            -H 'Content-Type: application/json' --data-binary @- \
            "$(value_of CONTROL_PLANE_URL)/internal/worker/bootstrap" 2>>"$etc/log/report" || true
}

# Plain ASCII survives; the rest would need a JSON writer, which a bare host may not have.
as_json() {
    LC_ALL=C tr -cd '\11\12\40-\176' | LC_ALL=C sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/	/\\t/g' |
        LC_ALL=C awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }'
}

# The value of a variable: the owner's of this host, else the control plane's.
value_of() {
    for file in "$etc/host.env" "$etc/environment"; do
        if [ -r "$file" ] && grep -q "^$1=" "$file"; then
            sed -n "s/^$1=//p" "$file" | tail -n 1
            return 0
        fi
    done
}

# An owner's machine, which is given back: its disks and its power are the owner's affair, whatever is asked for here.
is_lent() { [ -e "${INVENTIV_ROOT:-}/var/lib/inventiv-host/held" ]; }

is_simulated() { [ "$(value_of WORKER_ENGINE)" = simulated ]; }

not_needed() { is_simulated && echo "not needed: the engine is simulated"; }

image() {
    wanted=$(value_of WORKER_VLLM_IMAGE)
    echo "${wanted:-$vllm_image}"
}

install_package() {
    if command -v apt-get; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q update && apt-get -q -y install "$1"
    elif command -v dnf; then
        dnf -q -y install "$1"
    elif command -v yum; then
        yum -q -y install "$1"
    else
        echo "no package manager that is known here (apt-get, dnf, yum)"
        return 1
    fi
}

phase_start() {
    uname -a
    for name in CONTROL_PLANE_URL INSTANCE_ID MODEL_ID WORKER_AUTH_TOKEN; do
        [ -n "$(value_of "$name")" ] || { echo "$etc/environment lacks $name" && return 1; }
    done
    command -v curl || install_package curl
    command -v sha256sum
}

phase_mount_data_volume() {
    if is_simulated || is_lent || [ "$data_volume_tries" -eq 0 ]; then
        echo "no data volume is wanted"
        return 0
    fi
    try=1
    until device=$(blkid -L "$volume_label") || device=$(empty_disk); do
        if [ "$try" -ge "$data_volume_tries" ]; then
            echo "no data volume after $try looks; everything stays on the boot volume"
            return 0
        fi
        try=$((try + 1))
        sleep 3
    done
    [ "$(blkid -s LABEL -o value "$device" || true)" = "$volume_label" ] || mkfs.ext4 -q -L "$volume_label" "$device"
    mkdir -p "$volume"
    mountpoint -q "$volume" || mount "$device" "$volume"
    grep -q "LABEL=$volume_label" /etc/fstab || echo "LABEL=$volume_label $volume ext4 defaults,nofail 0 2" >>/etc/fstab
    move_to_volume "$base"
    command -v docker || move_to_volume /var/lib/docker
}

# A whole disk that is large enough and has nothing on it: no table, no file system, no signature, no holder.
empty_disk() {
    lsblk -bdnpo NAME,TYPE,SIZE,RO | while read -r name type size read_only; do
        if [ "$type" = disk ] && [ "$read_only" = 0 ] && [ "$size" -gt "$least_volume_bytes" ] &&
            [ "$(lsblk -nro NAME "$name" | wc -l)" = 1 ] && [ -z "$(wipefs -n "$name")" ]; then
            echo "$name"
            break
        fi
    done | grep .
}

move_to_volume() {
    [ ! -L "$1" ] || return 0
    target=$volume/$(basename "$1")
    mkdir -p "$target"
    if [ -d "$1" ]; then
        cp -a "$1/." "$target/" && rm -rf "$1" || return 1
    fi
    mkdir -p "$(dirname "$1")" && ln -s "$target" "$1"
}

phase_docker_install() {
    not_needed || command -v docker || install_package docker.io || install_package docker
}

phase_docker_start() {
    if not_needed; then return 0; fi
    docker info >/dev/null 2>&1 || systemctl enable --now docker || service docker start
    waited=0
    until docker info; do
        [ "$waited" -lt "$docker_wait_s" ] || return 1
        waited=$((waited + 2))
        sleep 2
    done
}

phase_nvidia_toolkit() {
    if not_needed; then return 0; fi
    nvidia-smi -L || { echo "this host shows no NVIDIA GPU: its driver is missing" && return 1; }
    if docker info --format '{{json .Runtimes}}' | grep -q '"nvidia"'; then return 0; fi
    command -v nvidia-ctk || install_package nvidia-container-toolkit ||
        { echo "nvidia-container-toolkit is in no package source of this host; use an image for GPUs" && return 1; }
    nvidia-ctk runtime configure --runtime=docker
    systemctl restart docker || service docker restart
}

phase_agent_download() {
    if [ -f "$base/agent.pyz" ] && is_agent "$base/agent.pyz"; then return 0; fi
    draft=$base/agent.new
    set -- -fsSL --retry 5 --max-time "$download_timeout_s" --proto '=http,https' -o "$draft"
    case $agent_url in
    "$(value_of CONTROL_PLANE_URL)"/*)
        printf 'Authorization: Bearer %s\n' "$(value_of WORKER_AUTH_TOKEN)" >"$etc/header"
        set -- "$@" -H "@$etc/header"
        ;;
    esac
    curl "$@" "$agent_url"
    if ! is_agent "$draft"; then
        echo "refused: the agent at $agent_url has SHA-256 $(sha256sum "$draft" | cut -d ' ' -f 1), not $agent_sha256"
        rm -f "$draft"
        return 1
    fi
    mv "$draft" "$base/agent.pyz"
}

is_agent() { [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$agent_sha256" ]; }

phase_docker_pull() {
    if not_needed || docker image inspect --format '{{.Id}}' "$(image)"; then return 0; fi
    try=1
    until docker pull -q "$(image)"; do
        [ "$try" -lt "$pull_tries" ] || return 1
        try=$((try + 1))
        sleep 5
    done
}

# The agent starts the engine; here is made sure that it can: agent and vLLM share one container of the engine's image,
# which holds all that the agent imports, so that neither outlives the other.
phase_vllm_start() {
    if not_needed; then return 0; fi
    docker run --rm --gpus all --entrypoint python3 "$(image)" -c \
        'import importlib.util as u; print([n for n in ("aiohttp", "msgspec", "psutil", "vllm") if not u.find_spec(n)])' |
        grep -Fx '[]' || { echo "the image $(image) lacks what the agent needs" && return 1; }
    docker run --rm --gpus all --entrypoint nvidia-smi "$(image)" -L
}

phase_agent_start() {
    write_agent_environment
    write_programs
    run_id=$(cat "$base/agent.env" "$base/agent.pyz" "$base/bin/run-agent" | sha256sum | cut -d ' ' -f 1)
    if [ "$(cat "$base/run-id" 2>/dev/null)" = "$run_id" ] && agent_runs; then
        echo "the agent runs already"
        return 0
    fi
    "$base/bin/stop-agent"
    forget_other_instance
    rm -f "$base/power-off"
    echo "$run_id" >"$base/run-id"
    if has_systemd; then
        systemctl daemon-reload
        systemctl enable --now "$container.service"
    else
        setsid "$base/bin/keep-agent" >>"$base/agent.log" 2>&1 </dev/null &
        echo $! >"$base/keeper.pid"
    fi
    looks=0
    until agent_runs; do
        [ "$looks" -lt "$start_looks" ] || return 1
        looks=$((looks + 1))
        sleep 0.1
    done
}

has_systemd() { [ -z "${INVENTIV_ROOT:-}" ] && [ -d /run/systemd/system ]; }

agent_runs() {
    if has_systemd; then
        systemctl is-active --quiet "$container.service"
    else
        grep -aqF "$base/bin/keep-agent" "/proc/$(cat "$base/keeper.pid" 2>/dev/null)/cmdline" 2>/dev/null
    fi
}

# Another bootstrap token is another life: the worker's stored token is worth nothing in it.
forget_other_instance() {
    life=$(printf '%s %s' "$(value_of INSTANCE_ID)" "$(value_of WORKER_AUTH_TOKEN)" | sha256sum | cut -d ' ' -f 1)
    if [ "$(cat "$base/life" 2>/dev/null)" != "$life" ]; then rm -rf "$base/state"; fi
    mkdir -p "$base/state" "$base/hf"
    echo "$life" >"$base/life"
}

# docker's --env-file takes the last of equal names, and so does run-agent.
write_agent_environment() {
    {
        echo "WORKER_STATE_DIR=$base/state"
        echo "WORKER_POWER_OFF_FILE=$base/power-off"
        if ! is_simulated; then
            echo "HF_HOME=$base/hf"
            gpus=$(nvidia-smi -L | grep -c '^GPU')
            echo 'WORKER_ENGINE_ARGS={"args":["--tensor-parallel-size","'"$gpus"'"]}'
        fi
        cat "$etc/environment"
        if [ -r "$etc/host.env" ]; then cat "$etc/host.env"; fi
    } | grep '^[A-Za-z_][A-Za-z0-9_]*=' >"$base/agent.env"
}

write_programs() {
    mkdir -p "$base/bin"
    python=$(value_of INVENTIV_PYTHON)
    {
        printf '#!/bin/sh\nbase=%s\ncontainer=%s\nimage=%s\npython=%s\n' "$(quoted "$base")" "$container" \
            "$(quoted "$(image)")" "$(quoted "${python:-python3}")"
        if is_simulated; then
            echo 'while IFS= read -r line; do export "$line"; done <"$base/agent.env"'
            echo 'exec "$python" "$base/agent.pyz"'
        else
            echo 'docker rm -f "$container" >/dev/null 2>&1'
            printf '%s ' 'exec docker run --rm --init --name "$container" --gpus all --network host --ipc host'
            echo '--env-file "$base/agent.env" -v "$base:$base" --entrypoint python3 "$image" "$base/agent.pyz"'
        fi
    } >"$base/bin/run-agent"
    {
        printf '#!/bin/sh\nbase=%s\npower_off=%s\n' "$(quoted "$base")" "$(power_off)"
        cat <<'KEEPER'
trap 'kill -TERM "$agent" 2>/dev/null; wait "$agent"; exit 0' TERM INT
pause_s=1
while :; do
    "$base/bin/run-agent" 9>&- &
    agent=$!
    wait "$agent" && break
    [ ! -e "$base/power-off" ] || break
    sleep "$pause_s" &
    wait $!
    [ "$pause_s" -ge 32 ] || pause_s=$((pause_s * 2))
done
[ ! -e "$base/power-off" ] || "$power_off"
KEEPER
    } >"$base/bin/keep-agent"
    printf '#!/bin/sh\nbase=%s\ncontainer=%s\nstop_wait_s=%s\n' "$(quoted "$base")" "$container" "$stop_wait_s" \
        >"$base/bin/stop-agent"
    cat >>"$base/bin/stop-agent" <<'STOPPER'
[ ! -d /run/systemd/system ] || systemctl disable --now "$container.service" 2>/dev/null
if [ -r "$base/keeper.pid" ]; then
    keeper=$(cat "$base/keeper.pid")
    is_ours() { grep -aqF "$base/bin/keep-agent" "/proc/$keeper/cmdline" 2>/dev/null; }
    ! is_ours || kill -TERM "$keeper"
    waited=0
    while is_ours && [ "$waited" -lt "$stop_wait_s" ]; do
        sleep 1
        waited=$((waited + 1))
    done
    ! is_ours || kill -KILL "-$keeper"
    rm -f "$base/keeper.pid"
fi
! command -v docker >/dev/null || docker rm -f "$container" >/dev/null 2>&1 || true
STOPPER
    chmod 700 "$base/bin/run-agent" "$base/bin/keep-agent" "$base/bin/stop-agent"
    if has_systemd; then write_unit; fi
}

write_unit() {
    cat >"/etc/systemd/system/$container.service" <<UNIT
[Unit]
Description=Inventiv worker agent
After=network-online.target docker.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=$base/bin/run-agent
ExecStopPost=/bin/sh -c 'test ! -e $base/power-off || $(power_off)'
Restart=on-failure
RestartSec=2
KillMode=mixed
TimeoutStopSec=$stop_wait_s

[Install]
WantedBy=multi-user.target
UNIT
}

# What follows when the agent asks for the machine's end; below a prefix, and on an owner's host, nothing does.
power_off() {
    if "$powers_off" && ! is_lent && [ -z "${INVENTIV_ROOT:-}" ]; then echo poweroff; else echo true; fi
}

quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

main "$@" </dev/null
exit $?
