"""How a user's own files are read."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.samples import broken_png, draw_folder
from wisepatch.datasets.reading import Reading, split_word
from wisepatch.errors import UsageError
from wisepatch.task_specs import with_reading
from wisepatch.tasks import find_task


def parts(task, root):
    return {split: task.dataset.split(split, root).image_ids() for split in task.dataset.available_splits}


@pytest.mark.parametrize(
    "reading",
    [
        Reading(), Reading(group=r"(video_\d+)/frame[+&=?#%,@ ]"), Reading(path_column="a b", label_column="ä", split_column="&"),
        Reading(colours="managed", bad="skip"),
    ],
)  # fmt: skip
def test_options_travel_with_the_word_and_come_back(tmp_path, reading):
    word = f"{tmp_path}{reading.query()}"
    path, options = split_word(word)
    assert (path, Reading.parse(options)) == (str(tmp_path), reading)
    assert "," not in reading.query()


@pytest.mark.parametrize(
    ("query", "message"),
    [("size=3", "no option 'size'"), ("group=(", "no regular expression"), ("bad=ignore", "bad=ignore is not known"),
     ("colours=x", "colours=x")],
)  # fmt: skip
def test_options_that_mean_nothing_are_named(shapes, query, message):
    with pytest.raises(UsageError, match=message):
        find_task(f"{shapes}?{query}")


def test_a_folder_with_a_question_mark_in_its_name_has_no_options(tmp_path):
    draw_folder(tmp_path / "what?group=x")
    assert find_task(str(tmp_path / "what?group=x")).dataset.name == "what?group=x"


def test_frames_of_one_video_stay_together(tmp_path):
    for number in range(400):
        path = tmp_path / "things" / "ab"[number % 2] / f"video_{number // 10}_frame_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    word = with_reading(f"{tmp_path / 'things'}@val", Reading(group=r"video_\d+"))
    task = find_task(word)
    assert (task.split, find_task(task.spec).spec) == ("val", task.spec)
    videos = {
        split: {Path(name).name.split("_")[1] for name in names} for split, names in parts(task, tmp_path).items()
    }
    assert sum(map(len, videos.values())) == 40
    assert all(videos.values())
    apart = parts(find_task(str(tmp_path / "things")), tmp_path)
    assert sum(len({Path(name).name.split("_")[1] for name in names}) for names in apart.values()) > 60


def test_the_group_is_what_parentheses_hold():
    reading = Reading(group=r"scene(\d+)|take(\d+)")
    assert [reading.group_of(name) for name in ("x/scene12_a.png", "x/take3.png", "x/other.png")] == ["12", "3", ""]


def test_images_that_cannot_be_read_are_skipped_counted_and_named(cli, tmp_path, caplog):
    root = draw_folder(tmp_path / "things" / "test", per_class=4).parent
    broken_png(root / "test" / "circle" / "1.png")
    refused = cli("zeroshot", "--model", "demo", "--task", root)
    assert refused.exit_code == 1
    assert "things (test): 1 image cannot be read" in refused.stderr
    assert "circle/1.png" in refused.stderr
    result = cli("zeroshot", "--model", "demo", "--task", root, "--on-bad-image", "skip", "--json")
    assert result.exit_code == 0, result.output
    assert {json.loads(line)["n"] for line in result.stdout.splitlines() if "top1" in line} == {11}
    (told,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert told.startswith(f"note: {root} (test): 1 of 12 images cannot be read and are skipped: ")
    assert told.endswith("circle/1.png")


def test_columns_are_named_on_the_command_line(cli, shapes, tmp_path):
    lines = [f"{p.relative_to(tmp_path)};{p.parent.name};test" for p in sorted(shapes.rglob("*.png"))]
    (tmp_path / "set.csv").write_text("\n".join(["photo;species;fold", *lines]))
    refused = cli("datasets", "check", tmp_path / "set.csv")
    assert "--path-column and --label-column" in refused.stderr
    columns = ("--path-column", "photo", "--label-column", "species", "--split-column", "fold")
    (record,) = map(json.loads, cli("datasets", "check", tmp_path / "set.csv", *columns, "--json").stdout.splitlines())
    assert (record["split"], record["images"], record["classes"]) == ("test", 18, 3)


def test_options_are_for_folders_and_csvs_alone(shapes):
    reading = Reading(bad="skip")
    assert with_reading("Digits", reading) == "Digits"
    assert with_reading(f"typo:{shapes}@val", reading) == f"typo:{shapes}?bad=skip@val"
    assert find_task(f"typo:{shapes}?bad=skip@val").spec == f"typo:{shapes}?bad=skip@val"


def test_colour_profiles_are_used_where_asked_for(shapes):
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in shapes.rglob("*.png"):
        Image.new("RGB", (32, 16)).save(path, exif=exif)
    samples = find_task(f"{shapes}?colours=managed").dataset.split("train", shapes).samples.samples
    assert (samples.managed, samples.as_seen, samples[0][0].size) == (True, True, (16, 32))
    assert samples.fingerprint() != find_task(str(shapes)).dataset.split("train", shapes).samples.fingerprint()
