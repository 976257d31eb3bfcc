"""Data: DialoCONAN dialogues, RealToxicityPrompts prompts, their splits, and chat templates."""
