#!/usr/bin/env bash
# Records what PostgreSQL writes and flushes under pgbench's TPC-B, as workloads/traces/pgbench.csv.gz was recorded.
#
#   runuser -u postgres -- workloads/record_pgbench.sh pgbench.csv.gz      (any user but root: PostgreSQL refuses root)
#
# A cluster of its own in a scratch directory, reached through a Unix socket there; nothing listens on the network.
# The server runs as a child of strace. A warm-up and the server's start and stop are cut from the trace.
# Needs: PostgreSQL 15, pgbench, strace >= 5.3 (--seccomp-bpf), Python 3.11.
set -euo pipefail

output=${1:?usage: record_pgbench.sh OUTPUT.csv.gz}
here=$(cd "$(dirname "$0")" && pwd)
bin=${PGBIN:-/usr/lib/postgresql/15/bin}
scale=${SCALE:-15}                   # About 220 MB of tables: more than shared_buffers, so backends evict pages too.
clients=${CLIENTS:-8}
transactions_per_s=${RATE:-400}      # Open loop (pgbench -R, Poisson): the trace's rate is the load's, not this disk's.
warmup_s=${WARMUP_S:-10}
trace_s=${TRACE_S:-60}               # With checkpoint_timeout = 30 s it holds at least one checkpoint, spread over 27 s.

scratch=$(mktemp -d)
data=$scratch/data
server=
finish() {
    if [[ -n $server ]]; then
        "$bin/pg_ctl" -D "$data" -s -m fast stop || true
        wait "$server" || true
    fi
    rm -rf "$scratch"
}
trap finish EXIT

"$bin/initdb" -D "$data" -U bench --auth=trust --no-locale --encoding=UTF8 >/dev/null
cat >>"$data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$scratch'
checkpoint_timeout = 30s             # The shortest PostgreSQL allows, so that a minute holds a whole checkpoint.
CONF
export PGHOST=$scratch PGUSER=bench PGDATABASE=postgres

"$bin/pg_ctl" -D "$data" -s -w -l "$scratch/log" start
"$bin/pgbench" -i -q -s "$scale" 2>/dev/null
"$bin/psql" -qc checkpoint
"$bin/pg_ctl" -D "$data" -s -w -m fast stop

calls=write,pwrite64,pwritev,pwritev2,fsync,fdatasync,rename
strace -f --seccomp-bpf -y -s 0 --absolute-timestamps=format:unix,precision:ns -e trace=$calls -e signal=none \
    -o "$scratch/strace" "$bin/postgres" -D "$data" 2>"$scratch/log" &
server=$!
until "$bin/pg_isready" -q; do sleep 0.2; done

"$bin/psql" -Atqc "select name || ' = ' || setting || coalesce(' ' || unit, '') from pg_settings where name in
    ('server_version', 'wal_sync_method', 'full_page_writes', 'fsync', 'synchronous_commit', 'wal_level', 'shared_buffers',
     'checkpoint_timeout', 'checkpoint_completion_target', 'max_wal_size', 'wal_segment_size') order by name"

begin=$(( $(date +%s) + warmup_s ))
"$bin/pgbench" -n -M prepared -c "$clients" -j 2 -R "$transactions_per_s" -T $(( warmup_s + trace_s + 3 )) postgres
"$bin/psql" -Atqc "select 'checkpoints_timed = ' || checkpoints_timed from pg_stat_bgwriter"

"$bin/pg_ctl" -D "$data" -s -w -m fast stop
wait "$server" || true
server=
python3 "$here/strace_to_csv.py" "$scratch/strace" "$data" "$begin" $(( begin + trace_s )) "$output"
