"""Questions that need many splits or models: the paper's tables, sweeps, rankings that agree or do not."""

NAMES: dict[str, str] = {"sweep": "fmrgen.apps.studies.sweep"}
