"""Training of small classifiers, CLIPs and generators: what made the shipped assets."""

NAMES: dict[str, str] = {"load_train_recipe": "fmrgen.apps.training.recipe", "train": "fmrgen.apps.training.loop"}
RECIPES = {"train/": "load_train_recipe"}
