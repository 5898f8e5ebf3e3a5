#!/usr/bin/env bash
# The unit under systemd itself, which need not be this machine's init: it runs as the first process of its own namespaces, with
# /run, /tmp, /etc/edgecap and /var/cache of its own. Root, Linux with a cgroup hierarchy of systemd's, and EdgeCap in /opt/edgecap
# as docs/deploy.md installs it. Prints what it saw; exit code 1 if that is not what the unit promises.
#
#   sudo tools/systemd_trial.sh [SOURCE]        SOURCE: a camera or clip to watch; by default test://moving
set -euo pipefail
cd "$(dirname "$0")/.."
source=${1:-test://moving}
[ -x /opt/edgecap/bin/edgecap ] || { echo "no /opt/edgecap/bin/edgecap; install it as docs/deploy.md says" >&2; exit 2; }
[ -d /sys/fs/cgroup/systemd ] && { mkdir -p /sys/fs/cgroup/systemd/edgecap-trial; echo $$ > /sys/fs/cgroup/systemd/edgecap-trial/cgroup.procs; }
report=$(mktemp)
trap 'rm -f "$report"' EXIT
exec 3<> "$report"

unshare --pid --fork --mount --uts --ipc bash -s "$PWD" "$source" <<'INSIDE' || true
set -euo pipefail
mount --make-rprivate /
mount --make-rshared /  # credentials come into a service by propagation
mount -t proc proc /proc
for place in /run /tmp /var/tmp /var/cache; do mount -t tmpfs tmpfs $place; done
mkdir -p /etc/edgecap && mount -t tmpfs tmpfs /etc/edgecap
units=/run/systemd/system
mkdir -p $units/edgecap.service.d /run/lock
printf 'secret-of-the-trial' > /etc/edgecap/token
echo "EDGECAP_ARGUMENTS=--source $2 --port 18765" > /etc/edgecap/edgecap.env
cp "$1/integrations/systemd/edgecap.service" $units/
# The rest of a machine is not started: no journal, no network target. The watchdog is tried in less than a minute.
printf '[Unit]\nDefaultDependencies=no\nWants=\nAfter=\n[Service]\nStandardOutput=file:/run/edgecap.log\nStandardError=file:/run/edgecap.log\nWatchdogSec=12\n' \
    > $units/edgecap.service.d/trial.conf
printf '[Unit]\nDescription=trial\nDefaultDependencies=no\n' > $units/trial.target

cat > /run/trial.sh <<'TRIAL'
say() { echo "$@" >&3; }
show() { systemctl show edgecap -p "$1" --value; }
until systemctl is-system-running >/dev/null 2>&1 || [ "$(systemctl is-system-running)" = degraded ]; do sleep 0.2; done
say "systemd: $(/lib/systemd/systemd --version | head -1)"
begun=$(date +%s.%N)
systemctl start edgecap && say "start: active after $(echo "$(date +%s.%N) - $begun" | bc | cut -c1-4) s (READY)" || { say "start: failed"; tail -5 /run/edgecap.log >&3; }
say "state: $(show ActiveState), $(show SubState), user $(ps -o user= -p "$(show MainPID)" | tr -d ' '), status: $(show StatusText)"
say "health: $(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:18765/healthz)"
say "devices: $(show DevicePolicy); system: $(show ProtectSystem); privileges: NoNewPrivileges=$(show NoNewPrivileges)"
sleep 15
say "after 15 s, more than WatchdogSec: $(show ActiveState), restarts $(show NRestarts)"
first=$(show MainPID)
[ "$first" != 0 ] || { kill -s RTMIN+14 1; exit; }
kill -STOP "$first"
for _ in $(seq 60); do sleep 0.5; [ "$(show NRestarts)" != 0 ] && [ "$(show ActiveState)" = active ] && break; done
say "stopped by SIGSTOP: restarts $(show NRestarts), $(show ActiveState), another process: $([ "$(show MainPID)" != "$first" ] && echo yes || echo no)"
begun=$(date +%s.%N)
systemctl stop edgecap
say "stop: $(show ActiveState), result $(show Result), exit code $(show ExecMainStatus), after $(echo "$(date +%s.%N) - $begun" | bc | cut -c1-4) s"
printf '' > /etc/edgecap/token
systemctl start edgecap && say "empty token: started" || say "empty token: refused, $(grep -v '^$' /run/edgecap.log | tail -1)"
kill -s RTMIN+14 1
TRIAL
(bash /run/trial.sh >/run/trial.out 2>&1 || { cat /run/trial.out >&3; kill -s RTMIN+14 1; }) &
exec env container=trial /lib/systemd/systemd --system --unit=trial.target --show-status=no --log-target=null
INSIDE
cat "$report"
for promise in "start: active" "state: active, running, user edgecap" "health: 200" "WatchdogSec: active, restarts 0" \
    "restarts 1, active, another process: yes" "stop: inactive, result success, exit code 0" "empty token: refused"; do
    grep -q "$promise" "$report" || { echo "not as promised: $promise" >&2; exit 1; }
done
