"""Notebook jobs of JupyterLab run like any other run."""
