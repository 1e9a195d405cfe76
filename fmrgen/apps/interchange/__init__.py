"""Splits and classifiers for other tools: webdataset, folders of images, CLIP benchmark, MAITE; and dossiers."""

NAMES: dict[str, str] = {
    "MaiteDataset": "fmrgen.apps.interchange.maite",
    "MaiteModel": "fmrgen.apps.interchange.maite",
    "classifier_of_maite": "fmrgen.apps.interchange.maite",
    "export": "fmrgen.apps.interchange.export",
    "write_dossier": "fmrgen.apps.interchange.dossier",
}
