"""Training of small classifiers, CLIPs and generators: what made the shipped assets."""

RECIPES = {"train/": "load_train_recipe"}
