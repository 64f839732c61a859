"""The examples below every command's help. Each is a command that works; a test runs or parses them all."""

from __future__ import annotations

EXAMPLES: dict[str, list[str]] = {
    "": ["farwrite run quick", "farwrite show latest --full", "farwrite help reach"],
    "run": ["farwrite run", "farwrite run oltp --miles 0,20,150 --protocol A,C --depth 1,8",
            'farwrite run tests/workload/fio/oltp.fio --budget "p99 2 ms" --budget "p50 1 ms at 20 miles"',
            "farwrite run limits --dry-run"],
    "reach": ['farwrite reach --p99 "4 ms" --size 8k --rate 1gbit'],
    "sweep": ["farwrite sweep --miles 0..500 --depth 1,8,32 --size 4k,64k"],
    "ab": ["farwrite ab quick quick --set-cand lab.encryption=tls --pairs 6"],
    "drill": ["farwrite drill", "farwrite drill primary-killed --miles 150 --trials 30",
              "farwrite drill rolling-a --protocol A,C --policy consent,suspend-replication"],
    "case": ["farwrite case", "farwrite case campus --page campus.html", "farwrite case automation --page automation.html"],
    "show": ["farwrite show results/baselines/limits.json --full", "farwrite show results/baselines/limits.json --csv"],
    "html": ["farwrite html results/baselines/limits.json --out report.html"],
    "compare": ["farwrite compare results/baselines/flush --brief"],
    "export": ["farwrite export results/baselines/limits.json --cell write-C-150 --hlog latencies.hlog"],
    "trace": ["farwrite trace info pgbench"],
    "trace info": ["farwrite trace info pgbench"],
    "trace convert": ["farwrite trace convert pgbench pgbench.iolog --to 10"],
    "import": ["farwrite import tests/compare/foreign/fio_json_plus.json --out fio.json"],
    "gate": ["farwrite gate results/baselines/limits.json --budgets results/budgets.toml"],
    "budget": ["farwrite budget suggest results/baselines/limits.json"],
    "budget suggest": ["farwrite budget suggest results/baselines/limits.json --out budgets.toml"],
    "budget metrics": ["farwrite budget metrics"],
    "history": ["farwrite history response_p50 --where protocol=C --where miles=150"],
    "survey": ['farwrite survey --miles 150 --rate 1gbit --loss "0.01 %"'],
    "baseline": ["farwrite baseline list"],
    "baseline promote": ["farwrite baseline promote latest --name before"],
    "baseline list": ["farwrite baseline list --results results"],
    "pool": ["farwrite pool create san --node a@near=20g --node b@far=20g",
             "farwrite pool serve san --miles 150 --sockets doors"],
    "pool create": ["farwrite pool create san --node a@near=20g --node b@far=20g"],
    "pool show": ["farwrite pool show san"],
    "pool serve": ["farwrite pool serve san --miles 150 --sockets doors"],
    "pool add": ["farwrite pool add san --node c@near=40g:/mnt/disk2/san"],
    "pool remove": ["farwrite pool remove san a"],
    "pool balance": ["farwrite pool balance san --dry-run"],
    "volume": ["farwrite volume create db --size 10g --pool san", "farwrite volume info RUN/near"],
    "volume info": ["farwrite volume info RUN/near"],
    "volume create": ["farwrite volume create db --size 10g --level 10+1 --pool san"],
    "volume list": ["farwrite volume list --pool san"],
    "volume resize": ["farwrite volume resize db --size 20g --pool san"],
    "volume delete": ["farwrite volume delete db --pool san"],
    "volume set-level": ["farwrite volume set-level db 10+1 --pool san"],
    "migrate": ["farwrite migrate db --to c --pool san", "farwrite migrate big.0 --to c,d --by passes --pool san"],
    "serve": [
        "farwrite serve --miles 150", "farwrite serve --miles 20 --keep disk --size 8g --port 10809",
        "farwrite serve --miles 150 --memory -- sh -c 'nbdinfo $NBD'",
        "farwrite serve --far ssh://me@there/var/lib/disk --witness ssh://third/var/lib/disk --keep disk",
    ],
    "snapshot": ["farwrite snapshot create before-upgrade --sockets doors", "farwrite snapshot list --sockets doors"],
    "snapshot create": [
        "farwrite snapshot create before-upgrade --sockets doors",
        "farwrite snapshot create before-upgrade --sockets doors/data --sockets doors/log",
        "farwrite snapshot create nightly --before 'fsfreeze -f /mnt' --after 'fsfreeze -u /mnt'",
    ],
    "snapshot list": ["farwrite snapshot list --sockets doors"],
    "snapshot delete": ["farwrite snapshot delete before-upgrade --sockets doors"],
    "snapshot schedule": ['farwrite snapshot schedule --every "15 min" --keep 8 --sockets doors'],
    "snapshot restore": ["farwrite snapshot restore before-upgrade --sockets doors",
                         "farwrite snapshot restore last-copy --sockets far"],
    "copy": [
        "farwrite copy 'nbd+unix:///volume?socket=near/volume.sock' 'nbd+unix:///volume?socket=far/volume.sock' "
        "--every '15 min' --rate 100mbit",
    ],
    "lab": [
        'farwrite lab --miles 150 --far "iperf3 -s" -- sh -c \'iperf3 -c $FAR\'',
        'farwrite lab --miles 80km --measure --far "postgres -D far" --wait-port 5432 -- sh -c \'psql -h $FAR -c "select 1"\'',
    ],
    "trips": [
        "farwrite trips --miles 150", "farwrite trips --miles 20 --door iscsi --size 4k,64k,512k",
        "farwrite trips --far 'qemu-nbd -t -p 10809 -x disk -f raw disk.img' --uri 'nbd://$FAR/disk'",
    ],
    "doctor": ["farwrite doctor"],
    "simulate": ["farwrite simulate --seeds 20"],
    "profiles": ["farwrite profiles", "farwrite profiles run.rounds"],
    "schema": ["farwrite schema", "farwrite schema profile"],
    "help": ["farwrite help run"],
}
EXIT_CODES = (
    "Exit codes: 0 done (gate: every budget is kept); 2 wrong words, profile, budget or file; 3 a budget is broken (with "
    "--strict also one of a run itself, or a claim); 4 what was asked is not known; 5 an acknowledged write was lost or "
    "damaged; 6 this machine cannot carry the experiment, or the runs cannot be compared; 129, 130 and 143 "
    "interrupted; 1 our own fault."
)


def below(command: str) -> str:
    """What stands below the help of a command: its examples; below that of all of them the exit codes too."""
    lines = [f"Example{'s' * (len(EXAMPLES[command]) > 1)}:", *(f"  $ {example}" for example in EXAMPLES[command])]
    return "\n".join([*lines, "", EXIT_CODES] if not command else lines)
