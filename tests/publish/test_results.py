"""Results that travel: model cards that the Hub's library reads, cards in folders and on a (real, small) Hub."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fmrgen, python, run, upload
from datasets import load_dataset
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, HfApi
from PIL import Image as PILImage

from fmrgen import evaluate
from fmrgen.errors import UserError
from fmrgen.metrics.summary import SUMMARY_COLUMNS, summarise
from fmrgen.publish.card import FinishedSplit, write_card
from fmrgen.publish.eval_results import _entries
from fmrgen.publish.push import _judgements
from fmrgen.publish.results import record_results
from fmrgen.split.judgements import TABLE, JudgeFile, JudgementsFolder, judgements_of, to_parquet
from fmrgen.split.open import open_split
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import read_provenance

LENET = "asset:mnist/lenet"


def evaluated(hub, out, reference, *options, classifier=LENET, **environment):
    """An evaluation in a process of its own."""
    command = ("evaluate", reference, "-c", classifier, "-q", *options, "-o", out)
    return fmrgen(*command, **{**hub.environment, **environment})


def edit_files(split):
    """Makes the split's recorded files others."""
    path = split / "provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"files": dict.fromkeys(told["files"], "0" * 64)}))


def test_results_on_the_card_of_a_folder(split):
    evaluation = evaluate([str(split)], [f"mine={LENET}", "other=outside_components:SmallNetConfig"])
    assert record_results(evaluation) == [(f"{split}:mnist/lenet: 2 results added to its card", True)]
    files = sorted((split / "results/mnist/lenet").glob("*.json"))
    assert [path.name.rpartition("-")[0] for path in files] == ["mine", "other"]
    told = json.loads(files[0].read_text())
    assert told["fmr"]["value"] == evaluation.result(f"{split}:mnist/lenet", "mine").total.fmr.value
    card = (split / "README.md").read_text()
    assert "| mine ◆ |" in card
    assert "| other † |" in card
    assert DatasetCard.load(split / "README.md").data.configs[0]["config_name"] == "mnist"
    assert len(load_dataset(str(split), "mnist", split="lenet")) == 120
    record_results(evaluation)  # again: the same rows, not more
    assert len(list((split / "results/mnist/lenet").glob("*.json"))) == 2
    edit_files(split)
    record_results(evaluate([str(split)], ["new=outside_components:SmallNetConfig"]))
    card = (split / "README.md").read_text()
    assert "| new † |" in card
    assert "| mine ◆ |" not in card  # it was found on files that are no more


def test_what_others_wrote_in_the_card_stays(split):
    (split / "README.md").write_text(
        "---\nlicense: mit\ntags: [digits]\nconfigs:\n- config_name: other\n  data_files: other/*.parquet\n---\n# Ours\n\nBy hand.\n"
    )
    evaluation = evaluate([str(split)], [f"mine={LENET}"])
    for _ in range(2):
        record_results(evaluation)
        card = DatasetCard.load(split / "README.md")
        assert card.data.license == ["mit", "cc-by-sa-3.0"]
        assert card.data.tags == ["digits", "fmrgen", "robustness", "perturbed"]
        assert [config["config_name"] for config in card.data.configs] == ["other", "mnist"]
        assert card.text.strip().startswith("# Ours\n\nBy hand.\n\n<!-- fmrgen")
        assert card.text.count("| mine ◆ |") == 1
    text = (split / "README.md").read_text()
    (split / "README.md").write_text(text + "\nAfterwards.\n")
    record_results(evaluation)
    assert (split / "README.md").read_text().endswith("<!-- fmrgen: to here -->\n\nAfterwards.\n")


BEGIN, END = "<!-- fmrgen: written by a machine from here -->", "<!-- fmrgen: to here -->"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("---\nconfigs: {a: b}\n---\n", None),
        ("---\nconfigs: [a]\n---\n", "its configs is not a list of mappings; fix it by hand"),
        ("---\ndataset_info: [a]\n---\n", "its dataset_info is not a list of mappings"),
        ("---\ntags: [[a, b]]\n---\n", "its tags is neither a string nor a list of strings"),
        ("---\nlicense: {name: mit}\n---\n", "its license is neither a string nor a list of strings"),
        ("---\na: [\n---\n", "its metadata can't be read, fix it by hand"),
        (f"Mine.\n\n{BEGIN}\nold\n", f"fmrgen writes its text between {BEGIN} and {END}"),
        (f"Mine.\n\n{END}\n", "are not there once each, in this order"),
        (f"{END}\n{BEGIN}\n", "are not there once each, in this order"),
        (f"{BEGIN}\nold\n{END}\nMine.\n{BEGIN}\nold\n{END}\n", "are not there once each"),
        ("Mine, without metadata.\r\n\r\nBy hand.\r\n", None),
        ("", None),
    ],
)
def test_cards_that_somebody_wrote_otherwise(split, card, message):
    path = split / "README.md"
    path.write_bytes(card.encode())
    if message is None:
        write_card(split)
        assert all(word in path.read_text() for word in re.findall(r"Mine, without metadata\.|By hand\.", card))
        assert "mnist" in [config["config_name"] for config in DatasetCard.load(path).data.configs]
        return
    with pytest.raises(UserError) as error:
        write_card(split, "someone/digits")
    assert str(error.value).startswith("someone/digits: README.md: ")
    assert message in str(error.value)
    assert path.read_bytes() == card.encode()


