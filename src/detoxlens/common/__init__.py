"""What everything rests on: artifacts, records, errors, seeds, console, machine, URLs."""
