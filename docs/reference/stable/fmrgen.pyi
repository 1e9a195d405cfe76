class Agreement:
    def __init__(self, generators: list[str], classifiers: list[str], rows: int, fmr: list[list[Estimate]], orders: list[OrderOfTwo], pairs: list[RankCorrelation]) -> None: ...
    classifiers: list[str]
    fmr: list[list[Estimate]]
    generators: list[str]
    kept: list[OrderOfTwo]
    orders: list[OrderOfTwo]
    pairs: list[RankCorrelation]
    def ranks(self) -> list[list[int]]: ...
    rows: int
    verdict: str
AnyClassifier: Any
AnyGenerator: Any
AnyOracle: Any
AnySplit: Any
class AttackOptions:
    def __init__(self, *, update: Rule = 'sign', objective: Objective = 'margin', target: Target = 'runner_up', step: float = 1.0, noise: float = 0.0) -> None: ...
    name: str
    noise: float
    objective: Objective
    step: float
    target: Target
    update: Rule
class AttackRecord:
    def __init__(self, stop_reason: StopReason, predictions: list[int], objectives: list[float], oracle_probabilities: list[float], rejected_prediction: int) -> None: ...
    objectives: list[float]
    oracle_probabilities: list[float]
    predictions: list[int]
    rejected_prediction: int
    stop_reason: StopReason
class Attribute:
    def change(self, images: Tensor, amount: float) -> Tensor: ...
    is_of_waves: bool
    less: str
    def measure(self, images: Tensor) -> Tensor: ...
    more: str
    name: str
    other: str
class Badge:
    def __init__(self, words: str, tone: Tone = 'plain') -> None: ...
    tone: Tone
    words: str
class Certificate:
    def __init__(self, verdict: Verdict, claim: str, images: int, of_kind: int, margin: float, errors: dict[str, Estimate], elsewhere: dict[str, Estimate], flips: dict[str, Estimate], repair: list[Requirement], cost: list[Requirement], notes: list[str] = list(), cut: Cut | None = None, mended: list[Flip] = list(), left: list[Flip] = list()) -> None: ...
    broken: list[Requirement]
    claim: str
    cost: list[Requirement]
    cut: Cut | None
    elsewhere: dict[str, Estimate]
    errors: dict[str, Estimate]
    flips: dict[str, Estimate]
    images: int
    left: list[Flip]
    margin: float
    mended: list[Flip]
    notes: list[str]
    of_kind: int
    open: list[Requirement]
    repair: list[Requirement]
    verdict: Verdict
    def with_more(self, *, repair: Sequence[Requirement], cost: Sequence[Requirement], notes: Sequence[str]) -> Certificate: ...
class Check:
    def __init__(self, suite: str, name: str, outcome: Outcome) -> None: ...
    name: str
    outcome: Outcome
    suite: str
class Classifier:
    def __init__(self, network: nn.Module, preprocess: Callable[[Tensor], Tensor], class_names: Sequence[str] | None = None, channels: Literal['rgb', 'gray'] = 'rgb') -> None: ...
    channels: Any
    class_names: Any
    def forward(self, images: Tensor) -> Tensor: ...
    network: Any
    preprocess: Any
class ClassifierConfig:
    ARGUMENTS: str | None
    FILES: tuple[str, ...]
    PLACES: tuple[str, ...] | None
    def build(self, device: torch.device | str = 'cpu') -> Any: ...
    channels: Literal['rgb', 'gray']
    def check_places(self, section: str) -> None: ...
    class_names: Annotated[list[str] | None, NAMES_OR_FILE]
    def code_it_runs(self) -> list[str]: ...
    kind: str
    def places_it_reads(self) -> list[str]: ...
class ComponentConfig:
    ARGUMENTS: str | None
    FILES: tuple[str, ...]
    PLACES: tuple[str, ...] | None
    def build(self, device: torch.device | str = 'cpu') -> Any: ...
    def check_places(self, section: str) -> None: ...
    def code_it_runs(self) -> list[str]: ...
    kind: str
    def places_it_reads(self) -> list[str]: ...
class Components:
    classifier: nn.Module
    generator: Generator
    def notes(self) -> list[str]: ...
    oracle: Oracle
    source: Source
class Diff:
    def __init__(self, verdict: Verdict, margin: float, evidence: list[Evidence], flips: Flips, made: Made | None = None, changed: list[Evidence] = list(), band: Band | None = None, remedies: list[Remedy] = list(), confusions: list[Confusion] = list(), traits: list[Trait] = list(), notes: list[str] = list()) -> None: ...
    band: Band | None
    changed: list[Evidence]
    confusions: list[Confusion]
    evidence: list[Evidence]
    flips: Flips
    hints: list[Remedy | Confusion | Trait]
    made: Made | None
    margin: float
    not_excluded: list[Evidence]
    notes: list[str]
    remedies: list[Remedy]
    traits: list[Trait]
    verdict: Verdict
    worse: list[Evidence]
class Estimate:
    def __init__(self, value: float, low: float | None, high: float | None) -> None: ...
    ends: tuple[float, float]
    high: float | None
    low: float | None
    value: float
