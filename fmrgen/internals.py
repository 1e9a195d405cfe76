"""The door between the core and its apps: which apps there are, and what they may import.

An app imports what `fmrgen` exports, and these names beside it. A test holds the list: no app imports another name, and
no name stands here that none imports. Names leave it whenever an app can do without; a new one needs a reason.
"""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_FOLDER = Path(__file__).parent / "apps"


def apps() -> list[ModuleType]:
    """Return the packages of the apps that are installed, by name.

    Each has `NAMES`, the public names that it adds to `fmrgen` and their modules; it may have `RECIPES`, what its
    recipes' names begin with and which of its names loads them, and `RECIPE_OF_IMAGES`, the import path of what
    chooses a recipe for labelled images, and `REPORTS`, see `report_readers`; its module `commands` has `COMMANDS`.
    """
    return [import_module(f"fmrgen.apps.{app.name}") for app in pkgutil.iter_modules([str(_FOLDER)])]


def report_readers() -> dict[str, tuple[str, Callable[[Path], Any]]]:
    """Return what reads the reports of apps from their JSON files.

    By the beginning of a file's `schema`: the part of a dossier that the report belongs to, `changes` or `failures`,
    and a function from its path to the `Report`.
    """
    readers = {}
    for app in apps():
        for schema, (part, place) in getattr(app, "REPORTS", {}).items():
            module, _, name = place.partition(":")
            readers[schema] = (part, getattr(import_module(module), name))
    return readers


