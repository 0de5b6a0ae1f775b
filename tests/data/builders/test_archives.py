"""Tests of reading downloads: folders and archives show the same files, and archives with traps are refused."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import mistakes
import pytest

from tunevlseg_jax.data.builders.archives import SourceFiles

FILES = {"set/images/é 1.jpg": b"one", "set/images/2.jpg": b"two", "set/masks/2.png": b"mask"}
JUNK = {"set/.DS_Store": b"", "__MACOSX/set/images/._2.jpg": b"", "set/images/Thumbs.db": b""}


def write(path: Path, files: dict[str, bytes] = FILES) -> Path:
    """A folder, zip or tar file of these files, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif ".tar" in path.suffixes or path.suffix in (".tgz", ".txz"):
        with tarfile.open(path, {".tar": "w", ".txz": "w:xz"}.get(path.suffix, "w:gz")) as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["folder", "set.zip", "set.tar", "set.tar.gz", "SET.tgz", "set.txz"])
def test_every_kind_of_download_shows_the_same_files(name, tmp_path):
    source = SourceFiles([write(tmp_path / name, FILES | JUNK)], tmp_path / "unpacked")
    assert {name: source.read(name) for name in source.names} == FILES
    assert [match[1] for _, match in source.find(r"images/(.+)\.jpg")] == ["2", "é 1"]
    assert not list(source.find(r"mages/.*")), "a pattern begins where a part of the path does"
    with mistakes.raises(r"no-such-file: set/images/3\.jpg"):
        source.read("set/images/3.jpg")


def test_archives_in_a_folder_count_as_unpacked_there(tmp_path):
    folder = write(tmp_path / "folder", {"set/images/2.jpg": b"unpacked already"})
    write(folder / "all.zip")
    (folder / "._all.zip").write_bytes(b"what macOS adds")
    source = SourceFiles([folder], tmp_path / "unpacked")
    assert source.names == tuple(sorted(FILES)) and source.read("set/images/2.jpg") == b"unpacked already"


def test_archives_in_archives_count_as_unpacked_there(tmp_path):
    """Also a tar in a zip; one that is broken is a file like any other, and deep ones aren't opened."""
    inner = write(tmp_path / "inner.tar").read_bytes()
    deep = {"0.zip": b"0"}
    for number in range(1, 4):
        deep = {f"{number}.zip": write(tmp_path / "deep" / f"{number}.zip", deep).read_bytes()}
    write(tmp_path / "folder" / "sub" / "outer.zip", {"dl/inner.tar": inner, "bad.zip": b"none"} | deep)
    source = SourceFiles([tmp_path / "folder"], tmp_path / "unpacked")
    assert source.names == ("sub/1.zip", "sub/bad.zip", *(f"sub/dl/{name}" for name in sorted(FILES)))
    assert source.read("sub/dl/set/images/2.jpg") == b"two" and source.unread == ["sub/1.zip", "sub/bad.zip"]
    assert source.placed("sub/dl/set/images/2.jpg") == "sub/outer/dl/inner/set/images/2.jpg"


def test_files_of_two_sources_with_one_path_must_be_the_same(tmp_path):
    """As folders, archives, and archives in one folder; what nobody reads may differ."""
    same = {"images/1.jpg": b"one", "images/3.jpg": b"three"}
    parts = {"a": same | {"README": b"of a"}, "b": same | {"images/3.jpg": b"3", "masks/3.png": b"", "README": b""}}
    for suffix in ("", ".zip", ".tar", ".tar.gz"):
        roots = [write(tmp_path / suffix[1:] / f"{name}{suffix}", files) for name, files in parts.items()]
        for paths in (roots, [roots[0].parent]) if suffix else (roots,):
            source = SourceFiles(paths, tmp_path / "unpacked")
            assert source.names == ("README", "images/1.jpg", "images/3.jpg", "masks/3.png")
            assert source.read("images/1.jpg") == b"one" and source.read("masks/3.png") == b""
            with mistakes.raises(
                r"duplicate-file: images/3\.jpg",
            ):
                source.read("images/3.jpg")


def test_names_that_are_not_utf8_are_one_line_where_they_are_meant(tmp_path):
    name = os.fsdecode(b"images/K\xf6ln.png")
    for root in (write(tmp_path / "folder", {name: b"", "notes.txt": b""}), write(tmp_path / "set.tar", {name: b""})):
        source = SourceFiles([root], tmp_path)
        assert not list(source.find("masks/.*"))
        with mistakes.raises(r"invalid-name: 'images/K\\udcf6ln\.png'"):
            list(source.find("images/.*"))


def test_accents_are_found_however_they_are_written(tmp_path):
    source = SourceFiles([write(tmp_path / "folder", {"e\u0301.png": b"apart"})], tmp_path)
    assert "é.png" in source and "e\u0301.png" in source and source.read("é.png") == b"apart"


@pytest.mark.parametrize("member", ["../evil", "/etc/evil", "a/../../evil", "C:\\evil", "..\\evil"])
@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_members_that_would_lie_outside_are_refused(name, member, tmp_path):
    (tmp_path / "in").mkdir()
    archive = write(tmp_path / "in" / name, {"good": b"", member: b"evil"})
    with mistakes.raises(f"unsafe-archive: {name} .*evil'"):
        SourceFiles([archive], tmp_path / "in" / "unpacked")
    assert not list(tmp_path.rglob("*evil*")) and not Path("/etc/evil").exists()


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    for name in ("a.tar", "b.zip"):
        with mistakes.raises(rf"unsafe-archive: {name} .*'link'"):
            SourceFiles([tmp_path / name], tmp_path / "unpacked")


def test_what_is_no_download_is_one_line(tmp_path):
    for name in ("broken.zip", "broken.tar", "broken.tar.gz", "photo.jpg"):
        (tmp_path / name).write_bytes(b"\x1f\x8bnothing")
        with mistakes.raises(f"{'no-such-file' if name == 'photo.jpg' else 'unreadable'}: {name}"):
            SourceFiles([tmp_path / name], tmp_path / "unpacked")
    with mistakes.raises("no-such-file: none"):
        SourceFiles([tmp_path / "none"], tmp_path)
    cut = write(tmp_path / "cut.zip")
    cut.write_bytes(cut.read_bytes().replace(b"two", b"owt"))
    with mistakes.raises(r"unreadable: set/images/2\.jpg.*cut\.zip"):
        SourceFiles([cut], tmp_path).read("set/images/2.jpg")


def test_folders_that_link_in_a_circle_end(tmp_path):
    folder = write(tmp_path / "folder")
    (folder / "set" / "loop").symlink_to(folder)
    (folder / "elsewhere").symlink_to(write(tmp_path / "other", {"more.jpg": b"more"}))
    names = SourceFiles([folder], tmp_path).names
    assert names == ("elsewhere/more.jpg", *sorted(FILES))
