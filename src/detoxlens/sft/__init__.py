"""Counter-narrative fine-tuning (`ft`) with TRL's SFTTrainer."""
