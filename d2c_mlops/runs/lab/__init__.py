"""Notebook jobs of JupyterLab as recorded runs."""
