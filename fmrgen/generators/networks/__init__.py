"""Networks of published generators, rebuilt from their authors' files."""
