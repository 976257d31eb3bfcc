"""`detoxlens explain`: one prompt, one completion, and what each generated token drew on. Importing this is cheap."""
