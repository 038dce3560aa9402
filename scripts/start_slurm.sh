#!/usr/bin/env bash
# Starts a Slurm of this one machine, without cgroups, for trying and testing; does nothing where one answers. Needs root.
#   eval "$(bash scripts/start_slurm.sh)"    starts it, and prints the variable by which Slurm's commands find it: SLURM_CONF
#   bash scripts/start_slurm.sh stop
# Its files are in SLURM_STATE (/tmp/slurm-one-machine).
set -euo pipefail
state="${SLURM_STATE:-/tmp/slurm-one-machine}"
export SLURM_CONF="$state/slurm.conf"

stop() {
    for daemon in slurmd slurmctld munged; do
        if [ -f "$state/$daemon.pid" ]; then
            kill "$(cat "$state/$daemon.pid")" 2> /dev/null || true
        fi
    done
}

if [ "${1:-}" = stop ]; then
    stop
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "error: Slurm's daemons are started as root" >&2
    exit 1
fi
if [ -f "$SLURM_CONF" ] && timeout 10 sinfo > /dev/null 2>&1; then
    echo "export SLURM_CONF=$SLURM_CONF"
    exit 0
fi
stop
rm -rf "$state"
install -d -m 755 "$state" "$state/jobs" "$state/nodes"
head -c 1024 /dev/urandom > "$state/munge.key"
chmod 400 "$state/munge.key"
host="$(hostname -s)"
cat > "$SLURM_CONF" << END
ClusterName=one-machine
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
StateSaveLocation=$state/jobs
SlurmdSpoolDir=$state/nodes
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
echo "CgroupPlugin=disabled" > "$state/cgroup.conf"
munged --force --key-file="$state/munge.key" --socket="$state/munge.socket" --pid-file="$state/munged.pid" --log-file="$state/munged.log" \
    --seed-file="$state/munged.seed" >&2
slurmctld >&2
slurmd >&2
for _ in $(seq 60); do
    if timeout 10 sinfo --noheader --format=%t 2> /dev/null | grep --quiet idle; then
        echo "export SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 0.5
done
echo "error: Slurm does not get ready; its logs are in $state" >&2
tail -n 5 "$state"/*.log >&2
exit 1
