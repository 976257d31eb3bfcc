"""The study's measures, pure functions of numbers and text: toxicity, fluency, intervals."""
