"""What the study measures, as pure functions of numbers and text: toxicity, fluency, intervals."""