def test_files_among_the_results_that_are_none_stop_nobody(split):
    folder = split / "results/mnist/lenet"
    folder.mkdir(parents=True)
    for name, text in (("a", "[1]"), ("b", "{"), ("c", '{"schema": "fmrgen-result/1"}')):
        (folder / f"{name}.json").write_text(text)
    assert "1 result added" in record_results(evaluate([str(split)], [f"mine={LENET}"]))[0][0]
    assert "| mine ◆ |" in (split / "README.md").read_text()


@pytest.mark.slow
def test_what_is_not_recorded_is_told_beside_the_outcome(split, tmp_path, capsys):
    (split / "results").write_text("in the way")
    assert run("evaluate", split, "-c", LENET, "--record", "-q", "-o", tmp_path / "report") == 0
    told = capsys.readouterr()
    assert re.match(rf"{split}:mnist/lenet: results not added to its card: .*can't be written: ", told.err)
    assert told.out.splitlines()[-1] == f"{tmp_path}/report/report.html"


def test_what_has_no_card(split):
    evaluation = evaluate([f"{split}/mnist/lenet-*.parquet"], [LENET])
    ((line, is_on_card),) = record_results(evaluation)
    assert "no split of fmrgen's, so it has no card" in line
    assert not is_on_card


@pytest.mark.nightly
def test_evaluating_straight_from_the_hub(hub, split, tmp_path):
    first = upload(hub, split, "someone/splits")
    assert evaluated(hub, tmp_path / "local", split).returncode == 0
    local = json.loads((tmp_path / "local/evaluation.json").read_text())
    (split / "mnist").joinpath("lenet-00000-of-00003.parquet").write_bytes(b"broken later")
    upload(hub, split, "someone/splits")
    for number, options in enumerate(([], ["--download"])):
        out = tmp_path / f"hub{number}"
        result = evaluated(hub, out, f"someone/splits@{first}:mnist/lenet", *options)
        assert result.returncode == 0, result.stderr
        found = json.loads((out / "evaluation.json").read_text())
        assert found["splits"][0]["revision"] == first
        for name in ("total", "classes", "conditioned", "notes"):
            assert found["results"][0][name] == local["results"][0][name]
    for reference, message in (
        ("someone/splits:mnist/lenet", "fmrgen: someone/splits:mnist/lenet: can't be opened: Parquet magic bytes"),
        (f"someone/splits@{first}:mnist/vgg", "no split mnist/vgg; found someone/splits:mnist/lenet"),
        ("someone/splits@v9:mnist/lenet", "neither a folder nor a dataset repo that can be read: 404"),
    ):
        result = evaluated(hub, tmp_path / "x", reference)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
        assert message in result.stderr


@pytest.mark.slow
def test_results_on_a_card_of_the_hub(hub, split, tmp_path):
    upload(hub, split, "someone/splits")
    result = evaluated(hub, tmp_path / "a", "someone/splits", "--record", classifier=f"mine={LENET}")
    assert "someone/splits:mnist/lenet: 1 result added to its card" in result.stdout, result.stderr
    assert result.stderr == ""  # -q is quiet, the Hub's client too
    assert list(_entries(tmp_path / "a", "mine")) == [".eval_results/someone--splits--mnist-lenet.yaml"]
    result = evaluated(hub, tmp_path / "b", "someone/splits", "--record", classifier="other={kind: lenet}")
    assert result.returncode == 0, result.stderr
    card = python(hub, "from huggingface_hub import DatasetCard; print(DatasetCard.load('someone/splits').text)")
    assert "| mine ◆ |" in card
    assert "| other † |" in card
    path = split / "provenance/mnist/lenet.json"
    content = path.read_bytes()
    edit_files(split)
    first = upload(hub, split, "someone/splits")
    path.write_bytes(content)
    upload(hub, split, "someone/splits")
    result = evaluated(hub, tmp_path / "old", f"someone/splits@{first}", "--record")
    assert ": was generated again since; run this on the current split" in result.stderr
    result = evaluated(hub, tmp_path / "c", "someone/splits", "--record", HF_TOKEN="reader")
    assert result.returncode == 0
    assert "results not added to its card: someone/splits: the Hub refused: " in result.stderr
    assert (tmp_path / "c/report.html").exists()


