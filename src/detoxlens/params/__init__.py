"""params.yaml: a file per section, of its name; reading, checking, editing, presets."""
