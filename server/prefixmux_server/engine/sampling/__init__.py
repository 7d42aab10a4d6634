"""From logits to tokens: shaping, drawing, beams, log-probabilities."""
