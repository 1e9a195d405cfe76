"""Splits without images: noise to those who lack the originals, the very files to those who have them."""

import io
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import fmrgen, run
from datasets import load_dataset
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from fmrgen.delta.card import write_delta_card
from fmrgen.delta.rebuild import make_delta, rebuild
from fmrgen.errors import UserError
from fmrgen.files import sha256_of
from fmrgen.image_files import open_rgb
from fmrgen.jobs.generate import make_split
from fmrgen.jobs.verify_files import verify_files
from fmrgen.recipe.job import load_recipe
from fmrgen.split.judgements import to_parquet
from fmrgen.split.open import open_split
from fmrgen.storage.provenance import read_all

SOURCE = "{kind: mnist, limit: 120}"


@pytest.fixture(scope="module")
def delta(finished_split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("delta")
    make_delta(str(finished_split), folder)
    return folder


def test_rebuilt_files_are_the_very_files(finished_split, delta, tmp_path):
    found = rebuild(delta, SOURCE, tmp_path / "out")
    assert found["mnist/lenet"].rows == 120
    here = {path.name: sha256_of(path) for path in (tmp_path / "out/mnist").glob("*.parquet")}
    assert here == {path.name: sha256_of(path) for path in (finished_split / "mnist").glob("*.parquet")}
    told = [
        json.loads((folder / "provenance/mnist/lenet.json").read_text())
        for folder in (finished_split, tmp_path / "out")
    ]
    assert told[0] == told[1]
    checked = verify_files(str(tmp_path / "out"))
    assert (checked.intact, checked.wrong, checked.finished) == (3, [], True)
    assert (tmp_path / "out/pictures/mnist/lenet.png").exists()


def test_what_is_published_is_noise(finished_split, delta):
    files = sorted((delta / "deltas/mnist").glob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    originals = [
        row for path in sorted((finished_split / "mnist").glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    published = b"".join(path.read_bytes() for path in files)
    for row, whole in zip(rows, originals, strict=True):
        assert row["label"] == whole["label"]
        assert row["iterations"] == whole["iterations"]
        assert len(row["image"]) == len(whole["image"]["bytes"])
        assert whole["original"]["bytes"][40:90] not in published
        shown = np.asarray(open_rgb(whole["original"]["bytes"]))
        for name in ("image", "original"):
            noise = np.resize(np.frombuffer(row[name], np.uint8), shown.shape)
            found = ssim(
                *(torch.tensor(one / 255.0).permute(2, 0, 1)[None].float() for one in (noise, shown)), data_range=1.0
            )
            assert found < 0.1
    loaded = load_dataset(str(delta), "mnist.delta", split="lenet")
    assert len(loaded) == 120
    assert {"iterations", "clip_score", "original_sha256"} <= set(loaded.column_names)
    card = yaml.safe_load((delta / "README.md").read_text().split("---")[1])
    assert card["extra_gated_fields"]
    assert card["license"] == "cc-by-sa-3.0"


def test_other_originals_are_named(delta, tmp_path):
    with pytest.raises(UserError, match="source: id 0 is not the image that the split was made from"):
        rebuild(delta, "{kind: mnist, split: train}", tmp_path / "a")
    with pytest.raises(UserError, match="source: id 100 is not in it; it is another source, or another order"):
        rebuild(delta, "{kind: mnist, limit: 100}", tmp_path / "b")
    assert not list((tmp_path / "a").rglob("*.parquet"))
    assert rebuild(delta, SOURCE, tmp_path / "b")["mnist/lenet"].rows == 120  # two shards were right


def test_another_split_in_its_place_is_not_touched(delta, tmp_path):
    make_split(load_recipe("mnist-lenet", ["source.limit=8", "perturb.budget=1"]), tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    with pytest.raises(UserError, match="out:mnist/lenet was made by another recipe: .*choose another output="):
        rebuild(delta, SOURCE, tmp_path / "out")
    assert {path: path.read_bytes() for path in before} == before


def test_a_split_of_the_same_recipe_with_other_rows_is_not_taken_for_it(delta, finished_split, tmp_path):
    shutil.copytree(finished_split, tmp_path / "out")
    assert rebuild(delta, "{kind: mnist, split: train}", tmp_path / "out")["mnist/lenet"].rows == 120  # the very files
    path = tmp_path / "out/provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    shard = tmp_path / "out/mnist/lenet-00000-of-00003.parquet"
    table = pq.read_table(shard)
    pq.write_table(table, shard, compression="none", write_page_checksum=True)
    told["files"]["mnist/lenet-00000-of-00003.parquet"] = sha256_of(shard)
    path.write_text(json.dumps(told))
    with pytest.raises(UserError, match="out:mnist/lenet: is there already, and its files are not the delta's"):
        rebuild(delta, SOURCE, tmp_path / "out")
    with pytest.raises(UserError, match="holds splits without their images; choose another --output"):
        rebuild(delta, SOURCE, delta)


def test_only_what_is_a_delta_alone_is_called_one(delta, finished_split, tmp_path, capsys):
    for command in (["evaluate", delta, "-c", "asset:mnist/lenet"], ["show", delta], ["verify", delta, "--files"]):
        assert run(*command) == 2
        assert (
            f"{delta}: is a delta, which has no images; restore these with `fmrgen rebuild" in capsys.readouterr().err
        )
    shutil.copytree(finished_split, tmp_path / "both")
    shutil.copytree(delta / "deltas", tmp_path / "both/deltas")
    assert run("verify", tmp_path / "both", "--files") == 0
    assert open_split(str(tmp_path / "both")).rows == 120
    folders = tmp_path / "photos/deltas/monday"
    folders.mkdir(parents=True)
    (folders / "meta.json").write_text("{}")
    Image.new("RGB", (8, 8)).save(folders / "0.png")
    assert open_split(str(tmp_path / "photos")).provenance is None


def changed(delta, folder, change):
    """A copy of a delta whose first file `change` made another of (a table, or bytes), and which says so."""
    shutil.copytree(delta, folder)
    name = "deltas/mnist/lenet-00000-of-00003.parquet"
    found = change(pq.read_table(folder / name))
    (folder / name).write_bytes(found if isinstance(found, bytes) else to_parquet(found))
    path = folder / "deltas/mnist/lenet.json"
    about = json.loads(path.read_text())
    about["files"][name] = sha256_of(folder / name)
    path.write_text(json.dumps(about))
    return folder


def with_column(name, of):
    """What puts `of` a column in its place."""
    return lambda table: table.set_column(table.schema.get_field_index(name), name, of(table[name]))


def test_a_column_that_was_changed_is_found_and_nothing_false_is_left(delta, tmp_path, capsys):
    wrong = with_column("prediction", lambda column: pc.bit_wise_not(column))
    evil = changed(delta, tmp_path / "evil", wrong)
    for _ in range(2):
        assert run("rebuild", evil, "--source", SOURCE, "-o", tmp_path / "out", "-q") == 2
        told = "fmrgen: mnist/lenet-00000-of-00003.parquet: the rebuilt file differs from the published one; "
        assert capsys.readouterr().err.startswith(told + "its delta was changed: fetch it again")
        assert not list((tmp_path / "out").rglob("*.parquet"))
        assert not read_all(tmp_path / "out")["mnist", "lenet"].is_finished
    assert rebuild(delta, SOURCE, tmp_path / "out")["mnist/lenet"].rows == 120


def with_schema(schema):
    return lambda table: table.replace_schema_metadata({"fmrgen_split_schema": schema})


def other_schema(table):
    return with_schema(pa.schema([("id", pa.int64())]).serialize().to_pybytes())(table)


def bytes_of(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


FOREIGN = {
    "no metadata": lambda table: table.replace_schema_metadata(None),
    "no schema": lambda table: table.replace_schema_metadata({"other": "1"}),
    "a junk schema": with_schema(b"\xff" * 64),
    "a cut schema": lambda table: with_schema(table.schema.metadata[b"fmrgen_split_schema"][:100])(table),
    "another schema": other_schema,
    "no image": lambda table: table.drop_columns("image"),
    "no digest": lambda table: table.drop_columns("original_sha256"),
    "null images": with_column("image", lambda column: pa.nulls(len(column), pa.binary())),
    "text images": with_column("image", lambda column: pa.array(["x"] * len(column))),
    "null digests": with_column("original_sha256", lambda column: pa.nulls(len(column), pa.string())),
    "a column more": lambda table: table.append_column("more", table["id"]),
    "cut parquet": lambda table: bytes_of(table)[:-9],
    "no parquet": lambda table: b"",
}


@pytest.mark.parametrize("form", FOREIGN)
def test_what_is_no_delta_is_told_in_a_line(delta, tmp_path, form):
    evil = changed(delta, tmp_path / "evil", FOREIGN[form])
    with pytest.raises(UserError, match=r"lenet-00000-of-00003\.parquet: is not the delta of a split \(.*get another"):
        rebuild(evil, SOURCE, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_bytes_without_end_in_a_delta_are_not_unpacked(delta, tmp_path):
    zeros = with_column("image", lambda column: pa.array([bytes(9 << 20)]))
    evil = changed(delta, tmp_path / "evil", lambda table: zeros(table.slice(0, 1)))
    with pytest.raises(UserError, match="those can't be images, and they are not unpacked"):
        rebuild(evil, SOURCE, tmp_path / "out")


def test_another_pyarrow_than_the_splits_is_named(delta, tmp_path):
    """Its files are others, for the same rows."""

    def written_by_another(table):
        told = {**table.schema.metadata, b"fmrgen_split_writer": b"parquet-cpp-arrow version 9.0.0"}
        return with_column("loss", lambda column: pc.negate(column))(table).replace_schema_metadata(told)

    other = changed(delta, tmp_path / "other", written_by_another)
    with pytest.raises(UserError, match=r"written by parquet-cpp-arrow version 9\.0\.0, .*install that version"):
        rebuild(other, SOURCE, tmp_path / "out")


def test_a_delta_names_no_files_but_its_own(delta, tmp_path):
    """A stranger's delta under another name, whose file would take the place of a split's."""
    shutil.copytree(delta, tmp_path / "evil")
    about = tmp_path / "evil/deltas/mnist/lenet.json"
    (tmp_path / "evil/deltas/other").mkdir()
    about.rename(tmp_path / "evil/deltas/other/x.json")
    with pytest.raises(UserError, match=r"x\.json: its files are not those of other/x"):
        rebuild(tmp_path / "evil", SOURCE, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_no_two_images_share_a_stream(delta, finished_split, tmp_path):
    """Else one that got out would give the others away."""
    (first, *_), (whole, *_) = (
        pq.read_table(next(iter(sorted(folder.glob("*.parquet"))))).to_pylist()
        for folder in (delta / "deltas/mnist", finished_split / "mnist")
    )
    known = np.frombuffer(whole["image"]["bytes"], np.uint8)[:100]
    stream = known ^ np.frombuffer(first["image"], np.uint8)[:100]
    guess = np.frombuffer(first["original"], np.uint8)[:100] ^ stream
    assert (guess != np.frombuffer(whole["original"]["bytes"], np.uint8)[:100]).mean() > 0.9


@pytest.mark.slow
def test_a_delta_made_again_leaves_nothing_of_the_last_one(tmp_path):
    for size in (6, 4):
        few = ["source.limit=12", "perturb.budget=1", f"output.shard_size={size}"]
        make_split(load_recipe("mnist-lenet", few), tmp_path / f"out{size}")
        make_delta(str(tmp_path / f"out{size}"), tmp_path / "delta")
    assert len(load_dataset(str(tmp_path / "delta"), "mnist.delta", split="lenet")) == 12


def test_a_card_that_is_none(delta, tmp_path):
    shutil.copytree(delta, tmp_path / "delta")
    card = tmp_path / "delta/README.md"
    card.write_bytes(b"mine \xff")
    write_delta_card(tmp_path / "delta")
    assert card.read_bytes() == b"mine \xff"
    card.unlink()
    os.mkfifo(card)
    with pytest.raises(UserError, match="README.md: can't be read: is a pipe"):
        write_delta_card(tmp_path / "delta")


@pytest.mark.slow
def test_a_wrong_resize_is_named(tmp_path):
    from fmrgen.sources.mnist import Config as Mnist

    for example in Mnist().build().read(0, 20):
        folder = tmp_path / f"photos/{example.label}"
        folder.mkdir(parents=True, exist_ok=True)
        wide = Image.fromarray(np.asarray(example.image.convert("RGB"))).resize((60, 40), Image.Resampling.BICUBIC)
        wide.save(folder / f"{example.id}.png")
    section = f"{{kind: imagefolder, path: {tmp_path}/photos}}"
    recipe = load_recipe("mnist-lenet", [f"source={section}", "perturb.budget=2"])
    make_split(recipe, tmp_path / "out")
    make_delta(str(tmp_path / "out"), tmp_path / "delta")
    assert rebuild(tmp_path / "delta", section, tmp_path / "again")["mnist/lenet"].rows == 20
    broken = next((tmp_path / "photos").rglob("*.png"))
    content = broken.read_bytes()
    broken.write_bytes(b"none")
    with pytest.raises(UserError, match=rf"source: image of id \d+ \({broken}\) is unreadable \(no image\); repair it"):
        rebuild(tmp_path / "delta", section, tmp_path / "broken")
    broken.write_bytes(content)
    wrong = section.replace("imagefolder", "imagefolder, fit: squash")
    with pytest.raises(
        UserError, match="is the right image with fit=crop, and yours has fit=squash; set source.fit=crop"
    ):
        rebuild(tmp_path / "delta", wrong, tmp_path / "wrong")


@pytest.mark.slow
def test_splits_of_several_pushes_are_in_one_card(finished_split, hub, tmp_path):
    other = ["source.limit=12", "perturb.budget=1", "output.split=soft", "source.license=cc-by-nc-4.0"]
    make_split(load_recipe("mnist-lenet", [*other, "output.config=other"]), tmp_path / "soft")
    for folder in (finished_split, tmp_path / "soft", finished_split):
        pushed = fmrgen("push", folder, "someone/deltas", "--without-images", "--json", **hub.environment)
        assert pushed.returncode == 0, pushed.stderr
        assert json.loads(pushed.stdout)["url"]
    world = hub.world()
    card = (world.blobs / world.files("someone/deltas")["README.md"]).read_text()
    told = yaml.safe_load(card.split("---")[1])
    assert [entry["config_name"] for entry in told["configs"]] == ["mnist.delta", "other.delta"]
    assert told["license"] == ["cc-by-nc-4.0", "cc-by-sa-3.0"]
    few = ["source.limit=12", "perturb.budget=1", "output.split=soft", "output.shard_size=4", "output.config=other"]
    make_split(load_recipe("mnist-lenet", few), tmp_path / "again")
    pushed = fmrgen("push", tmp_path / "again", "someone/deltas", "--without-images", "-q", **hub.environment)
    assert (pushed.returncode, pushed.stdout) == (0, ""), pushed.stderr
    there = [path for path in world.files("someone/deltas") if path.startswith("deltas/other/")]
    shards = [f"deltas/other/soft-0000{number}-of-00003.parquet" for number in range(3)]
    assert sorted(there) == [*shards, "deltas/other/soft.json"]


@pytest.mark.slow
def test_over_the_hub(finished_split, hub, tmp_path):
    pushed = fmrgen("push", finished_split, "someone/delta", "--without-images", **hub.environment)
    assert pushed.returncode == 0, pushed.stderr
    there = hub.world().files("someone/delta")
    assert not any(path.startswith(("mnist/", "pictures/", "provenance/")) for path in there)
    command = ("rebuild", "someone/delta", "--source", SOURCE, "-o", tmp_path / "out", "-q")
    done = fmrgen(*command, **hub.environment)
    assert done.returncode == 0, done.stderr
    assert verify_files(str(tmp_path / "out")).wrong == []
    push = fmrgen("push", finished_split, "someone/whole", "-q", **hub.environment)
    assert push.returncode == 0, push.stderr
    other = fmrgen("push", finished_split, "someone/delta", "-q", **hub.environment)
    assert "someone/delta: holds splits without images; push those with images to another repo" in other.stderr
    mixed = fmrgen("push", finished_split, "someone/whole", "--without-images", **hub.environment)
    assert mixed.returncode == 2
    assert "holds splits with images" in mixed.stderr
    hub.world().repos["someone/delta"]["private"] = False
    seen = fmrgen("push", finished_split, "someone/delta", "--without-images", **hub.environment)
    assert seen.returncode == 2
    assert "someone/delta: is a public repo; if these images may be published, pass --public" in seen.stderr


def test_bad_input(delta, tmp_path, capsys):
    assert run("rebuild", tmp_path, "--source", SOURCE, "-o", tmp_path / "x") == 2
    assert "contains no split without images; push one with --without-images" in capsys.readouterr().err
    assert run("push", tmp_path, "a/b", "--without-images", "--replace") == 2
    shutil.copytree(delta, tmp_path / "cut")
    path = next((tmp_path / "cut").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="is missing or was changed; fetch it again"):
        rebuild(tmp_path / "cut", SOURCE, tmp_path / "y")
    about = tmp_path / "cut/deltas/mnist/lenet.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"files": {"../x.parquet": "0"}}))
    with pytest.raises(UserError, match="files"):
        rebuild(tmp_path / "cut", SOURCE, tmp_path / "z")
    newer = delta.joinpath("deltas/mnist/lenet.json").read_text().replace("fmrgen-provenance/4", "fmrgen-provenance/99")
    about.write_text(newer)
    with pytest.raises(
        UserError, match=r"mnist/lenet has the format fmrgen-provenance/99, this fmrgen fmrgen-provenance/4"
    ):
        rebuild(tmp_path / "cut", SOURCE, tmp_path / "z")