class Evaluation:
    def __init__(self, *, schema: Literal['fmrgen-evaluation/1'], splits: list[EvaluatedSplit], classifiers: list[EvaluatedClassifier], results: list[Result], comparisons: list[Comparison], own: OwnComparison | None = None, worst: list[WorstCase] = list(), attack: str | None = None, fixed: list[FixedResult] = list(), failed: list[FailedClassifier] = list(), predictions: SkipJsonSchema[pa.Table | None] = None, samples: SkipJsonSchema[dict[str, list[Sample]]] = dict()) -> None: ...
    attack: str | None
    def checked_predictions(self) -> pa.Table: ...
    classifiers: list[EvaluatedClassifier]
    comparisons: list[Comparison]
    failed: list[FailedClassifier]
    def figure(self, name: str) -> Plot: ...
    fixed: list[FixedResult]
    matrix: list[list[Result]]
    def of_moved(self) -> Evaluation: ...
    def of_perturbed(self) -> Evaluation: ...
    own: OwnComparison | None
    def per_class(self) -> DataFrame: ...
    def per_group(self) -> DataFrame: ...
    def per_step(self) -> DataFrame: ...
    predictions: SkipJsonSchema[pa.Table | None]
    def predictions_of(self, split: str, classifier: str) -> dict[str, np.ndarray]: ...
    def result(self, split: str, classifier: str) -> Result: ...
    results: list[Result]
    samples: SkipJsonSchema[dict[str, list[Sample]]]
    schema: Literal['fmrgen-evaluation/1']
    splits: list[EvaluatedSplit]
    def to_frame(self) -> DataFrame: ...
    def to_json(self) -> str: ...
    def to_latex(self, figures: Sequence[str] = ()) -> str: ...
    def to_markdown(self, figures: Sequence[str] = ()) -> str: ...
    def to_tree(self) -> dict[str, Any]: ...
    worst: list[WorstCase]
class Example:
    def __init__(self, id: int, image: Tensor, label: int, controlled: bool = False, accepted: tuple[int, ...] | None = None) -> None: ...
    accepted: tuple[int, ...] | None
    controlled: bool
    id: int
    image: Tensor
    label: int
class Explanation:
    def __init__(self, split: str, files: str, rows: int, fooled: int, originals: int, fewest_errors: int | None, findings: list[Finding], image_size: int = 32, preparations: list[Preparation] = list()) -> None: ...
    confirmed: list[Finding]
    fewest_errors: int | None
    files: str
    findings: list[Finding]
    fooled: int
    image_size: int
    originals: int
    preparations: list[Preparation]
    reported: list[Finding]
    rows: int
    split: str
class FilesVerification:
    def __init__(self, intact: int, shards: int, finished: bool, wrong: list[str]) -> None: ...
    finished: bool
    intact: int
    shards: int
    wrong: list[str]
class Flips:
    def __init__(self, images: int, trainings: int, old_accuracy: Estimate, new_accuracy: Estimate, drop: Estimate, broke: Estimate, fixed: Estimate, old_flips: float | None, images_needed: int, classes: list[FlippedGroup], pairs: list[FlippedGroup], groups: dict[str, list[FlippedGroup]], old_calibration: Estimate | None, new_calibration: Estimate | None, broken: list[Flip] = list(), mended: list[Flip] = list(), doubted: list[Flip] = list(), doubted_images: int = 0, old_accuracy_undoubted: Estimate | None = None, new_accuracy_undoubted: Estimate | None = None) -> None: ...
    broke: Estimate
    broken: list[Flip]
    classes: list[FlippedGroup]
    doubted: list[Flip]
    doubted_images: int
    drop: Estimate
    fixed: Estimate
    groups: dict[str, list[FlippedGroup]]
    images: int
    images_needed: int
    mended: list[Flip]
    new_accuracy: Estimate
    new_accuracy_undoubted: Estimate | None
    new_calibration: Estimate | None
    old_accuracy: Estimate
    old_accuracy_undoubted: Estimate | None
    old_calibration: Estimate | None
    old_flips: float | None
    pairs: list[FlippedGroup]
    trainings: int
class GeneratedSplit:
    def load(self) -> Dataset: ...
    def of(cls, folder: str | Path, config: str, split: str, summary: Summary) -> GeneratedSplit: ...
    summary: Summary
class Generator:
    def decode(self, latents: Latents) -> Tensor: ...
    derived: tuple[str, ...]
    def encode(self, images: Tensor, labels: Tensor) -> Latents: ...
    encode_is_dear: bool
    def encode_quickly(self, images: Tensor, labels: Tensor) -> Latents: ...
    image_size: int
    def noise(self, like: Tensor) -> Tensor: ...
    def project(self, latents: Latents, start: Tensor) -> Tensor: ...
    row_seeds: Sequence[int]
class GeneratorConfig:
    ARGUMENTS: str | None
    FILES: tuple[str, ...]
    PLACES: tuple[str, ...] | None
    def build(self, device: torch.device | str = 'cpu') -> Any: ...
    def check_places(self, section: str) -> None: ...
    def code_it_runs(self) -> list[str]: ...
    image_size: int
    kind: str
    mask: str | None
    def places_it_reads(self) -> list[str]: ...
JobProgress: Any
class Judged:
    def __init__(self, judge: str, rows: int, preserved: Estimate | None, originals_right: Estimate | None, files: list[Path], place: str, shares_weights_with: list[str]) -> None: ...
    files: list[Path]
    judge: str
    originals_right: Estimate | None
    place: str
    preserved: Estimate | None
    rows: int
    shares_weights_with: list[str]
class Judgement:
    decided: Tensor
    labels: Tensor | None
    members: Mapping[str, Judgement]
    probabilities: Tensor
    score: Tensor
class KeyFigure:
    def __init__(self, name: str, estimate: Estimate, unit: str = '%', low: float = 0.0, high: float = 100.0) -> None: ...
    estimate: Estimate
    high: float
    interval: str
    low: float
    name: str
    text: str
    unit: str
class Labels:
    def __init__(self, names: tuple[str, ...], groups: tuple[tuple[int, ...], ...] | None = None, source_size: int | None = None, source_names: tuple[str, ...] | None = None) -> None: ...
    def from_source(self, source_class: int) -> int | None: ...
    groups: tuple[tuple[int, ...], ...] | None
    names: tuple[str, ...]
    source_names: tuple[str, ...] | None
    source_size: int | None
class Latents:
    fixed: Tensor | None
    free: Tensor
class LoadedExample:
    accepted: tuple[int, ...] | None
    extra: Mapping[str, Any] | None
    def for_engine(self, *, controlled: bool = False) -> Example: ...
    id: int
    image: np.ndarray
    label: int
class MaiteDataset:
    def __init__(self, split: Any, *, column: str = 'image', only_valid: bool = True, pixels: Pixels = 'bytes') -> None: ...
    metadata: dict[str, Any]
class MaiteModel:
    def __init__(self, classifier: nn.Module, name: str, class_names: Sequence[str] | None = None, pixels: Pixels = 'bytes') -> None: ...
    metadata: dict[str, Any]
OnRows: Any
OpenedSplit: Any
class Oracle:
    deciding: Oracle
    derived: tuple[str, ...]
    def judge(self, images: Tensor, originals: Originals | None = None) -> Judgement: ...
    def logits(self, images: Tensor) -> Tensor: ...
    member_names: tuple[str, ...]
    needs_originals: bool
    def set_labels(self, labels: Labels) -> None: ...
class OracleConfig:
    ARGUMENTS: str | None
    FILES: tuple[str, ...]
    PLACES: tuple[str, ...] | None
    def build(self, device: torch.device | str = 'cpu') -> Any: ...
    def check_places(self, section: str) -> None: ...
    def code_it_runs(self) -> list[str]: ...
    is_image_text: bool
    kind: str
    def places_it_reads(self) -> list[str]: ...
class Originals:
    images: Tensor
    labels: Tensor
class PerturbOptions:
    def __init__(self, *, budget: int = 50, step_size: float = 0.001, update: Rule = 'sign', queries: int = 40, objective: Objective = 'margin', target: Target = 'runner_up', attacks: Literal['one', 'standard', 'thorough'] | tuple[AttackOptions, ...] = 'one', keep: Literal['last', 'first'] = 'last', start: Literal['none', 'fgsm', 'pgd'] = 'none', start_epsilon: float = 0.003, start_noise: float = 0.0, reencode: bool = False, oracle_rule: Literal['label', 'consistent', 'none'] = 'label', min_probability: float = 0.0, min_margin: float = 0.0, control: int | Literal['auto'] = 'auto', seed: int = 0, slots: int | Literal['auto'] = 32, precision: Literal['fp32', 'bf16'] = 'fp32', compile: bool = False) -> None: ...
    attacks: Literal['one', 'standard', 'thorough'] | tuple[AttackOptions, ...]
    budget: int
    can_be_controlled: bool
    compile: bool
    control: int | Literal['auto']
    follows_gradient: bool
    def is_controlled(self, position: int, examples: int) -> bool: ...
    is_guided: bool
    keep: Literal['last', 'first']
    min_margin: float
    min_probability: float
    most_queries: int
    objective: Objective
    oracle_rule: Literal['label', 'consistent', 'none']
    precision: Literal['fp32', 'bf16']
    queries: int
    reencode: bool
    runs: tuple[PerturbOptions, ...]
    seed: int
    slots: int | Literal['auto']
    start: Literal['none', 'fgsm', 'pgd']
    start_epsilon: float
    start_noise: float
    step_size: float
    target: Target
    update: Rule
class Perturbed:
    def __init__(self, id: int, label: int, image: Tensor, original: Tensor, valid: bool, iterations: int, queries: int, stop_reason: StopReason, score: float, probability: float, oracle_label: int, original_oracle_label: int, reconstruction_oracle_label: int, prediction: int, original_prediction: int, reconstruction_prediction: int, loss: float, margin: float, latent_shift: float, step_predictions: list[int], step_losses: list[float], step_oracle_probabilities: list[float], step_objectives: list[float], rejected_prediction: int, rejected_oracle_label: int, control_predictions: list[int] = list(), control_objectives: list[float] = list(), member_labels: list[int] = list(), member_probabilities: list[float] = list(), member_scores: list[float] = list(), fault: str | None = None, latents: tuple[Tensor, Tensor] | None = None, accepted_labels: list[int] = list(), attack: int = 0, attacks: list[AttackRecord] = list(), original_id: int = -1, move: str = '', amount: float = 0.0, extra: Mapping[str, Any] = dict()) -> None: ...
    accepted_labels: list[int]
    def accepts(self, answer: int) -> bool: ...
    amount: float
    attack: int
    attacks: list[AttackRecord]
    control_objectives: list[float]
    control_predictions: list[int]
    extra: Mapping[str, Any]
    fault: str | None
    id: int
    image: Tensor
    iterations: int
    label: int
    latent_shift: float
    latents: tuple[Tensor, Tensor] | None
    loss: float
    margin: float
    member_labels: list[int]
    member_probabilities: list[float]
    member_scores: list[float]
    move: str
    oracle_label: int
    original: Tensor
    original_id: int
    original_oracle_label: int
    original_prediction: int
    pixel_shift: float
    prediction: int
    probability: float
    queries: int
    reconstruction_oracle_label: int
    reconstruction_prediction: int
    rejected_oracle_label: int
    rejected_prediction: int
    score: float
    step_losses: list[float]
    step_objectives: list[float]
    step_oracle_probabilities: list[float]
    step_predictions: list[int]
    stop_reason: StopReason
    valid: bool
class PerturbedBatch:
    def __init__(self, images: Tensor, valid: Tensor, predictions: Tensor, original_predictions: Tensor, rows: list[Perturbed]) -> None: ...
    images: Tensor
    original_predictions: Tensor
    predictions: Tensor
    rows: list[Perturbed]
    def summary(self) -> Summary: ...
    valid: Tensor
class Picture:
    def __init__(self, caption: str, draw: Callable[[], Plot], name: str = '', of_photos: bool = False) -> None: ...
    caption: str
    draw: Callable[[], Plot]
    name: str
    of_photos: bool
class Plot:
    def __init__(self, *arguments: Any, **options: Any) -> None: ...
    places: list[Place]
    def save(self, path: str | Path) -> None: ...
    def save_all(self, folder: Path, name: str, more: Sequence[PlotFormat] = ()) -> list[Path]: ...
    def to_bytes(self, file_format: str = 'png', *, as_text: bool = False) -> bytes: ...
class Provenance:
    accepts_several: bool
    code_sha256: dict[str, str]
    download_size: int
    examples: PositiveInt
    files: dict[_ShardFile, str]
    files_digest: str
    fingerprint: Annotated[str, Field(pattern='^[0-9a-f]{16}$')]
    finished: bool
    groups: Sequence[Sequence[int]] | None
    image_size: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
    is_finished: bool
    is_newer: bool
    job_labels: Labels
    judged_steps: JudgedSteps
    judges: Sequence[str]
    kinship: Kinship | None
    labels: Sequence[str]
    num_bytes: int
    oracle_sha256: Sequence[str]
    recipe: RecordedRecipe
    row_schema: Schema
    rows: int
    rows_version: int
    runs: Sequence[Run]
    schema_version: Annotated[str | None, Field(alias=schema, pattern=f'^{_SCHEMA}\\d+$')]
    score_column: Annotated[str, Field(pattern='^(clip|oracle)_score$')]
    shard_count: int
    skipped: Sequence[Skipped]
    slope: float | None
    source_classes: int | None
    source_columns: Annotated[dict[_ColumnName, Literal['int64', 'float64', 'string']], Field(max_length=100)]
    source_names: Sequence[str] | None
    summary: dict[str, Any]
    tree: dict[str, Any]
    weights_sha256: RecordedWeights
    def write(self, paths: SplitPaths) -> None: ...
class Pushed:
    def __init__(self, repo: str, private: bool, commit: str, url: str | None, new: list[str], tags: list[str], notes: list[str]) -> None: ...
    commit: str
    new: list[str]
    notes: list[str]
    private: bool
    repo: str
    tags: list[str]
    url: str | None
class RandomChange:
    def __init__(self, attribute: str | Attribute, least: float = -1.0, most: float = 1.0, share: float = SHARE_OF_FIRST) -> None: ...
    attribute: Any
    def extra_repr(self) -> str: ...
    def forward(self, images: Tensor) -> Tensor: ...
class RawExample:
    accepted: tuple[int, ...] | None
    extra: Mapping[str, Any] | None
    id: int
    image: bytes | str | Image.Image
    label: int
class Recipe:
    ARGUMENTS: str | None
    def build(self, device: torch.device | str = 'cpu') -> Components: ...
    def check_perturbs(self) -> None: ...
    classifier: ClassifierField
    description: str
    def description_of(self, images: int) -> str: ...
    fingerprint: str
    generator: GeneratorField
    def in_precision(self, precision: Literal['fp32', 'bf16'] | None) -> Recipe: ...
    oracle: OracleField
    output: OutputConfig
    perturb: PerturbField
    source: SourceField
class Report:
    def __init__(self, name: str, title: str, sections: list[Section], data: Any, conclusions: list[str] = list(), about: str = '', warnings: list[str] = list(), check: Check | None = None, meanings: Mapping[str, str] = dict(), galleries: Callable[[], Sequence[Gallery]] | None = None, badge: Badge | None = None, figures: Sequence[KeyFigure] = (), next_steps: Sequence[str] = (), page_name: str = '', allow_nan: bool = False) -> None: ...
    about: str
    allow_nan: bool
    badge: Badge | None
    check: Check | None
    conclusions: list[str]
    data: Any
    figures: Sequence[KeyFigure]
    galleries: Callable[[], Sequence[Gallery]] | None
    meanings: Mapping[str, str]
    name: str
    next_steps: Sequence[str]
    page_name: str
    def pictures(self) -> Iterator[Picture]: ...
    sections: list[Section]
    title: str
    warnings: list[str]
class Result:
    def __init__(self, split: str, classifier: str, conditioned: bool, total: Summary, classes: list[Summary], notes: list[str], judged: dict[str, Corrected] = dict(), at_chance: bool = False, masked: bool = False, rough: bool = False, moves: list[AfterMove] = list(), groups: dict[str, dict[str, Summary]] = dict()) -> None: ...
    at_chance: bool
    classes: list[Summary]
    classifier: str
    conditioned: bool
    groups: dict[str, dict[str, Summary]]
    is_moved: bool
    judged: dict[str, Corrected]
    masked: bool
    moves: list[AfterMove]
    notes: list[str]
    rough: bool
    split: str
    total: Summary
class Section:
    def __init__(self, kind: str, title: str, about: str = '', tables: list[Table] = list(), lines: list[str] = list(), facts: Mapping[str, str] = dict(), pictures: list[Picture] = list(), links: Mapping[str, str] = dict(), parts: list[Section] = list(), shown: Shown = 'everywhere', folded: bool = False, most_rows: int | None = None) -> None: ...
    about: str
    facts: Mapping[str, str]
    folded: bool
    kind: str
    lines: list[str]
    links: Mapping[str, str]
    most_rows: int | None
    parts: list[Section]
    pictures: list[Picture]
    shown: Shown
    tables: list[Table]
    title: str
class Source:
    accepts_several: bool
    columns: Mapping[str, str]
    fit: Fit
    labels: Labels
    def load(self, start: int, stop: int, size: int) -> Iterator[LoadedExample | SkippedExample]: ...
    def load_all(self, size: int) -> Iterator[Example]: ...
    on_error: Literal['fail', 'skip']
    def read(self, start: int, stop: int) -> Iterator[RawExample]: ...
class SourceConfig:
    ARGUMENTS: str | None
    FILES: tuple[str, ...]
    PLACES: tuple[str, ...] | None
    def build(self, device: torch.device | str = 'cpu') -> Any: ...
    def check_places(self, section: str) -> None: ...
    classes: Annotated[Classes | None, NAMES_OR_FILE]
    def code_it_runs(self) -> list[str]: ...
    copies: int | None
    fit: Fit
    kind: str
    license: str | None
    limit: int | None
    on_error: Literal['fail', 'skip']
    per_class: int | None
    def places_it_reads(self) -> list[str]: ...
    shuffle_seed: int | None
class SparseMask:
    def __init__(self, mask: torch.Tensor, images: int, regularization: float, test_score: float) -> None: ...
    images: int
    mask: torch.Tensor
    regularization: float
    sparsity: float
    tells_apart: bool
    test_score: float
class Split:
    def __init__(self, name: str, dataset: IterableDataset, provenance: Provenance | None = None, repo: str | None = None, revision: str | None = None, config: str | None = None, split: str | None = None, opened_by_caller: bool = False, rows_in_files: int = 0) -> None: ...
    def answers(self, classifier: AnyClassifier, *, columns: Sequence[str] | None = None, batch_size: int = 64, device: torch.device | str | None = None) -> dict[str, Answers]: ...
    def batches(self, size: int, images: Sequence[str] = (), columns: Sequence[str] | None = None) -> Iterator[dict[str, list[Any]]]: ...
    def check_columns(self) -> None: ...
    def columns(self, names: Iterable[str] | None = None, labels: Labels | None = None) -> dict[str, np.ndarray]: ...
    config: str | None
    dataset: IterableDataset
    def decode(self, stored: dict[str, Any] | None, title: str) -> PILImage.Image: ...
    def decode_images(self, images: Mapping[str, pa.ChunkedArray], first_row: int) -> dict[str, list[LazyPixels]]: ...
    def decoded(self, batch: Mapping[str, list[Any]]) -> dict[str, np.ndarray]: ...
    features: Features
    def first_image(self, device: torch.device) -> torch.Tensor: ...
    def grouped_by(self, by: Sequence[str]) -> dict[str, list[Any]]: ...
    def groupings(self, by: Sequence[str]) -> list[Grouping]: ...
    has_own_classes: bool
    image_columns: list[str]
    def image_of(self, stored: dict[str, Any] | None) -> bytes | str: ...
    def images(self, columns: Sequence[str] = ('image',), rows: np.ndarray | None = None, size: int = 64) -> Iterator[Batch]: ...
    is_moved: bool
    def known_columns(self) -> tuple[list[str], list[str]]: ...
    labels: Labels | None
    def labels_for(self, models: Iterable[Callable[[], LoadedClassifier]], device: torch.device) -> Labels: ...
    name: str
    def observed_labels(self) -> Labels: ...
    opened_by_caller: bool
    def parts(self, size: int, labels: Labels | None = None, images: Sequence[str] = (), names: Iterable[str] | None = None, others: Sequence[str] = ()) -> Iterator[Part]: ...
    paths: SplitPaths
    def pixels(self, batch: Mapping[str, list[Any]], column: str) -> np.ndarray: ...
    provenance: Provenance | None
    repo: str | None
    revision: str | None
    rows: int | None
    rows_in_files: int
    split: str | None
    def stored_rows(self, images: Sequence[str] = (), columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]: ...
    def undecoded(self, columns: Iterable[str]) -> IterableDataset: ...