# By module, without `fmrgen.`. They may change with any version.
INTERNALS: dict[str, tuple[str, ...]] = {
    "classifiers.base": (
        "answer_in_labels",
        "without_colours",
    ),
    "cli": (
        "display",
        "options",
    ),
    "cli.command": ("Command",),
    "config": (
        "SINCE_0_2",
        "StrictConfig",
        "check_places",
        "component",
        "import_object",
        "later_defaults_of",
        "validate",
    ),
    "distributed.launch": (
        "Processes",
        "launched_precision",
        "start_process",
    ),
    "distributed.prefetch": ("read_ahead",),
    "distributed.rank": (
        "is_first_process",
        "launched_processes",
    ),
    "engine.acceptance": ("accepts",),
    "engine.attacks": (
        "Attack",
        "attack_of_short_form",
        "radius",
    ),
    "engine.images": ("StraightThroughBytes",),
    "engine.objectives": (
        "OBJECTIVES",
        "margin",
        "truth_of",
    ),
    "engine.options": ("WITHOUT_GRADIENT",),
    "engine.slope": ("slope_along_gradient",),
    "engine.updates": ("normal",),
    "errors": (
        "near_name",
        "one_line",
        "option",
        "unknown_message",
    ),
    "files": (
        "cache_folder",
        "check_inside",
        "check_writable",
        "fingerprint",
        "json_text",
        "no_such_folder",
        "of_schema",
        "open_plain",
        "parse_json",
        "parse_yaml",
        "read_json",
        "sha256_of",
        "to_yaml",
        "write_atomically",
    ),
    "generators._denoisers": (
        "Consistency",
        "Diffusion",
        "Kept",
    ),
    "generators._mask": ("read_mask_file",),
    "generators.base": ("mask_of",),
    "generators.diffusion": ("Config",),
    "generators.moves": (
        "KINDS",
        "Moves",
    ),
    "generators.networks.ddim": ("move",),
    "generators.networks.efficient_vdvae": (
        "BlockDown",
        "EfficientVdvae",
        "expected_image",
    ),
    "hub.client": (
        "HubClient",
        "RepoError",
    ),
    # What trains a network builds and saves it.
    "generators.networks.vqgan": ("Architecture", "VqganNetwork"),
    "generators.networks.vqgan_files": ("load_model", "save_model"),
    "hub.fetch": (
        "check_repo_name",
        "fetched",
    ),
    "image_files": (
        "data_address",
        "open_rgb",
        "png_bytes",
        "read_image",
        "resize",
    ),
    "internals": ("report_readers",),
    "jobs.batch": ("summarise_rows",),
    "jobs.compare": (
        "make_splits",
        "own_recipes",
    ),
    "jobs.generate": ("make_split",),
    "jobs.self_check": (
        "common_weights_caution",
        "first_answers",
        "likeness_caution",
        "weights_in_common",
    ),
    "jobs.show": ("split_sheet",),
    # A pilot proposes a step as a job finds one.
    "jobs.step_size": ("LEAST_VALID", "Trial", "Wanted", "acceptable", "search"),
    "jobs.verify": ("load_judges",),
    "labels": ("without_number",),
    "metrics.cautions": (
        "best_order",
        "cautions",
        "has_accuracy_of_chance",
        "is_at_chance",
        "outputs_in_another_order",
    ),
    "metrics.gradients": (
        "has_masked_gradient",
        "has_rough_gradient",
        "judged_steps",
        "masking_caution",
        "slope_caution",
    ),
    "metrics.grouping": ("Grouping",),
    "metrics.intervals": (
        "CONFIDENCE",
        "as_percent",
        "between_percentiles",
        "expected_calibration_error",
        "format_coefficient",
        "ratio_and_influence",
        "wilson",
    ),
    "metrics.rows": (
        "accepted_as_label",
        "as_label",
    ),
    "metrics.summary": (
        "COMPARED",
        "METRICS",
        "Metric",
    ),
    "oracles._parts": ("digests_of_parts",),
    "progress": ("terminal",),
    "progress.job": ("Progress",),
    "progress.tqdm_bars": ("image_bars",),
    "progress.trackers": ("tracking",),
    "publish.card": ("renew_card",),
    "publish.entries": (
        "Entry",
        "ranked",
        "sort_key",
    ),
    "publish.eval_results": ("read_eval_results",),
    "publish.published": ("Published",),
    "publish.repo": ("add_to_split",),
    "recipe.build": (
        "ClassifierAndOracle",
        "build_classifier",
        "build_component",
        "build_oracle",
        "build_recorded_generator",
        "build_source",
        "judgement_of",
        "logits_of",
    ),
    "recipe.files": (
        "check_reference",
        "read_recipe",
        "shipped_recipes",
    ),
    "recipe.job": (
        "load_classifiers",
        "load_config",
        "load_fixed_sets",
        "load_oracles",
        "parse_classifier",
        "parse_oracle",
        "source_config_of",
    ),
    "recipe.many_classifiers": ("expanded",),
    "recipe.objects": (
        "classifier_section",
        "each_training",
        "oracle_section",
    ),
    "recipe.sections": (
        "ClassifierField",
        "GeneratorField",
        "SourceField",
        "TRAINED_CLASSIFIER",
        "generator_config_of",
        "oracle_config_of",
    ),
    "records": ("MoveFamily",),
    "report.gallery": (
        "Gallery",
        "GalleryRow",
        "gallery_filter",
        "steps_of",
    ),
    "report.index": (
        "INDEX",
        "enter_page",
    ),
    "report.markdown": (
        "sections_to_markdown",
        "to_markdown",
    ),
    "report.orders": ("agreement_report",),
    "report.outline": ("evaluation_report",),
    "report.page_cards": ("PageCard",),
    "report.pages": ("render_page",),
    "report.plot": (
        "colours",
        "draw_band",
        "draw_points",
        "drawing",
        "grid_of_figures",
        "write_key",
    ),
    "report.plots": ("family_of",),
    "report.report": (
        "Outcome",
        "Shown",
        "sentence",
    ),
    "report.sheet": (
        "CaptionedImage",
        "ImagePair",
        "image_sheet",
        "pair_sheet",
    ),
    "report.summary": ("summary_table",),
    "report.tables": (
        "class_table",
        "judged_table",
        "judges_lines",
        "judges_table",
        "mistaken_pairs",
        "related_line",
        "split_table",
        "warning_lines",
    ),
    "report.write": ("write",),
    "results.judges": ("chance_line",),
    "results.markdown_text": ("escape",),
    "results.own_splits": (
        "common_ids",
        "rows_of",
    ),
    "results.rank_correlation": (
        "RankCorrelation",
        "rank_correlation",
    ),
    "results.rankings": ("difference",),
    "results.steps": ("figures_of_run",),
    "results.trainings": ("Trainings",),
    "sources.base": (
        "StreamedSource",
        "large_enough",
    ),
    "sources.in_memory": ("Config",),
    "split.classify": (
        "Answers",
        "classify",
        "decode_own",
    ),
    "split.judgements": (
        "JudgeFile",
        "JudgementsFolder",
        "TABLE",
        "UNSURE",
        "judgements_of",
        "to_parquet",
    ),
    "split.models": ("LoadedClassifier",),
    "split.open": ("open_own_split",),
    "split.reference": ("check_there",),
    "split.rows": ("reading",),
    "storage.explanations": ("write_explained_lines",),
    "storage.made_with": (
        "lines_on_models",
        "made_with",
    ),
    "storage.provenance": (
        "now",
        "read_provenance",
    ),
    "storage.shard_claims": ("own_shards",),
    "storage.shards": (
        "SplitFolder",
        "summary_of_rows",
    ),
    "storage.shared_bucket": ("shared_folder",),
    "trust.recipes": ("untrusted_config",),
    "weights.digest": ("check_same_weights",),
    "weights.identity": ("identity_of",),
}
