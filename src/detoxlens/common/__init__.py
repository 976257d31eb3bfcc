"""The ground floor: artifacts, records, errors, seeds, console, machine, URLs."""
