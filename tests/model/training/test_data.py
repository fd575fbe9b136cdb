from __future__ import annotations

import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.errors import InvalidParameter
from model.sources import open_sources, read_frame
from model.training.crops import CropRule, Crops, batches

RULE = CropRule(side=64, flat_below=1.5, seed=3)


@pytest.fixture
def shard(pictures: Path, tmp_path: Path) -> Path:
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(pictures.glob("*.png")):
            tar.add(file, file.name)
        tar.add(__file__, "readme.txt")
    return path


@pytest.fixture
def vimeo(pictures: Path, tmp_path: Path) -> Path:
    for clip in ("00001/0001", "00001/0002"):
        folder = tmp_path / "vimeo" / "sequences" / clip
        folder.mkdir(parents=True)
        for number in range(1, 8):
            picture = Image.open(pictures / f"{number}.png")
            picture.save(folder / f"im{number}.png")
    return tmp_path / "vimeo"


def test_a_shard_holds_what_its_folder_holds(pictures: Path, shard: Path) -> None:
    folder, tar = open_sources([pictures, shard])
    assert (folder.kind, tar.kind) == ("folder", "tar")
    assert len(folder.clips) == len(tar.clips) == 9
    for a, b in zip(folder.clips, tar.clips, strict=True):
        np.testing.assert_array_equal(read_frame(a), read_frame(b))


def test_vimeo_clips_have_seven_frames_and_any_may_be_drawn(vimeo: Path) -> None:
    source = open_sources([vimeo])[0]
    assert source.kind == "vimeo-90k"
    assert [clip.count for clip in source.clips] == [7, 7]
    frames = [read_frame(source.clips[0], frame) for frame in range(7)]
    crops = Crops([source], CropRule(160, 0, 1))
    seen = set()
    for i in range(60):
        crop = crops[i].permute(1, 2, 0).numpy()
        seen |= {n for n, f in enumerate(frames) if (crop == f).all() or (crop[:, ::-1] == f).all()}
    assert seen == set(range(7))


def test_vimeo_takes_the_clips_of_its_training_list(vimeo: Path) -> None:
    (vimeo / "sep_trainlist.txt").write_text("00001/0002\n")
    assert len(open_sources([vimeo])[0].clips) == 1


def test_manifests_tell_data_apart(pictures: Path, shard: Path) -> None:
    one, other = (source.manifest() for source in open_sources([pictures, shard]))
    assert one["clips"] == 9
    assert one["sha256"] != other["sha256"]


def test_what_holds_no_pictures_is_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "neither"), (tmp_path, "no image")):
        with pytest.raises(InvalidParameter, match=message):
            open_sources([path])


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with pytest.raises(InvalidParameter, match="bad"):
        read_frame(open_sources([tmp_path])[0].clips[0])


def test_a_crop_depends_on_its_number_alone(pictures: Path) -> None:
    sources = open_sources([pictures])
    crops, again = Crops(sources, RULE), Crops(sources, RULE, cache=True)
    for i in (5, 0, 123_456):
        assert crops[i].shape == (3, 64, 64)
        assert torch.equal(crops[i], again[i])
    assert not torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], Crops(sources, CropRule(64, 1.5, 4))[0])


def test_flat_crops_are_drawn_again(tmp_path: Path) -> None:
    picture = np.zeros((64, 640, 3), np.uint8)
    picture[:, 576:] = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    Image.fromarray(picture).save(tmp_path / "mostly_black.png")
    sources = open_sources([tmp_path])
    flat = sum(int(Crops(sources, CropRule(64, 0.0, 0))[i].float().std() < 1.5) for i in range(60))
    rest = sum(int(Crops(sources, CropRule(64, 1.5, 0))[i].float().std() < 1.5) for i in range(60))
    assert flat > 30
    assert rest < flat / 2


def test_pictures_smaller_than_the_crops_are_refused(pictures: Path) -> None:
    with pytest.raises(InvalidParameter, match="smaller than the crops"):
        Crops(open_sources([pictures]), CropRule(256, 1.5, 0))[0]


def test_batches_go_on_where_a_run_stopped(pictures: Path) -> None:
    crops = Crops(open_sources([pictures]), RULE)
    whole = list(itertools.islice(batches(crops, batch=2, from_step=0, readers=0), 4))
    rest = list(itertools.islice(batches(crops, batch=2, from_step=2, readers=0), 2))
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_devices_share_the_batches_of_a_step(pictures: Path) -> None:
    crops = Crops(open_sources([pictures]), RULE)
    both = next(batches(crops, batch=4, from_step=3, readers=0))
    halves = [next(batches(crops, batch=2, from_step=3, readers=0, rank=rank, devices=2)) for rank in (0, 1)]
    assert torch.equal(both, torch.cat(halves))


@pytest.mark.slow
def test_reader_processes_give_the_same_batches(pictures: Path) -> None:
    crops = Crops(open_sources([pictures]), RULE)
    alone = list(itertools.islice(batches(crops, batch=2, from_step=1, readers=0), 3))
    ahead = list(itertools.islice(batches(crops, batch=2, from_step=1, readers=2), 3))
    assert all(torch.equal(a, b) for a, b in zip(alone, ahead, strict=True))
