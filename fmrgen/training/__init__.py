"""Training of small classifiers, CLIPs and VQGANs: what made the shipped assets."""
