"""Layers and image archives: same content, same bytes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

from testbed.artifacts import layers


def tree(folder: Path) -> Path:
    root = folder / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "share" / "doc" / "tool").mkdir(parents=True)
    (root / "usr" / "bin" / "tool").write_text("tool", encoding="utf-8")
    (root / "usr" / "bin" / "tool").chmod(0o755)
    (root / "usr" / "share" / "doc" / "tool" / "copyright").write_text("c", encoding="utf-8")
    (root / "bin").symlink_to("usr/bin")
    return root


def names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def test_same_tree_at_another_time_and_place_gives_the_same_layer(tmp_path: Path) -> None:
    packed = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        root = tree(folder)
        os.utime(root / "usr" / "bin" / "tool", (number * 1000, number * 1000))
        packed.append(layers.pack_tree(root, [], folder / "layer.tar.gz"))
    assert packed[0].digest == packed[1].digest
    assert packed[0].path.read_bytes() == packed[1].path.read_bytes()


def test_hashes_are_those_of_the_file_and_of_its_content(tmp_path: Path) -> None:
    packed = layers.pack_tree(tree(tmp_path), [], tmp_path / "layer.tar.gz")
    content = packed.path.read_bytes()
    assert packed.digest == hashlib.sha256(content).hexdigest()
    assert packed.diff_id == hashlib.sha256(gzip.decompress(content)).hexdigest()
    assert layers.inspect_layer(packed.path) == packed


def test_excluded_folders_take_their_content_with_them(tmp_path: Path) -> None:
    packed = layers.pack_tree(tree(tmp_path), ["usr/share/doc"], tmp_path / "layer.tar.gz")
    assert names(packed.path) == ["bin", "usr", "usr/bin", "usr/bin/tool", "usr/share"]


def test_links_stay_links_and_everything_belongs_to_root(tmp_path: Path) -> None:
    packed = layers.pack_tree(tree(tmp_path), [], tmp_path / "layer.tar.gz")
    with tarfile.open(packed.path) as archive:
        members = {member.name: member for member in archive}
    assert members["bin"].issym()
    assert members["bin"].linkname == "usr/bin"
    assert members["usr/bin/tool"].mode == 0o755
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}


def test_files_get_their_parents_and_an_open_tmp(tmp_path: Path) -> None:
    source = tmp_path / "program"
    source.write_text("x", encoding="utf-8")
    packed = layers.pack_files({"/usr/local/bin/tool": source}, tmp_path / "layer.tar.gz")
    with tarfile.open(packed.path) as archive:
        members = {member.name: member.mode for member in archive}
    assert members == {
        "usr": 0o755,
        "usr/local": 0o755,
        "usr/local/bin": 0o755,
        "tmp": 0o1777,
        "usr/local/bin/tool": 0o755,
    }


def test_archive_is_one_image_with_compressed_layers(tmp_path: Path) -> None:
    source = tmp_path / "program"
    source.write_text("x", encoding="utf-8")
    packed = layers.pack_files({"/tool": source}, tmp_path / "layer.tar.gz")
    config = layers.image_config(
        [packed], "amd64", entrypoint=["/tool"], command=[], environment={"A": "b"}, user="65532:65532"
    )
    for target in ("one.tar", "two.tar"):
        layers.write_archive(tmp_path / target, "deephdc/tool:1", config, [packed])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        manifest_file = archive.extractfile("manifest.json")
        assert manifest_file is not None
        (manifest,) = json.load(manifest_file)
        config_file = archive.extractfile(manifest["Config"])
        assert config_file is not None
        settings = json.load(config_file)
        assert archive.getnames() == ["manifest.json", manifest["Config"], *manifest["Layers"]]
    assert manifest["RepoTags"] == ["deephdc/tool:1"]
    assert settings["rootfs"]["diff_ids"] == [f"sha256:{packed.diff_id}"]
    assert settings["config"]["Entrypoint"] == ["/tool"]
    assert settings["config"]["User"] == "65532:65532"
    assert settings["config"]["Env"][0].startswith("PATH=/usr/local/sbin:/usr/local/bin:")
