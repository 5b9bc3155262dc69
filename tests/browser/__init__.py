"""A package: so the page and its worker, started once, end with this folder."""
