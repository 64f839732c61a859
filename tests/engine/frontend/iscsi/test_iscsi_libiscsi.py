"""Other people's initiators: libiscsi's own test suite, and QEMU's."""

import os
import re
import shutil
import subprocess

import pytest
from initiator import TARGET, target_in_loop, target_in_memory

from farwrite.engine.frontend.iscsi.chap import Credentials

# What does not pass, and why: docs/iscsi.md. With 8 logical blocks a physical one it asks for LBA i + 1 and expects i + 8.
NOT_PASSED = {"GetLBAStatus.UnmapSingle"}
SLEEPING = {"ALL.Reserve6", "ALL.iSCSIcmdsn"}


@pytest.fixture(scope="module")
def url():
    with target_in_loop() as opened:
        yield f"iscsi://127.0.0.1:{opened.address[1]}/{TARGET}/0"


def run(*command, limit_s=120, **more):
    environment = os.environ | more
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False, env=environment)


@pytest.mark.skipif(not shutil.which("iscsi-test-cu"), reason="needs iscsi-test-cu (Debian: libiscsi-bin)")
def test_libiscsis_suite_passes_but_for_what_the_documentation_names(url):
    listed = run("iscsi-test-cu", "-l").stdout.split()
    suites = [name for name in listed if re.fullmatch(r"ALL\.\w+", name)]
    with target_in_loop() as beside:  # What mostly sleeps has a target of its own.
        urls = {True: f"iscsi://127.0.0.1:{beside.address[1]}/{TARGET}/0", False: url}
        running = [
            subprocess.Popen(
                ["iscsi-test-cu", "-d", "-n", "-t", ",".join(one for one in suites if (one in SLEEPING) == sleeps), where, where],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for sleeps, where in urls.items()
        ]  # fmt: skip
        try:
            told = [each.communicate(timeout=120)[0] for each in running]
        finally:
            for each in running:
                each.kill()
                each.wait()
    counts = [re.search(r"tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", text) for text in told]
    assert all(counts), told
    failed = {f"{suite}.{name}" for text in told for suite, name in re.findall(r"Suite (\w+), Test (\S+) had failures", text)}
    assert failed == NOT_PASSED, told
    total, passed = (sum(int(count[column]) for count in counts) for column in (1, 3))
    assert passed == total - len(NOT_PASSED) >= 229


@pytest.mark.skipif(not shutil.which("qemu-io"), reason="needs qemu-io (Debian: qemu-utils, qemu-block-extra)")
def test_qemu_writes_reads_discards_and_measures_a_disk(url):
    info = run("qemu-img", "info", url)
    if "iscsi" in info.stderr and info.returncode:
        pytest.skip("qemu-block-extra is not installed")
    assert "64 MiB" in info.stdout, info.stderr
    steps = ("write -P 7 1M 3M", "read -P 7 1M 3M", "discard 1M 1M", "read -P 0 1M 1M", "write -z 2M 1M", "read -P 0 2M 1M",
             "read -P 7 3M 1M", "flush")  # fmt: skip
    done = run("qemu-io", "-f", "raw", *(word for step in steps for word in ("-c", step)), url)
    assert done.returncode == 0 and "Pattern verification failed" not in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("iscsi-ls"), reason="needs iscsi-ls (Debian: libiscsi-bin)")
def test_discovery_lists_the_target_and_its_unit(url):
    port = re.search(r":(\d+)/", url)[1]
    told = run("iscsi-ls", "-s", f"iscsi://127.0.0.1:{port}").stdout
    assert f"Target:{TARGET} Portal:127.0.0.1:{port},1" in told and "Lun:0" in told


@pytest.mark.skipif(not shutil.which("iscsi-inq"), reason="needs iscsi-inq (Debian: libiscsi-bin)")
def test_another_initiator_proves_itself_and_has_the_target_prove_itself():
    credentials = Credentials({"host": b"the hosts secret"}, "target", b"the targets secret")
    with target_in_memory(1 << 20, credentials=credentials) as opened:
        where = f"127.0.0.1:{opened.address[1]}/{TARGET}/0"
        assert "Vendor:FARWRITE" in run("iscsi-inq", f"iscsi://host%the hosts secret@{where}").stdout
        both = {"LIBISCSI_CHAP_TARGET_USERNAME": "target", "LIBISCSI_CHAP_TARGET_PASSWORD": "the targets secret"}
        assert "Vendor:FARWRITE" in run("iscsi-inq", f"iscsi://host%the hosts secret@{where}", **both).stdout
        assert "Vendor" not in run("iscsi-inq", f"iscsi://host%another secret@{where}").stdout
        assert "Vendor" not in run("iscsi-inq", f"iscsi://{where}").stdout
        false = both | {"LIBISCSI_CHAP_TARGET_PASSWORD": "not the targets secret"}
        assert "Vendor" not in run("iscsi-inq", f"iscsi://host%the hosts secret@{where}", **false).stdout


@pytest.mark.skipif(not shutil.which("qemu-io"), reason="needs qemu-io (Debian: qemu-utils, qemu-block-extra)")
@pytest.mark.parametrize("digest", ["none", "crc32c", "crc32c-none"])
def test_another_initiator_agrees_on_digests_of_headers(url, digest):
    address, _, name = url.removeprefix("iscsi://").removesuffix("/0").partition("/")
    options = {"driver": "iscsi", "transport": "tcp", "portal": address, "target": name, "lun": "0", "header-digest": digest}
    image = ",".join(["driver=raw", *(f"file.{key}={value}" for key, value in options.items())])
    done = run("qemu-io", "--image-opts", "-c", "write -P 3 0 300k", "-c", "read -P 3 0 300k", image)
    if "Unknown driver 'iscsi'" in done.stderr:
        pytest.skip("qemu-block-extra is not installed")
    assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr
