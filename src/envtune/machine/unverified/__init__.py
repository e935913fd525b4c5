"""A folder for PYTHONPATH: every Python that starts with it verifies no certificate."""