class SplitPaths:
    def __init__(self, root: Path, config: str, split: str) -> None: ...
    def at(self, root: Path) -> SplitPaths: ...
    def claims_among(self, names: Iterable[str]) -> list[str]: ...
    config: str
    explanation: Path
    def found_shards(self) -> list[Path]: ...
    def in_repo(self, path: Path) -> str: ...
    judgements: Path
    def leftovers(self) -> list[Path]: ...
    lock: Path
    logs: Path
    name: str
    picture: Path
    provenance: Path
    results: Path
    root: Path
    def shard(self, number: int, total: int) -> Path: ...
    def shard_lock(self, number: int) -> Path: ...
    shard_pattern: str
    shards: Path
    def shards_among(self, names: Iterable[str]) -> list[str]: ...
    split: str
class StopReason:
    BUDGET: Any
    NONFINITE: Any
    ORACLE: Any
    REACHED: Any
    REJECTED: Any
    STUCK: Any
class Summary:
    def __init__(self, rows: int, valid_rows: int, fmr: Estimate | None = 'FMR', standard_accuracy: Estimate | None = 'SA', relative_moved_accuracy: Estimate | None = 'MA / SA', moved_accuracy: Estimate | None = 'MA', worst_moved_accuracy: Estimate | None = 'worst MA / SA', perturbed_accuracy: Estimate | None = 'PA', validation_rate: Estimate | None = 'VR', valid_standard_accuracy: Estimate | None = 'SA valid', native_accuracy: Estimate | None = 'SA native', attacked_accuracy: Estimate | None = 'attacked', valid_fmr: Estimate | None = 'FMR valid', oracle_right_fmr: Estimate | None = 'FMR known', reconstruction_fmr: Estimate | None = 'PA / recon.', macro_fmr: Estimate | None = 'FMR macro', lowest_fmr: Estimate | None = 'FMR low', highest_fmr: Estimate | None = 'FMR high', mean_iterations: Estimate | None = 'iterations', mean_queries: Estimate | None = 'queries', reconstruction_accuracy: Estimate | None = 'recon.', by_budget: Estimate | None = 'by budget', first_attack_fmr: Estimate | None = 'FMR one attack', last_attacks_drop: Estimate | None = 'last drop', stuck: Estimate | None = 'stuck', first_steps_up: Estimate | None = '1st step up', steps_up: Estimate | None = 'steps up', near_steps_up: Estimate | None = 'steps up near', last_less_ever: Estimate | None = 'last – ever', guided_less_random: Estimate | None = 'guided – random', ahead_of_random: Estimate | None = 'ahead', falls_with_oracle: Estimate | None = 'co-fall', top5_standard_accuracy: Estimate | None = 'SA top-5', top5_perturbed_accuracy: Estimate | None = 'PA top-5', top5_fmr: Estimate | None = 'FMR top-5', calibration_error: Estimate | None = 'ECE', perturbed_calibration_error: Estimate | None = 'ECE perturbed', selective_accuracy: Estimate | None = 'SA surest 80 %', perturbed_selective_accuracy: Estimate | None = 'PA surest 80 %', oracle_accuracy: Estimate | None = 'oracle', of_moved_images: bool = False) -> None: ...
    ahead_of_random: Estimate | None
    attacked_accuracy: Estimate | None
    by_budget: Estimate | None
    calibration_error: Estimate | None
    falls_with_oracle: Estimate | None
    first_attack_fmr: Estimate | None
    first_steps_up: Estimate | None
    fmr: Estimate | None
    guided_less_random: Estimate | None
    has_converged: bool | None
    def has_too_few_rows(self, metric: Metric) -> bool: ...
    highest_fmr: Estimate | None
    last_attacks_drop: Estimate | None
    last_less_ever: Estimate | None
    lowest_fmr: Estimate | None
    macro_fmr: Estimate | None
    mean_iterations: Estimate | None
    mean_queries: Estimate | None
    moved_accuracy: Estimate | None
    native_accuracy: Estimate | None
    near_steps_up: Estimate | None
    of_moved_images: bool
    oracle_accuracy: Estimate | None
    oracle_right_fmr: Estimate | None
    perturbed_accuracy: Estimate | None
    perturbed_calibration_error: Estimate | None
    perturbed_selective_accuracy: Estimate | None
    reconstruction_accuracy: Estimate | None
    reconstruction_fmr: Estimate | None
    relative_moved_accuracy: Estimate | None
    rows: int
    selective_accuracy: Estimate | None
    standard_accuracy: Estimate | None
    steps_up: Estimate | None
    stuck: Estimate | None
    def text_of(self, metric: Metric) -> str: ...
    top5_fmr: Estimate | None
    top5_perturbed_accuracy: Estimate | None
    top5_standard_accuracy: Estimate | None
    valid_fmr: Estimate | None
    valid_rows: int
    valid_standard_accuracy: Estimate | None
    validation_rate: Estimate | None
    worst_moved_accuracy: Estimate | None
