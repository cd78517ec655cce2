"""One prediction in every convention, and why the numbers differ: `core`."""