def test_names_in_a_card_are_shown_and_do_nothing(split):
    path = split / "provenance/mnist/lenet.json"
    told = json.loads(path.read_text())
    told["recipe"]["description"] = (
        "{{ 7 * 7 }} {% include 'x' %} <img src=x onerror=alert(1)> [a](javascript:alert(1))"
    )
    told["recipe"]["classifier"]["checkpoint"] = "a|b`c`\n# Heading\n</details>"
    told["recipe"]["oracle"]["prompts"] = ["````\n</details><script>alert(1)</script>\n{class}"]
    for one in told["runs"]:
        one["started"], one["versions"] = "```\n<object>", {"fmrgen": "1\n```\n<object></object>"}
    path.write_text(json.dumps(told))
    write_card(split)
    card = DatasetCard.load(split / "README.md")
    assert "{{ 7" in card.text  # shown, not run
    assert "\n# Heading" not in card.text
    assert "<object>" not in card.text
    assert "<img" not in card.text.replace("\\<img", "")
    assert "](javascript" not in card.text.replace("\\](javascript", "")
    assert len(load_dataset(str(split), "mnist", split="lenet")) == 120


def test_the_card_holds_the_figures_that_the_columns_give(split):
    table = pa.concat_tables([pq.read_table(path) for path in sorted(split.glob("mnist/*.parquet"))])
    summary = summarise({name: table[name].to_numpy() for name in SUMMARY_COLUMNS if name in table.column_names})
    card = DatasetCard.load(split / "README.md")
    assert card.text.index("pictures/mnist/lenet.png") < card.text.index("load_dataset")
    for name, estimate in (
        ("FMR = PA / SA", summary.fmr),
        ("SA, standard accuracy", summary.standard_accuracy),
        ("PA, perturbed accuracy over valid rows", summary.perturbed_accuracy),
    ):
        line = next(line for line in card.text.splitlines() if line.startswith(f"| {name} |"))
        value, interval = (cell.strip() for cell in line.split("|")[2:4])
        assert (value, interval) == (f"{estimate.value:.2f} %", f"{estimate.low:.1f} – {estimate.high:.1f}")
    data = card.data.to_dict()
    assert data["size_categories"] == ["n<1K"]
    assert data["license"] == "cc-by-sa-3.0"
    assert data["task_categories"] == ["image-classification"]
    (info,) = DatasetInfosDict.from_dataset_card_data(card.data).values()
    assert info.splits["lenet"].num_examples == len(table)
    assert info.download_size == sum(path.stat().st_size for path in split.glob("mnist/*.parquet"))
    loaded = load_dataset(str(split), "mnist", split="lenet")
    assert loaded.features["label"].names == [str(digit) for digit in range(10)]  # of the files: the card has no names
    picture = PILImage.open(split / "pictures/mnist/lenet.png")
    assert picture.width > 600
    assert "(pictures/mnist/lenet.png)" in card.text


def test_judgements_without_end_are_not_fetched(finished_split, tmp_path, monkeypatch):
    huge = SimpleNamespace(rfilename="judgements/mnist/lenet/ann.parquet", size=1 << 40)
    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: SimpleNamespace(sha="a" * 40, siblings=[huge]))
    on_the_hub = replace(open_split(str(finished_split)), repo="someone/digits", revision="a" * 40)
    with pytest.raises(UserError, match=r"ann\.parquet has 1,099,511,627,776 bytes, and no more than"):
        judgements_of(on_the_hub)
    monkeypatch.setattr("fmrgen.hub.client.snapshot_download", lambda *_, **__: tmp_path)
    huge.rfilename = "mnist/lenet-00000-of-00001.parquet"
    assert judgements_of(on_the_hub) == ([], [])


def test_judgements_that_are_half_there_are_not_pushed(split, tmp_path):
    paths = SplitPaths(split, "mnist", "lenet")
    provenance, content = read_provenance(paths), to_parquet(TABLE.empty_table())
    about = JudgeFile.of("ann", "person", {}, None, paths.name, provenance, content)
    JudgementsFolder(paths).write(about, content)
    finished = FinishedSplit(paths, provenance)
    (operation,) = _judgements(finished, tmp_path / "small", "you/digits")
    assert operation.path_in_repo == "judgements/mnist/lenet/ann.parquet"
    table = split / operation.path_in_repo
    table.write_bytes(content + b" ")
    with pytest.raises(UserError, match=r"ann\.parquet: is not the table that ann\.json describes; judge again"):
        _judgements(finished, tmp_path / "small", "you/digits")
    table.unlink()
    with pytest.raises(UserError, match=r"ann\.parquet: can't be read"):
        _judgements(finished, tmp_path / "small", "you/digits")