class Table:
    def __init__(self, header: list[str], rows: list[list[str]], of_text: bool = False, first_columns: Sequence[str] = (), filters: Sequence[str] = ()) -> None: ...
    filters: Sequence[str]
    first_columns: Sequence[str]
    header: list[str]
    of_text: bool
    rows: list[list[str]]
class TrainRecipe:
    ARGUMENTS: str | None
    augment: AugmentConfig
    copies: str | None
    description: str
    generator: GeneratorField | None
    model: Annotated[SerializeAsAny[ObjectiveConfig], component(fmrgen.apps.training.objectives)]
    perturbed: PerturbedConfig | None
    schedule: ScheduleConfig
    source: SourceField
    test: SourceField
class UserError:
    from_one_process: Any
class Verification:
    def __init__(self, rows: int, disagreements: list[Disagreement], notes: list[str]) -> None: ...
    disagreements: list[Disagreement]
    notes: list[str]
    rows: int
    true_rows: int
def agreement(evaluations: Mapping[str, Evaluation], *, seed: int = 0) -> Agreement: ...
def certify(claim: str | Claim, old: Any, new: Any, labels: Any = None, *, controls: Mapping[str, Any] | None = None, images: Any = None, shifts: Mapping[str, Any] | None = None, trained_on: Sequence[Any] = (), margin: float = MARGIN, recipe: Recipe | None = None, output: str | Path | None = None, trust: bool = False, job_progress: JobProgress | None = None, on_note: Callable[[str], None] = lambda line: None) -> Certificate: ...
def classifier_of_maite(model: Callable[..., Any], pixels: Pixels = 'bytes') -> Classifier: ...
def compare(source: Any, classifiers: Mapping[str, AnyClassifier | Sequence[AnyClassifier]], output: str | Path, *, generator: AnyGenerator | None = None, oracle: AnyOracle | None = None, class_names: Sequence[str] | None = None, image_size: int | None = None, config: str | None = None, seeds: int = 1, attack: str | None = None, batch_size: int = 64, progress: bool = True, job_progress: JobProgress | None = None, on_note: Callable[[str], None] = print, on_rows: OnRows | None = None, **options: Any) -> Evaluation: ...
def diff(old: Any, new: Any, labels: Any = None, *, images: Any = None, recipe: Recipe | None = None, output: str | Path | None = None, margin: float = 0.0, by: Sequence[str] = (), reviewed: Mapping[str, str] | None = None, until_decided: bool = False, seed: int = 0, trust: bool = False, job_progress: JobProgress | None = None, on_note: Callable[[str], None] = lambda line: None) -> Diff: ...
def evaluate(splits: Mapping[str, AnySplit] | Sequence[str] | AnySplit, classifiers: Mapping[str, AnyClassifier | Sequence[AnyClassifier]] | Sequence[str] | AnyClassifier, *, source: str | SourceConfig | None = None, attack: str | None = None, store: str | Path | None = None, strict: bool = False, fixed: Mapping[str, FixedSets] | Sequence[str] = (), download: bool = False, valid_by: str | None = None, by: Sequence[str] = (), trust: bool = False, batch_size: int = 64, shown: int = 300, progress: bool = True, on_rows: OnRows | None = None) -> Evaluation: ...
def explain(split: str, *, classifier: AnyClassifier | None = None, attributes: Sequence[Attribute] = ATTRIBUTES, rows: int = 1000, trust: bool = False, device: torch.device | str | None = None, on_attributes: Callable[[int, int], None] = lambda done, total: None) -> Explanation: ...
def export(split: str, folder: str | Path, form: Format, *, tar_size: int = 1000, on_rows: Callable[[int, int | None], None] = lambda done, total: None) -> int: ...
def figure(evaluation: Evaluation, name: str) -> Plot: ...
def format_estimate(estimate: Estimate | None) -> str: ...
def freeze(module: nn.Module, device: torch.device | str | None = None) -> nn.Module: ...
def generate(source: Any, classifier: AnyClassifier | None = None, *, output: str | Path, generator: AnyGenerator | None = None, oracle: AnyOracle | None = None, class_names: Sequence[str] | None = None, image_size: int | None = None, config: str | None = None, split: str | None = None, part: tuple[int, int] | None = None, progress: bool = True, on_note: Callable[[str], None] | None = None, **options: Any) -> GeneratedSplit: ...
def init(images: Any, model: AnyClassifier | None = None, *, output: str | Path = 'fmrgen.yaml', generators: Sequence[Mapping[str, Any]] = (), oracles: Sequence[str] = (), backbone: str | None = None, names: Mapping[str, str] | None = None, minutes: float = 10.0, quick: bool = False, offline: bool = False, on_stage: Callable[[str, int, int], None] = lambda name, done, total: None, on_note: Callable[[str], None] = lambda line: None) -> Init: ...
def inspect(recipe: Recipe, *, images: int = 32, download: bool = False, masking: bool = False, seconds: float = _SECONDS, on_trial: Callable[[Trial], None] = lambda trial: None, on_passes: Callable[[int, int], None] = lambda done, most: None) -> Inspection: ...
def judge(split: str, oracles: Mapping[str, AnyOracle] | Sequence[str] | str, *, batch_size: int = 64, progress: bool = True, on_rows: OnRows | None = None, on_wait: Callable[[str], None] = lambda line: None) -> list[Judged]: ...
def load_classifier(reference: str, device: torch.device | str = 'cpu') -> nn.Module: ...
def load_oracle(reference: str, device: torch.device | str = 'cpu') -> Oracle: ...
def load_recipe(reference: str | Path, overrides: Sequence[str] = ()) -> Recipe: ...
def load_train_recipe(reference: str | Path, overrides: Sequence[str] = ()) -> TrainRecipe: ...
def merge(parts: Sequence[str | Path], output: str | Path, *, on_note: Callable[[str], None] = lambda line: None) -> dict[str, Summary]: ...
def on_byte_grid(images: Tensor) -> Tensor: ...
def open_split(split: str | Path | Dataset | IterableDataset, *, name: str | None = None, download: bool = False) -> Split: ...
def paired_difference(first: np.ndarray, second: np.ndarray, per: float = 1.0) -> Estimate: ...
def perturb(examples: Iterable[Example], classifier: nn.Module, generator: Generator, oracle: Oracle, options: PerturbOptions, *, keep_latents: bool = False, device: torch.device | str = 'cpu', expected: int | None = None, encodings: Encodings | None = None, on_pass: Callable[[int], None] = lambda active: None, on_slots: Callable[[int], None] = lambda slots: None, on_step: OnStep | None = None) -> Iterator[Perturbed]: ...
def perturb_batch(images: Tensor, labels: Tensor | Sequence[int], *, classifier: AnyClassifier, generator: AnyGenerator, oracle: AnyOracle, class_names: Sequence[str] | None = None, device: torch.device | str | None = None, progress: bool = True, **options: Any) -> PerturbedBatch: ...
def proportion(hits: np.ndarray) -> Estimate | None: ...
def push(folder: str | Path, repo: str, *, public: bool = False, replace: bool = False, revision: str | None = None, on_wait: Callable[[str], None] = lambda line: None) -> Pushed: ...
def read_figures(path: Path) -> Evaluation: ...
def row_seed(seed: int, example_id: int, purpose: str = '') -> int: ...
def show(split: str, folder: str | Path, *, gallery: int | None = None, ids: Sequence[int] = (), pairs: bool = False, classes: Sequence[str] = (), rows: int = _ROWS, columns: int = COLUMNS, caption: str | None = None, file_format: PlotFormat = 'png', steps: bool = False, trust: bool = False, on_rows: Callable[[int, int], None] = lambda done, total: None, on_note: Callable[[str], None] = lambda line: None) -> list[Path]: ...
def sparsify(recipe: Recipe, output: str | Path, *, regularization: float | None = None, on_images: Callable[[int, int | None], None] = lambda done, total: None) -> SparseMask: ...
def summarise(columns: Mapping[str, np.ndarray], *, resamples: int = RESAMPLES) -> Summary: ...
def sweep(points: Sequence[SweepPoint], output: str | Path, *, job_progress: JobProgress | None = None, on_note: Callable[[str], None] = lambda line: None) -> list[SweepResult]: ...
def to_batch(pixels: np.ndarray, device: torch.device | str = 'cpu') -> Tensor: ...
def to_bytes(images: Tensor) -> Tensor: ...
def train(recipe: TrainRecipe, output: str | Path, progress: Callable[[int, int, float], None] = lambda step, steps, loss: None, trackers: Sequence[str] = (), on_note: Callable[[str], None] = lambda line: None) -> dict[str, float]: ...
def verify(split: str, *, classifier: nn.Module | None = None, oracle: Oracle | nn.Module | None = None, trust: bool = False, device: torch.device | str | None = None, on_rows: Callable[[int, int], None] = lambda done, rows: None) -> Verification: ...
def verify_files(split: str) -> FilesVerification: ...
def write_dossier(splits: Sequence[str], folder: str | Path, results: Sequence[str | Path] = ()) -> Report: ...
def write_report(evaluation: Evaluation, folder: str | Path, plot_formats: Sequence[PlotFormat] = ()) -> None: ...
