"""What users get wrong, over all commands: one line that names the thing and the cure, exit status 2, nothing lost."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import run
from installed import of_installed_commands
from photos import RECIPE, photo
from PIL import Image
from places import ROOT
from safetensors.torch import save_file

LENET = "{kind: lenet, num_classes: 2}"
PROVENANCE = "provenance/c/s.json"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe, two classes of photos, a finished split `out`, and things that are broken."""
    root = tmp_path_factory.mktemp("bad")
    before = os.getcwd()
    os.chdir(root)
    for name, color in (("a", "red"), ("b", "blue")):
        for number in range(2):
            photo(root / "photos" / name / f"{number}.png", color=color)
    photo(root / "one/a/0.png")
    (root / "none/a").mkdir(parents=True)
    (root / "none/b").mkdir()
    (root / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    for name, content in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    torch.manual_seed(0)
    assert run("generate", "r.yaml", "-o", "out", "-q") == 0
    torch.manual_seed(0)
    assert run("generate", "r.yaml", "perturb.budget=3", "-o", "out3", "-q") == 0
    for name, mask in MASKS.items():
        save_file({"mask": mask}, root / f"{name}.safetensors")
    save_file({"other": torch.ones(2)}, root / "other.safetensors")
    table = pq.read_table("out/c/s-00000-of-00001.parquet")
    for column in ("image", "label"):
        pq.write_table(table.drop_columns([column]), root / f"no_{column}.parquet")
    pq.write_table(pa.table({"image": [b"x"], "label": ["q"]}), root / "no_image_in_it.parquet")
    for name, change in PROVENANCES.items():
        shutil.copytree("out", name)
        told = json.loads((root / name / PROVENANCE).read_text())
        (root / name / PROVENANCE).write_text(change(told))
    shutil.copytree("out", "cut")
    shard = root / "cut/c/s-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:300])
    yield root
    os.chdir(before)


def digest(root):
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def bomb():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    return "\n".join(lines).encode()


FILES = {
    "bomb.yaml": bomb(),
    "deep.yaml": b"[" * 5000,
    "tag.yaml": b"a: !!python/object/apply:os.system ['touch ran']",
    "list.yaml": b"- a\n- b",
    "empty.safetensors": b"",
    "text.pth": b"hello",
    "broken_code.py": b"raise RuntimeError('at import')\n",
    "exits.py": b"raise SystemExit(0)\n",
    "report/evaluation.json": b"{}",
    "card/README.md": b"---\nconfigs: [\n---\n",
    "junk.tar": b"no tar",
    "junk.parquet": b"junk",
}
MASKS = {"still": torch.zeros(7, dtype=torch.bool), "shape": torch.ones(3, dtype=torch.bool), "floats": torch.ones(7)}
PROVENANCES = {
    "list_provenance": lambda told: "[]",
    "empty_provenance": lambda told: "{}",
    "deep_provenance": lambda told: '{"a":' + "[" * 100_000,
    "lacking": lambda told: json.dumps({name: told[name] for name in told if name != "labels"}),
    "outside": lambda told: json.dumps({**told, "files": {"../../etc/passwd.parquet": "0" * 64}}),
    "no_groups": lambda told: json.dumps({name: told[name] for name in told if name != "groups"}),
    "unfinished": lambda told: json.dumps({**told, "finished": False}),
    "unknown_kind": lambda told: json.dumps({**told, "recipe": {**told["recipe"], "classifier": {"kind": "nope"}}}),
    "half_character": lambda told: json.dumps({**told, "fingerprint": "\ud800"}),
    "huge": lambda told: json.dumps({**told, "examples": 10**15}),
}

GENERATE = ["generate", "r.yaml", "-o", "new", "-q"]
EVALUATE = ["-c", LENET, "-o", "e", "-q"]
CASES = [
    # recipes
    (["generate", "nowhere.yaml"], "nowhere.yaml: no such file, and not a shipped recipe"),
    (["generate"], "name a recipe, which `fmrgen recipes` lists; there is no fmrgen.yaml in this folder"),
    (["generate", "mnist-lenet", "step_size=1"], "step_size=1: step_size is a key of a section; say perturb.step_size=1"),
    (["generate", "train/mnist-lenet"], "train/mnist-lenet: is a file for `fmrgen train`; `fmrgen recipes` lists others"),
    (["generate", "mnist-lenet", "--limit", "2.5"], "--limit: must be a whole number, not 2.5"),
    (["generate", "mnist-lenet", "--json=perhaps"], "--json: must be true or false, not perhaps"),
    (["generate", "mnist-lenet", "-o"], "-o: its value is missing"),
    (["genrate"], "genrate: unknown command, did you mean generate; see fmrgen --help"),
    (["generate", "photos/a/0.png"], "photos/a/0.png: not YAML: 'utf-8' codec can't decode"),
    (["generate", "bomb.yaml"], "bomb.yaml: its aliases expand to more than 1,000,000 entries; write them out"),
    (["generate", "deep.yaml"], "deep.yaml: can't be read as YAML: it is nested too deeply"),
    (["generate", "tag.yaml"], "tag.yaml: not YAML: could not determine a constructor for the tag"),
    (["generate", "list.yaml"], "list.yaml: a recipe must be a mapping of sections, this is a list"),
    ([*GENERATE, "perturb.slots=0"], "r.yaml: perturb: slots must be auto or from 1 to 65,536, not 0"),
    ([*GENERATE, "perturb.step_size=nan"], "r.yaml: perturb: step_size must be a positive number, not nan"),
    ([*GENERATE, "perturb.seed=-1"], "r.yaml: perturb: seed must not be negative, it is -1"),
    ([*GENERATE, "perturb.bugdet=3"], "r.yaml: perturb.bugdet: unknown key, did you mean budget?"),
    ([*GENERATE, f"perturb.budget={10**19}"], "r.yaml: perturb: budget must be from 1 to 1,000,000 steps"),
    ([*GENERATE, "output.split=all"], "r.yaml: output.split: 'all' is reserved in a dataset folder; choose another name"),
    ([*GENERATE, "output.config=README.md"], "r.yaml: output.config: 'README.md' is reserved in a dataset folder"),
    ([*GENERATE, "description=!!binary aGVsbG8="], "contains a bytes, neither text nor a number; put it in quotes"),
    ([*GENERATE, f"description=0x{'f' * 5000}"], "contains a number of over 1,000 digits; quote it if it is text"),
    ([*GENERATE, 'description="\\ud800"'], "contains an unpaired surrogate; fix it"),
    ([*GENERATE, "output.config=a b"], "r.yaml: output.config: 'a b' can't be a name here"),
    ([*GENERATE, "output.config=../up"], "r.yaml: output.config: '../up' can't be a name here"),
    ([*GENERATE, "--limit", str(10**20)], "r.yaml: source.limit: must be 1,000,000,000,000 or less, not 1"),
    ([*GENERATE, "generator.image_size=7"], "r.yaml: generator.image_size: must be 8 or more, not 7"),
    ([*GENERATE, "generator.image_size=1000000"], "generator.image_size: an image of 1000000 px does not fit in memory"),
    # sources, labels and class names
    ([*GENERATE, "source.path=gone"], "source.path: gone is not a folder of class folders"),
    ([*GENERATE, "source.path=one"], "source: 1 class is not enough"),
    ([*GENERATE, "source.path=none"], "source: contains no examples"),
    ([*GENERATE, "source.classes=[x, x]"], "source.classes: 2 classes are called 'x'; list names that differ"),
    ([*GENERATE, "source.classes=['', y]"], "source.classes: class 0 has no name"),
    ([*GENERATE, "source.classes={x: a, y: 1}"], "source.classes.x: 'a' is not a class index or a range"),
    ([*GENERATE, "source.classes={x: 0, y: 7}"], "source.classes.y: class 7 does not exist; use 0 to 1"),
    ([*GENERATE, "source={kind: webdataset, urls: gone.tar}"], "source.urls: gone.tar does not exist"),
    ([*GENERATE, "source={kind: webdataset, urls: junk.tar, classes: [a, b]}"], "source.urls: junk.tar: can't be read as a tar"),
    ([*GENERATE, "source={kind: datasets, path: owner/name}"], "source: owner/name, split 'test', can't be opened"),
    # checkpoints, models and masks
    ([*GENERATE, "classifier.checkpoint=gone.pth"], "classifier.checkpoint: no such file as gone.pth"),
    ([*GENERATE, "classifier.checkpoint=text.pth"], "classifier.checkpoint: text.pth: not a readable checkpoint"),
    ([*GENERATE, "classifier.checkpoint=empty.safetensors"], "empty.safetensors: not a readable checkpoint"),
    ([*GENERATE, "classifier.checkpoint=other.safetensors"], "other.safetensors: not weights of this model: 0.0.weight and 9 more is missing"),
    ([*GENERATE, "classifier.checkpoint=hf:owner"], "classifier.checkpoint: hf:owner must be hf:OWNER/REPO/FILE"),
    ([*GENERATE, "classifier.num_classes=5"], "classifier: has 5 outputs for 2 labels"),
    ([*GENERATE, "classifier=nothing"], "classifier: nothing: not a classifier; use timm:NAME, zoo:NAME, hf:REPO"),
    ([*GENERATE, "classifier={kind: timm, model: resnet5000}"], "classifier.model: timm has no resnet5000"),
    ([*GENERATE, "classifier={kind: module, target: 'broken_code:Net'}"], "classifier: module can't be built: RuntimeError: at import"),
    ([*GENERATE, "classifier={kind: module, target: 'exits:Net'}"], "classifier: module can't be built: SystemExit: 0"),
    ([*GENERATE, "generator={kind: vqgan, model: photos, image_size: 32}"], "generator.model: photos is not a model's folder: it has no config.json"),
    ([*GENERATE, "generator={kind: vqgan, checkpoint: text.pth, config: list.yaml, image_size: 32}"], "generator.config: list.yaml is not a taming VQGAN config"),
    ([*GENERATE, "oracle={kind: clip, model: photos}"], "oracle.model: photos can't be loaded"),
    ([*GENERATE, "generator.mask=gone.safetensors"], "generator.mask: no such file as gone.safetensors"),
    ([*GENERATE, "generator.mask=text.pth"], "generator.mask: text.pth is not a mask; create one with fmrgen sparsify"),
    ([*GENERATE, "generator.mask=still.safetensors"], "generator.mask: still.safetensors frees no dimension"),
    ([*GENERATE, "generator.mask=shape.safetensors"], "generator.mask: shape.safetensors is for latents of [3], this generator's are [7]"),
    ([*GENERATE, "generator.mask=floats.safetensors"], "generator.mask: floats.safetensors frees no dimension"),
    # where to write
    (["generate", "r.yaml", "-o", "r.yaml"], "r.yaml: can't be written: r.yaml is not a folder"),
    (["generate", "r.yaml", "-o", "r.yaml/in"], "r.yaml is not a folder; choose another --output"),
    (["generate", "r.yaml", "-o", "new\udcff"], "its name is not UTF-8, so parquet can't be written there; choose another"),
    (["generate", "r.yaml", "-o", "card"], "card/README.md: its metadata can't be read, fix it by hand"),
    (["generate", "r.yaml", "perturb.budget=3", "-o", "out"], "out:c/s was generated by another recipe: perturb.budget was 2, is 3; choose another"),
    (["generate", "r.yaml", "-o", "out"], "out:c/s was started with other classifier weights; put them back"),
    (["generate", "r.yaml", "-o", "empty_provenance"], f"empty_provenance/{PROVENANCE}: is not a provenance of fmrgen; delete it"),
    (["generate", "r.yaml", "--public"], "--public only applies with --push REPO"),
    (["generate", "r.yaml", "--part", "3/2"], "--part 3/2: must be I/N, for example 1/2 for the first of two parts"),
    (["generate", "r.yaml", "--part", "1/2", "--push", "me/x"], "--push needs the whole split and --part generates one part; merge the folders, then push"),
    (["generate", "r.yaml", "--push", "a b"], "a b: not a valid repo name"),
    # splits
    (["verify", ""], "'': a split is PATH_OR_REPO"),
    (["verify", "gone"], "gone: neither a folder nor a dataset repo"),
    (["verify", "out:c/x"], "out:c/x: no split c/x; found out:c/s"),
    (["verify", "out", "--fils"], "--fils: unknown option, did you mean --files"),
    (["verify", "unfinished"], "unfinished: not finished; run the same generate command again"),
    (["verify", "deep_provenance"], f"deep_provenance/{PROVENANCE}: can't be read as JSON"),
    (["verify", "list_provenance", "--files"], "is not a JSON mapping"),
    (["verify", "lacking"], "lacking: its provenance is not that of a finished split"),
    (["verify", "huge", "--files"], "shards are too many files"),
    (["verify", "half_character", "--files"], f"half_character/{PROVENANCE}: can't be read as JSON"),
    (["verify", "no_groups", "--files"], f"no_groups/{PROVENANCE}: is not a provenance of fmrgen; delete it, or choose another folder"),
    (["explain", "gone"], "gone: neither a folder nor a dataset repo"),
    (["explain", "out", "-c", "no.such"], "no.such"),
    (["explain", "out", "--attribute", "nothing"], "nothing"),
    (["explain", "out", "-o", "r.yaml"], "r.yaml"),
    (["verify", "r.yaml", "--files"], "r.yaml: is a file; verify the folder of a generate command"),
    (["generate", "x" * 300], f"{'x' * 80}: File name too long"),
    (["verify", "unknown_kind"], "unknown_kind: the recipe in its provenance: classifier: 'nope': unknown kind"),
    (["show", "outside"], "outside: its provenance is not that of a finished split"),
    (["show", "out", "--rows", "0"], "--rows: must be >= 1, not 0"),
    (["show", "out", "-o", "r.yaml"], "r.yaml: can't be written: r.yaml is not a folder; choose another --output"),
    (["evaluate", "junk.parquet", *EVALUATE], "junk.parquet: can't be opened"),
    (["evaluate", "no_image.parquet", *EVALUATE], "no_image.parquet: has no column image, only label"),
    (["evaluate", "no_label.parquet", *EVALUATE], "no_label.parquet: has no column label, only image"),
    (["evaluate", "no_image_in_it.parquet", *EVALUATE], "row 0: its image is unreadable (no image)"),
    (["evaluate", "out", "-c", "nope"], "nope: not a classifier; use timm:NAME"),
    (["evaluate", "out", "-c", "{kind: ["], "{kind: [: not YAML"),
    (["evaluate", "out", "-c", LENET, "-c", LENET], "two classifiers are called lenet"),
    (["evaluate", "out", "out", *EVALUATE], "split out:c/s is given twice"),
    (["evaluate", "out", "-c", "{kind: timm, model: resnet18, num_classes: 2}"], "classifier.num_classes: unknown key, did you mean class_names? (an argument of the network goes into model_args: {num_classes: 2})"),
    (["evaluate", "out", "-c", "{kind: lenet, num_classes: 5}", "-o", "e", "-q"], "classifier lenet on out:c/s: has 5 outputs for 2 labels"),
    (["evaluate", "out", "-c", LENET, "--batch-size", str(10**20)], "--batch-size: must be <= 65536, not 1"),
    (["evaluate", "-c", LENET], "SPLIT: missing; name one, or pass --fixed SETS"),
    (["explain", "report"], "report: holds a report; name the split that it is about, as OUT:CONFIG/SPLIT"),
    (["push", "gone", "a/b"], "gone: no such folder; push the --output of a generate command"),
    (["push", "photos", "a/b"], "photos: contains no perturbed split"),
    (["push", "unfinished", "a/b"], "c/s is not finished and stays here"),
    (["push", "out", "a b"], "a b: not a valid repo name"),
    (["init", "nowhere", "--model", "asset:mnist/lenet"], "nowhere: no such folder"),
    (["init", "photos"], "--model: missing"),
    (["sparsify", "r.yaml", "-o", "m.txt"], "m.txt: a mask is a .safetensors file"),
    (["sparsify", "r.yaml", "-o", "gone/m.safetensors"], "gone/m.safetensors: can't be written"),
    (["sparsify", "r.yaml", "-q", "-o", "m.safetensors"], "the oracle accepted 4 perturbed images, a mask needs 20"),
    (["judge", "out", "--oracle", "gone/nowhere"], "oracle.model: gone/nowhere can't be loaded"),
    (["evaluate", "out/c/s", *EVALUATE], "out/c/s: neither a folder nor a dataset repo; the split of that name in out is out:c/s"),
    (["evaluate", "out", "-c", "net.onnx"], "net.onnx: is an ONNX file; write onnx:net.onnx"),
    (["evaluate", "out", "-c", "net.pth"], "net.pth: no such file"),
    (["evaluate", "out", "-c", LENET, "--fixed", "photos"], "photos: is a folder; write --fixed {kind: imagefolder, path: photos}"),
    (["evaluate", "out", "-c", LENET, "--fixed", "sets/imagenet"], "sets/imagenet: no such file, and not a shipped set; did you mean sets/imagenet-"),
    (["diff", "r.yaml", "--old", LENET, "--new", "gone.pt"], "gone.pt: no such file"),
    (["train", "r.yaml"], "r.yaml: is a file for `fmrgen generate`"),
    ([*GENERATE, "perturb.min_probability=1"], "r.yaml: perturb: min_probability must be from 0 to less than 1, not 1"),
    (["recipes", "more"], "more: no such file, and not a shipped recipe"),
    (["evaluate", "out", "-c", "timn:resnet50"], "timn:resnet50 can't be imported: No module named 'timn'; did you mean timm:resnet50?"),
]  # fmt: skip


CASES = of_installed_commands(CASES)
IN_FULL = CASES[::6]  # of the others the key is asserted, and that there is a cure: their words may get better
# What a line does for its reader: it says what to do, what there is, or what would be right.
CURE = re.compile(
    r"; |\b(did you mean|choose from|there (is|are)|has the splits?|only|must|should|neither|no such|not exist|missing|not YAML|not (a|an|one)|"
    r"outside|can't be|needs?|unknown|input|see|is none|twice|extra|for example|too long|choose)\b"
)


def key_of(message):
    """What a line is about: the file, the key or the option that it begins with."""
    return re.match(r"(?:[^ :]+: )*[^ :]+", message)[0]


# Each is answered before torch is imported: so within two seconds of a processor.
AT_ONCE = [
    ("verify ../x/nothing --files", "../x/nothing: no such folder"),
    ("evaluate out -c trained/older", "trained/older: no such folder; did you mean trained/old?"),
    ("evaluate out -c {kind:&module,&target:&'nope:Net'}", "nope:Net can't be imported: No module named 'nope'"),
    ("compare r.yaml -c asset:mnist/lenet", "--classifier: a comparison needs at least two"),
    ("rebuild out --source r.yaml", "out: contains no split without images; push one with --without-images"),
    ("rebuild nothing --source r.yaml", "nothing: no such folder, and a repo is called OWNER/NAME"),
    ("generate r.yaml -o /proc/x", "/proc/x: can't be written: no file can be created in /proc"),
    ("explain out -o /proc/x", "/proc/x: can't be written"),
    ("generate r.yaml classifier={kind:&module,&target:&'nope:Net'}", "nope:Net can't be imported"),
    ("generate mnist-lenet source={kind:&imagefolder,&path:&gone}", "source.path: gone"),
    ("evaluate out -c {kind:&lenet,&checkpoint:&gone.pth}", "gone.pth"),
    ("verify gone.parquet", "gone.parquet"),
    ("generate r.yaml source.limit=ten", "source.limit: must be a whole number, not ten"),
    ("generate r.yaml output.shard_size=0", "output.shard_size: must be 1 or more or 'auto', not 0"),
    ("generate r.yaml source.fit=crp", "must be 'crop', 'squash' or 'pad', not crp; did you mean crop?"),
    ("generate r.yaml output.keep_original=maybe", "output.keep_original: must be true or false, not maybe"),
    ("generate r.yaml --limit 0", "--limit: must be >= 1, not 0; see fmrgen generate --help"),
    ("generate mnist-lnet", "mnist-lnet: no such file, and not a shipped recipe; did you mean mnist-lenet?"),
]
AT_ONCE = of_installed_commands(AT_ONCE)
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from fmrgen.cli.app import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as error:
        print(error.code, file=sys.stderr)
"""


def test_typos_are_told_before_torch_is_imported(place):
    (place / "trained/old").mkdir(parents=True)
    commands = [[word.replace("&", " ") for word in line.split()] for line, _ in AT_ONCE]
    program = [sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(AT_ONCE), done.stderr
    for (command, message), line, status in zip(AT_ONCE, lines[::2], lines[1::2], strict=True):
        assert message in line, command
        assert status == "2", command


@pytest.mark.parametrize(("arguments", "message"), CASES, ids=[" ".join(case[0])[:60] for case in CASES])
def test_a_mistake_is_one_line_and_costs_nothing(place, arguments, message, capsys):
    before = digest(place / "out")
    torch.manual_seed(1)
    status = run(*arguments)
    output = capsys.readouterr()
    assert status == 2, output.err
    assert (message if (arguments, message) in IN_FULL else key_of(message)) in output.err
    assert CURE.search(output.err), output.err
    assert re.fullmatch(r"fmrgen: [^\n]+\n", output.err), output.err
    assert not output.out
    assert digest(place / "out") == before
    assert not (place / "new").exists() or not list((place / "new").glob("c/*"))
    assert not (place / "ran").exists()


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000280000002808020000000303a3")
BROKEN = {
    "cut short": (write("9.png", PNG), "image file is truncated|no image"),
    "empty": (write("9.png", b""), "no bytes"),
    "text": (write("9.png", b"hello"), "no image"),
    "bomb": (lambda folder: photo(folder / "9.png", "1", (20_000, 20_000)), "could be decompression bomb"),
    "postscript": (write("9.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file\n"), "is a program, and is not run"),
    "link to nowhere": (lambda folder: (folder / "9.png").symlink_to("gone.png"), "No such file or directory"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named_and_can_be_skipped(place, name, capsys):
    spoil, message = BROKEN[name]
    shutil.copytree(place / "photos", place / name)
    spoil(place / name / "a")
    job = ["generate", "r.yaml", f"source.path={name}", "-o", f"out {name}", "-q"]
    torch.manual_seed(0)
    assert run(*job) == 2
    error = capsys.readouterr().err
    where = rf"fmrgen: source: image of id 2 \({name}/a/9.\w+\) is unreadable"
    assert re.fullmatch(rf"{where} \(.*({message}).*\); repair it, or set source.on_error=skip\n", error), error
    torch.manual_seed(0)
    assert run(*job, "source.on_error=skip") == 0
    assert pq.read_table(place / f"out {name}/c/s-00000-of-00001.parquet")["id"].to_pylist() == [0, 1, 3, 4]


ODD = {
    "wrong extension": lambda folder: photo(folder / "9.png", kind="JPEG"),
    "cmyk": lambda folder: photo(folder / "9.jpg", "CMYK", color=(1, 2, 3, 4)),
    "4 x 4": lambda folder: photo(folder / "9.png", size=(4, 4)),
    "30000 x 4": lambda folder: photo(folder / "9.png", size=(30_000, 4)),
    "animated": lambda folder: Image.new("P", (40, 40)).save(
        folder / "9.gif", save_all=True, append_images=[Image.new("P", (40, 40), 1)]
    ),
    "ünï cödé..png": lambda folder: photo(folder / "ünï cödé..png"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_images(place, name, capsys):
    shutil.copytree(place / "photos", place / name)
    ODD[name](place / name / "a")
    assert run("generate", "r.yaml", f"source.path={name}", "-o", f"out {name}", "-q") == 0, capsys.readouterr().err
    assert pq.read_metadata(place / f"out {name}/c/s-00000-of-00001.parquet").num_rows == 5


class OnlyNan(torch.nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :2] * float("nan")


def test_an_evaluation_of_only_nan_ends_badly_with_all_written(place, capsys):
    nan = "nan={kind: module, target: 'test_bad_input:OnlyNan'}"
    assert run("evaluate", "out", "-c", nan, "-c", f"lenet={LENET}", "-o", "e nan") == 1
    told = capsys.readouterr()
    line = "classifier nan: no output is finite, so every prediction counts as wrong; check its weights\n"
    assert told.err.endswith(line)
    assert "classifier lenet" not in told.err
    assert told.out.endswith("e nan/report.html\n")
    assert (place / "e nan/report.html").exists()


def test_a_classifier_that_gives_only_nan_stops_the_job(place, capsys):
    for limit in (4, 100):  # found at the end of a short job, and early in a long one
        photos = place / f"nan{limit}"
        for number in range(limit):
            photo(photos / "ab"[number % 2] / f"{number}.png")
        job = ["generate", "r.yaml", f"source.path={photos.name}", "-o", f"out {photos.name}", "-q"]
        assert run(*job, "classifier={kind: module, target: 'test_bad_input:OnlyNan'}") == 2
        line = f"fmrgen: classifier: gives NaN for every one of {min(limit, 64)} images; check"
        assert line in capsys.readouterr().err
