"""Tests of writing files: whole or not at all, and one line for what can't be written."""

import contextlib
import shutil

import mistakes
import pytest

from tunevlseg_jax.runtime.files import (
    atomic_dir,
    atomic_file,
    atomic_files,
    read_json,
    read_object,
    sha256,
    write_json,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replacing_makes_folders_and_keeps_the_suffix(tmp_path):
    path = tmp_path / "new" / "folder" / "file.png"
    with atomic_file(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".png"
        assert not path.exists()
        temporary.write_text("new")
    assert path.read_text() == "new" and names(path.parent) == ["file.png"]


def test_replacing_gives_the_permissions_of_a_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_json(tmp_path / "value.json", 1)
    assert (tmp_path / "value.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError("stopped"), KeyboardInterrupt()])
def test_failing_block_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with mistakes.raises("unwritable: file.*No space left on device"), atomic_file(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("place", ["file/inside", "folder"])
def test_unwritable_places_are_one_line(tmp_path, place):
    """Below a file, and over a folder; permissions would tell nothing to a test that root runs."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with mistakes.raises(rf"unwritable: {place}: "):
        write_json(tmp_path / place, 1)
    assert names(tmp_path) == ["file", "folder"] and not names(tmp_path / "folder")


def test_filling_replaces_what_has_the_same_name(tmp_path):
    folder = tmp_path / "parent" / "folder"
    for text in ("one", "two"):
        with atomic_files(folder, last="a") as temporary:
            assert temporary.parent == folder.parent
            for name in ("a", "b"):
                (temporary / name).write_text(text)
        assert [(folder / name).read_text() for name in ("a", "b")] == [text, text]
        (folder / "mine").touch()
    assert names(folder) == ["a", "b", "mine"] and names(folder.parent) == ["folder"]


def test_filling_that_fails_changes_nothing(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("old")
    with mistakes.raises("unwritable: No space left"), atomic_files(folder, last="a") as temporary:
        (temporary / "a").write_text("half")
        raise OSError(28, "No space left on device")
    with pytest.raises(RuntimeError), atomic_files(tmp_path / "other", last="a") as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "old" and names(tmp_path) == ["folder"]


def test_last_file_moves_last(tmp_path):
    """A file that can't move leaves the folder without the one that would make it whole."""
    (tmp_path / "z").mkdir()
    with mistakes.raises("unwritable"), atomic_files(tmp_path, last="a") as temporary:
        for name in ("a", "z"):
            (temporary / name).touch()
    assert names(tmp_path) == ["z"]


def test_making_replaces_the_whole_folder(tmp_path):
    folder = tmp_path / "folder"
    for name in ("a", "b"):
        with atomic_dir(folder) as temporary:
            (temporary / name).touch()
        assert names(folder) == [name] and names(tmp_path) == ["folder"]
    with mistakes.raises("unwritable: No space left"), atomic_dir(folder) as temporary:
        raise OSError(28, "No space left on device")
    assert names(folder) == ["b"] and names(tmp_path) == ["folder"]


def test_making_leaves_alone_what_another_process_has_begun(tmp_path, monkeypatch):
    """While the old folder is being thrown away, which may take long, its name is free for the next one."""
    folder, remove = tmp_path / "folder", shutil.rmtree
    folder.mkdir()
    with contextlib.ExitStack() as other:

        def slow(path, **options):
            if path.name == ".folder.old" and path.exists():
                remove(path, **options)
                (other.enter_context(atomic_dir(folder)) / "theirs").touch()
            else:
                remove(path, **options)

        monkeypatch.setattr(shutil, "rmtree", slow)
        with atomic_dir(folder) as temporary:
            (temporary / "ours").touch()
        monkeypatch.undo()
        assert names(folder) == ["ours"]
    assert names(folder) == ["theirs"] and names(tmp_path) == ["folder"]


def test_json(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"name": "Sør", "sizes": [1, 2.5, None]})
    assert "Sør" in path.read_text(encoding="utf-8")
    assert read_json(path) == read_object(path) == {"name": "Sør", "sizes": [1, 2.5, None]}
    with mistakes.raises(r"no-such-file: none\.json"):
        read_json(tmp_path / "none.json")
    for content in (b"{", b"\xff\xfe"):
        path.write_bytes(content)
        with mistakes.raises(r"unreadable: value\.json"):
            read_json(path)
    write_json(path, [1])
    with mistakes.raises(r"wrong-json: value\.json"):
        read_object(path)
    with mistakes.raises("unreadable"):
        read_json(tmp_path)


def test_sha256(tmp_path):
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
