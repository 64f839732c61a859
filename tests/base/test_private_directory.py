"""Compiled kernels are kept, and loaded, only where nobody but their user and root can put anything."""

import grp
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from console import environment
from farwrite.base import private_directory as private

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="to give a file to another user needs root")
NOWHERE = Path("/dev/null/cache")  # No directory can be made there.


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Asks for a directory, first below tmp_path, then elsewhere; temporary ones are made below tmp_path too."""
    temporary = tmp_path / "temporary"
    temporary.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(private, "is_own_group", lambda group: False)  # Whoever runs the tests may have one.
    return lambda *places: private.private_directory(places, "digest", "compiled kernels")


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def given_away(path):
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return path


def written_by_others(root):
    place = root / "cache" / "digest"
    place.mkdir(parents=True)
    place.chmod(0o777)
    return place, f"rm -r {place}"


def written_by_a_group(root):
    place, advice = written_by_others(root)
    place.chmod(0o770)
    return place, advice


def even_with_a_sticky_bit(root):
    place, advice = written_by_others(root)
    place.chmod(0o1777)
    return place, advice


def below_what_others_write(root):
    place, _ = written_by_others(root)
    place.chmod(0o700)
    place.parent.chmod(0o777)
    return place, f"chmod go-w {place.parent}"


def to_be_made_below_what_others_write(root):
    place, advice = below_what_others_write(root)
    place.rmdir()
    return place, advice


def far_below_what_others_write(root):
    place = root / "open" / "mine" / "digest"
    place.mkdir(parents=True, mode=0o700)
    (root / "open").chmod(0o775)
    return place, f"chmod go-w {root / 'open'}"


def by_a_link_to_what_others_write(root):
    place, advice = written_by_others(root)
    (root / "link").symlink_to(place)
    return root / "link", advice


def by_a_link_that_climbs(root):
    place, advice = below_what_others_write(root)
    (root / "other").mkdir()
    (root / "other" / "link").symlink_to("../cache/../cache")
    return root / "other" / "link" / place.name, advice


def a_link_to_itself(root):
    (root / "digest").symlink_to("digest")
    return root / "digest", "too many links"


def of_another_user(root):
    (root / "digest").mkdir(mode=0o700)
    return given_away(root / "digest"), "belongs to user"


def below_another_users(root):
    (root / "theirs").mkdir(mode=0o755)
    (root / "theirs" / "digest").mkdir(mode=0o700)
    given_away(root / "theirs")
    return root / "theirs" / "digest", "belongs to user"


def in_a_shared_directory_by_another_users_link(root):
    (root / "shared").mkdir()
    (root / "shared").chmod(0o1777)
    (root / "mine").mkdir(mode=0o700)
    (root / "shared" / "digest").symlink_to(root / "mine")
    return given_away(root / "shared" / "digest"), "belongs to user"


HOSTILE = [
    written_by_others, written_by_a_group, even_with_a_sticky_bit, below_what_others_write, to_be_made_below_what_others_write,
    far_below_what_others_write, by_a_link_to_what_others_write, by_a_link_that_climbs, a_link_to_itself,
    *(pytest.param(one, marks=as_root) for one in
      (of_another_user, below_another_users, in_a_shared_directory_by_another_users_link)),
]  # fmt: skip


@pytest.mark.parametrize("arrange", HOSTILE)
def test_a_place_where_others_could_put_something_is_not_used_and_said_with_what_to_do(arrange, made, tmp_path, capsys):
    place, advice = arrange(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert made(place, tmp_path / "safe" / "digest") == tmp_path / "safe" / "digest"
    said = capsys.readouterr().err
    assert said.startswith("farwrite: ") and said.count("\n") == 1 and advice in said and "safe/digest is used instead" in said
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "safe", tmp_path / "safe" / "digest"])


@pytest.mark.parametrize("arrange", HOSTILE)
def test_without_another_place_a_new_one_is_made_whose_name_nobody_can_know(arrange, made, tmp_path, capsys):
    place, advice = arrange(tmp_path)
    one, other = made(place), made(NOWHERE, place)
    assert one != other and one.name == "digest" and one.parent.parent == tmp_path / "temporary"
    assert mode_of(one) == mode_of(one.parent) == 0o700
    assert capsys.readouterr().err.count(advice) == 2


def test_a_place_in_a_shared_directory_is_ours_where_its_sticky_bit_protects_it(made, tmp_path, capsys):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    place = shared / "farwrite-0" / "digest"
    assert made(place) == place == made(place)
    assert mode_of(place) == mode_of(place.parent) == 0o700 and capsys.readouterr().err == ""


def test_directories_are_made_for_nobody_else_whatever_the_umask(made, tmp_path):
    before = os.umask(0)
    try:
        place = made(tmp_path / "a" / "b" / "digest")
    finally:
        os.umask(before)
    assert [mode_of(path) for path in (place, place.parent, place.parent.parent)] == [0o700] * 3


def test_what_others_could_only_read_is_closed_to_them_and_used(made, tmp_path, capsys):
    (tmp_path / "digest").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("digest")
    assert made(tmp_path / "link") == tmp_path / "link"
    assert mode_of(tmp_path / "digest") == 0o700 and capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "members", "primary_of", "own"), [
    ("me", [], ["me"], True), ("me", ["me"], ["me"], True), ("me", ["other"], ["me"], False),
    ("me", [], ["me", "other"], False), ("staff", [], ["me"], False), ("me", [], [], False),
])  # fmt: skip
def test_the_group_that_a_user_is_alone_in_is_nobody_else(name, members, primary_of, own, monkeypatch, tmp_path):
    """umask 002 makes directories that such a group can write; anybody else's group keeps them from being used."""
    users = [pwd.struct_passwd((one, "x", 1000 + place, 100 if one in primary_of else 7, "", "/", "/")) for place, one in
             enumerate(["me", "other"])]  # fmt: skip
    monkeypatch.setattr(private.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(private.pwd, "getpwuid", lambda number: users[number - 1000])
    monkeypatch.setattr(private.pwd, "getpwall", lambda: users)
    monkeypatch.setattr(private.grp, "getgrgid", lambda number: grp.struct_group((name, "x", number, members)))
    assert private.is_own_group(100) is own
    found = os.stat_result((stat.S_IFDIR | 0o775, 0, 0, 0, 1000, 100, 0, 0, 0, 0))
    assert private.is_written_by_others(found) is not own
    assert private.is_written_by_others(os.stat_result((stat.S_IFDIR | 0o777, *found[1:])))


def test_a_place_that_cannot_be_written_is_passed_over_in_silence(made, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert made(NOWHERE, tmp_path / "file", tmp_path / "digest") == tmp_path / "digest"
    assert capsys.readouterr().err == ""
    made(NOWHERE)
    assert "name a directory of your own" in capsys.readouterr().err


def test_no_new_directory_is_made_where_others_could_replace_it(made, tmp_path, monkeypatch):
    (tmp_path / "temporary").chmod(0o777)
    monkeypatch.setattr(private, "TEMPORARY", (str(tmp_path / "second"), str(tmp_path / "third")))
    (tmp_path / "third").mkdir()
    assert made(NOWHERE).parent.parent == tmp_path / "third"
    assert list((tmp_path / "temporary").iterdir()) == []
    (tmp_path / "third").chmod(0o777)
    with pytest.raises(private.UnfitError, match="no directory where only you can write"):
        made(NOWHERE)


LOADS = """
import os, sys
from farwrite.base import jit
place = os.environ["NUMBA_CACHE_DIR"]
print(jit.DIGEST, place, jit.numba.config.CACHE_DIR, oct(os.stat(place).st_mode & 0o7777))
if os.fork() == 0:
    sys.exit()
os.wait()
assert os.path.isdir(place), "a fork has removed it"
"""


def test_a_directory_that_was_planted_in_the_temporary_folder_is_not_the_cache(tmp_path):
    """The name is known beforehand, the digest too: whoever was there first could have put kernels of his own into it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    temporary.chmod(0o1777)

    def loaded():
        chosen = {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(NOWHERE), "HOME": str(NOWHERE)}
        env = {key: value for key, value in environment(**chosen).items() if key != "NUMBA_CACHE_DIR"}
        done = subprocess.run([sys.executable, "-c", LOADS], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return *done.stdout.split(), done.stderr

    digest, place, used, mode, said = loaded()
    planted = temporary / f"farwrite-{os.geteuid()}" / digest
    assert (Path(place), mode, said) == (planted, "0o700", "")
    if os.geteuid() == 0:
        given_away(planted)
    else:
        planted.chmod(0o777)
    _, place, used, mode, said = loaded()
    assert used == place and planted not in (Path(place), *Path(place).parents) and mode == "0o700"
    assert said.count("\n") == 1 and str(planted) in said and "at its end" in said
    assert not Path(place).exists() and list(temporary.iterdir()) == [planted.parent]
